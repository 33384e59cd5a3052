// The gallery: layers to choose from, filters, orders and a search, the shelf of units, one unit in full.

function factsOf(gallery, number, census) {
  const layer = gallery.layers[number];
  const path = `layers.${number}`;
  const list = element("dl", "facts row");
  const add = (label, ...parts) => {
    const pair = element("div");
    const value = element("dd");
    value.append(...parts);
    pair.append(element("dt", "", label), value);
    list.append(pair);
  };
  const count = (name) => layer.units.filter((unit) => unit[name]).length;
  add("Units", field(`${path}.units`, String(layer.units.length), "channels of the layer"));
  add("Dead", field(`${path}.units`, String(count("dead")), `units that are positive in none of ${gallery.num_images} images`));
  add("Near-dead", field(`${path}.units`, String(count("near_dead")), "units that are positive in few images"));
  if (layer.units.some((unit) => unit.always_on !== null))
    add("Always on", field(`${path}.units`, String(count("always_on")), "units that are positive everywhere in all images"));
  add("Map", field(`${path}.map_size`, layer.map_size.join(" × "), "height × width of the units’ maps"));
  add("Sees", field(`${path}.receptive_field`, layer.receptive_field ? `${layer.receptive_field.size.join(" × ")} px` : "the image",
    "pixels of the image that a unit sees"));
  const scored = layer.units.filter((unit) => unit.scores).length;
  add("Scored", field(`${path}.units`, String(scored), "units whose strongest picture has scores; those without aren’t in the medians"));
  add("Selectivity", field(`${path}.selectivity`, significant(layer.selectivity), `median over ${scored} units; ${SCORES[0].meaning}`));
  add("Image dependence", field(`${path}.image_dependence`, significant(layer.image_dependence), `median over ${scored} units; ${SCORES[1].meaning}`));
  const parts = [list];
  if (layer.projected !== null) {
    const caveat = element("p", "caveat");
    caveat.append(element("b", "", "No projections. "), layer.projected);
    parts.push(caveat);
  } else {
    const way = element("p", "census");
    way.append(element("b", "", "On the way back: "), census || "–");
    way.append(`. Projected ${layer.window ? `in windows of ${layer.window.join(" × ")} pixels` : "in whole images"}`);
    if (layer.window && layer.num_whole) way.append(", ", field(`${path}.num_whole`, String(layer.num_whole), "projections made in whole images"), " of the pictures in whole images");
    way.append(".");
    parts.push(way);
    if (gallery.rule === "deconvnet" && !layer.census.switches.length) {
      const caveat = element("p", "caveat");
      caveat.append(element("b", "", "Careful. "), "There is no max-pool below this layer: its projections follow the filters and hardly depend on the image.");
      parts.push(caveat);
    }
  }
  return parts;
}

function tabOf(gallery, number) {
  const layer = gallery.layers[number];
  const made = element("button");
  made.type = "button";
  made.id = `tab-${number}`;
  made.setAttribute("role", "tab");
  made.setAttribute("aria-controls", "layer");
  const dead = layer.units.filter((unit) => unit.dead).length;
  made.append(element("code", "", layer.name), element("small", "about", `${layer.units.length} units${dead ? `, ${dead} dead` : ""}`), element("small", "found"));
  return made;
}

