// Two galleries: layers to choose from, kinds of change, and the shelf of pairs.

function comparedFacts(layer, number) {
  const list = element("dl", "facts row");
  const path = `layers.${number}`;
  const add = (label, name, text, title) => {
    const pair = element("div");
    const value = element("dd");
    value.append(field(`${path}.${name}`, text, title));
    pair.append(element("dt", "", label), value);
    list.append(pair);
  };
  add("Units", "num_units", layer.num_units.join(" → "), "channels");
  add("Dead", "num_dead", layer.num_dead.join(" → "), "units that are positive nowhere");
  add("Near-dead", "num_near_dead", layer.num_near_dead.join(" → "), "units that are positive in few images");
  add("Median correlation", "median_correlation", significant(layer.median_correlation), "of partners, median");
  add("By chance", "chance", significant(layer.chance), `correlation that one in twenty unrelated units exceeds ${layer.by === "channel" ? "with the one unit of its own channel" : "with the nearest of all units"}`);
  add("Matched", "share_matched", percent(layer.share_matched), "units whose partner is like them above chance");
  add("Median overlap", "median_overlap", percent(layer.median_overlap), "of the strongest images, median");
  if (layer.aliased_shares) add("Aliased", "aliased_shares", layer.aliased_shares.map(percent).join(" → "), "energy folded into false frequencies, median filter");
  return [list, element("p", "census", `Partners by ${layer.by}: ${layer.reason}`)];
}

async function startComparison() {
  const at = (id) => document.getElementById(id);
  const { layers } = JSON.parse(at("data").textContent).comparison;
  const sides = JSON.parse(at("sides").textContent);
  const shows = await checkedSprites(sides, at("folders"));
  const [search, order, count, dialog] = ["unit-search", "unit-order", "unit-count", "unit-dialog"].map(at);
  const kinds = new Set();
  let layer = 0;
  let listed = [];
  let open = 0;
  const nothing = () => {};
  const shelf = makeShelf(at("units"), (entry, loader) => pairCard(sides, layer, entry, loader ? [nothing, nothing] : shows), detail);

  function detail(position) {
    open = position;
    at("unit-detail").replaceChildren(...pairDetail(sides, layer, listed[position], shows));
    if (!dialog.open) dialog.showModal();
    at("unit-previous").disabled = !listed[position - 1];
    at("unit-next").disabled = !listed[position + 1];
    dialog.scrollTop = 0;
  }

  function list() {
    const { pairs, order: byChange } = layers[layer];
    const places = order.value === "change" ? byChange : pairs.map((_, place) => place);
    const wanted = search.value.trim();
    listed = places
      .map((place) => ({ place, pair: pairs[place], unit: pairs[place].first || pairs[place].second }))
      .filter(({ pair }) => (!kinds.size || kinds.has(pair.kind)) &&
        (!wanted || [pair.first, pair.second].some((unit) => unit && String(unit.index) === wanted)));
    count.textContent = `${listed.length} of ${pairs.length} pairs${listed.length ? "" : " are what is asked for"}`;
    shelf.show(listed);
  }

  function filters() {
    const { pairs } = layers[layer];
    kinds.clear();
    at("unit-filters").replaceChildren(...Object.keys(MEANINGS).flatMap((kind) => {
      const number = pairs.filter((pair) => pair.kind === kind).length;
      if (!number) return [];
      const button = element("button", "filter", `${kind} ${number}`);
      button.type = "button";
      button.title = MEANINGS[kind];
      button.dataset.filter = kind;
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        if (!kinds.delete(kind)) kinds.add(kind);
        button.setAttribute("aria-pressed", String(kinds.has(kind)));
        list();
      });
      return [button];
    }));
  }

  const tabs = layers.map((each, number) => {
    const made = element("button");
    made.type = "button";
    made.id = `tab-${number}`;
    made.setAttribute("role", "tab");
    made.setAttribute("aria-controls", "layer");
    made.append(element("code", "", each.names[0] === each.names[1] ? each.names[0] : each.names.join(" → ")),
      element("small", "", `${percent(each.share_matched)} matched`));
    made.addEventListener("click", () => choose(number));
    made.addEventListener("keydown", (event) => {
      const last = tabs.length - 1;
      const next = { ArrowRight: number + 1, ArrowDown: number + 1, ArrowLeft: number - 1, ArrowUp: number - 1, Home: 0, End: last }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      choose((next + tabs.length) % tabs.length);
      tabs[layer].focus();
    });
    return made;
  });

  function choose(number) {
    layer = number;
    tabs.forEach((tab, each) => {
      tab.setAttribute("aria-selected", String(each === number));
      tab.tabIndex = each === number ? 0 : -1;
    });
    at("layer").setAttribute("aria-labelledby", `tab-${number}`);
    at("layer-facts").replaceChildren(...comparedFacts(layers[number], number));
    history.replaceState(null, "", `#gallery/${number}`);
    filters();
    list();
  }

  at("layers").append(...tabs);
  order.addEventListener("change", list);
  search.addEventListener("input", list);
  walkThrough(dialog, at("unit-previous"), at("unit-next"), (by) => {
    const there = Boolean(listed[open + by]);
    if (there) detail(open + by);
    return there;
  });
  dialog.addEventListener("close", () => { if (listed[open]) shelf.focus(open); });
  searchBySlash(search, dialog);
  at("unit-legend").append(...Object.entries(MEANINGS).map(([kind, meaning]) => explained(kind, meaning)));
  const asked = /^#gallery\/(\d+)$/.exec(location.hash);
  if (layers.length) choose(asked && layers[Number(asked[1])] ? Number(asked[1]) : 0);
  else document.querySelector("#gallery .browse").textContent = "No layer is in both galleries.";
}

startComparison();
