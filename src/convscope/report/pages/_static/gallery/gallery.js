// The gallery: layers to choose from, filters, orders and a search, the shelf of units, one unit in full.

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
    const dead = matching(layers[layer], filters, search.value).length - listed.length;
    const hidden = dead ? `; ${dead} dead ${dead === 1 ? "one isn’t" : "ones aren’t"} shown` : "";
    const narrowed = filters.size > 0 || search.value.trim() !== "";
    const empty = narrowed && !listed.length ? " have all that is asked for" : "";
    count.textContent = `${listed.length} of ${layers[layer].length} units${empty}${hidden}`;
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
    for (const button of at("unit-filters").children) {
      const having = layers[number].filter(FILTERS.find((filter) => filter.name === button.dataset.filter).of).length;
      button.lastChild.textContent = having;
      button.classList.toggle("nothing", !having);
    }
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
    at("unit-previous").disabled = !listed[position - 1];
    at("unit-next").disabled = !listed[position + 1];
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
  at("unit-legend").append(...legend());
  for (const each of ORDERS) order.add(new Option(each.label, each.name));
  order.addEventListener("change", list);
  let typing = 0;
  search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(list, 120); });
  for (const filter of FILTERS) {
    if (filter.name === "aliased" && !told.layers.some((each) => each.stem)) continue;
    const button = element("button", "filter", `${filter.label} `);
    button.append(element("span", "n"));
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
  searchBySlash(search, dialog);
  walkThrough(dialog, at("unit-previous"), at("unit-next"), (by) => {
    const there = Boolean(listed[open + by]);
    if (there) detail(open + by);
    return there;
  });
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