function start(gallery, place) {
  const at = (id) => document.getElementById(id);
  const [search, order, count, dialog] = ["unit-search", "unit-order", "unit-count", "unit-dialog"].map(at);
  const told = JSON.parse(at("standing").textContent);
  const layers = gallery.layers.map((layer, number) => entriesOf(layer, told.layers[number].units));
  const show = makeSprites(place.dataset.folder);
  const filters = new Set();
  // The first layer with max-pools below, whose projections depend on the image, says most at first sight.
  let layer = Math.max(0, gallery.layers.findIndex((each) => each.census && each.census.switches.length > 0));
  let listed = [];
  let open = null; // which of those listed is shown in full
  const tabs = gallery.layers.map((_, number) => tabOf(gallery, number));
  const shelf = makeShelf(place, (entry, loader = show) => makeCard(gallery, layer, entry, loader), detail);

  function link(...parts) {
    history.replaceState(null, "", `#${["gallery", ...parts].join("/")}`);
  }

  function list() {
    const found = layers.map((entries) => chosen(entries, filters, search.value));
    listed = ordered(found[layer], order.value);
    const dead = layers[layer].filter(({ unit }) => unit.dead).length;
    const hidden = dead && !filters.has("dead") ? `; ${dead} dead ${dead === 1 ? "one isn’t" : "ones aren’t"} shown` : "";
    count.textContent = `${listed.length} of ${layers[layer].length} units${hidden}`;
    const narrowed = filters.size > 0 || search.value.trim() !== "";
    tabs.forEach((tab, number) => {
      tab.lastChild.textContent = narrowed ? `${found[number].length} found` : "";
      tab.classList.toggle("nothing", narrowed && !found[number].length);
    });
    shelf.show(listed);
  }

  function choose(number) {
    layer = number;
    tabs.forEach((tab, each) => {
      tab.setAttribute("aria-selected", String(each === number));
      tab.tabIndex = each === number ? 0 : -1;
    });
    at("layer").setAttribute("aria-labelledby", `tab-${number}`);
    at("layer-facts").replaceChildren(...factsOf(gallery, number, told.layers[number].census));
    list();
  }

  function reveal(tab) {
    const strip = tab.parentElement;
    strip.scrollTop = Math.max(0, tab.offsetTop - strip.offsetTop - strip.clientHeight / 2);
    strip.scrollLeft = Math.max(0, tab.offsetLeft - strip.offsetLeft - strip.clientWidth / 2);
  }

  function detail(position) {
    open = position;
    const entry = listed[position];
    at("unit-detail").replaceChildren(...detailOf(gallery, layer, entry, show));
    link(layer, entry.unit.index);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  // #gallery/LAYER or #gallery/LAYER/UNIT, by their numbers.
  function follow() {
    const asked = /^#gallery\/(\d+)(?:\/(\d+))?$/.exec(location.hash);
    if (!asked || !gallery.layers[Number(asked[1])]) return;
    if (dialog.open) dialog.close();
    search.value = "";
    filters.clear();
    for (const button of at("unit-filters").children) button.setAttribute("aria-pressed", "false");
    const wanted = Number(asked[2]);
    const entry = layers[Number(asked[1])].find(({ unit }) => unit.index === wanted);
    choose(Number(asked[1]));
    reveal(tabs[layer]);
    if (asked[2] === undefined || !entry) {
      at("gallery").scrollIntoView({ behavior: "instant" });
      return;
    }
    if (entry.unit.dead) { // living units are listed without being asked for
      search.value = asked[2];
      list();
    }
    const position = listed.indexOf(entry);
    shelf.focus(position);
    detail(position);
  }

  at("layers").append(...tabs);
  tabs.forEach((tab, number) => {
    tab.addEventListener("click", () => { choose(number); link(number); });
    tab.addEventListener("keydown", (event) => {
      const last = tabs.length - 1;
      const next = { ArrowRight: number + 1, ArrowDown: number + 1, ArrowLeft: number - 1, ArrowUp: number - 1, Home: 0, End: last }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      choose((next + tabs.length) % tabs.length);
      link(layer);
      tabs[layer].focus({ preventScroll: true });
      reveal(tabs[layer]);
    });
  });
  for (const each of ORDERS) order.add(new Option(each.label, each.name));
  order.addEventListener("change", list);
  let typing = 0;
  search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(list, 120); });
  for (const filter of FILTERS) {
    if (filter.name === "aliased" && !told.layers.some((each) => each.stem)) continue;
    const button = element("button", "filter", filter.label);
    button.type = "button";
    button.title = filter.meaning;
    button.dataset.filter = filter.name;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      if (!filters.delete(filter.name)) filters.add(filter.name);
      button.setAttribute("aria-pressed", String(filters.has(filter.name)));
      list();
    });
    at("unit-filters").append(button);
  }
  addEventListener("keydown", (event) => {
    const writes = event.target.closest && event.target.closest("input, select, textarea, [contenteditable]");
    if (event.key !== "/" || writes || dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    search.focus();
  });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !listed[open + step]) return;
    event.preventDefault();
    detail(open + step);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    if (dialog.open) return; // a link has opened it again meanwhile
    link(layer);
    if (open !== null && listed[open]) shelf.focus(open);
    open = null;
  });
  addEventListener("hashchange", follow);
  choose(layer);
  follow();
}

const unitsPlace = document.getElementById("units");
if (unitsPlace && window.convscopeGallery) start(window.convscopeGallery, unitsPlace);
else if (unitsPlace) {
  document.querySelector("#gallery .controls").hidden = true;
  unitsPlace.textContent = "The gallery’s folder isn’t beside this page, so its pictures can’t be shown.";
}
