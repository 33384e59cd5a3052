"use strict";
// The gallery: one layer at a time, its units in portions, pictures only when they come into view.
(function () {
  const place = document.getElementById("units");
  const gallery = window.convscopeGallery;
  if (!place) return;
  if (!gallery) {
    place.textContent = "The gallery's folder isn't beside this page, so its pictures can't be shown.";
    return;
  }
  const PORTION = 36;
  const dead = document.getElementById("show-dead");
  const order = document.getElementById("unit-order");
  const count = document.getElementById("unit-count");
  const dialog = document.getElementById("unit-dialog");
  const tabs = [...document.querySelectorAll("[data-layer]")];
  // The first layer with max-pools below, whose projections depend on the image, says most at first sight.
  let layer = Math.max(0, gallery.layers.findIndex((each) => each.census.switches.length > 0));
  let shown = [];
  let made = 0;

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // A number with the place in the gallery's data that it comes from.
  function field(path, text, title) {
    const made = element("span", "n", text);
    made.dataset.gallery = path;
    made.title = title;
    return made;
  }

  function significant(value) {
    return value === null ? "–" : Number(value.toPrecision(3)).toString();
  }

  function percent(value) {
    return `${(100 * value).toFixed(value > 0 && value < 0.01 ? 2 : 1)} %`;
  }

  const pictures = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      entry.target.style.backgroundImage = `url("${entry.target.dataset.src}")`;
      pictures.unobserve(entry.target);
    }
  }, { rootMargin: "300px" });

  // One unit's block of the layer's sprite, stretched to the element: positions and sizes in percent.
  function picture(sprite, file, unit, units, label) {
    const made = element("span", "picture");
    const rows = Math.ceil(units / sprite.across);
    const column = unit % sprite.across;
    const row = Math.floor(unit / sprite.across);
    made.style.backgroundSize = `${100 * sprite.across}% ${100 * rows}%`;
    made.style.backgroundPosition =
      `${sprite.across > 1 ? (100 * column) / (sprite.across - 1) : 0}% ${rows > 1 ? (100 * row) / (rows - 1) : 0}%`;
    made.style.setProperty("--side", sprite.side);
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", label);
    made.dataset.src = `${place.dataset.folder}/${encodeURIComponent(file)}`;
    pictures.observe(made);
    return made;
  }

  function pair(unit) {
    const { sprite, units } = gallery.layers[layer];
    const both = element("span", "pictures");
    both.append(
      picture(sprite, sprite.patches, unit.index, units.length, `strongest patches of unit ${unit.index}`),
      picture(sprite, sprite.projections, unit.index, units.length, `projections of unit ${unit.index}`),
    );
    return both;
  }

  function card(unit, position) {
    const path = `layers.${layer}.units.${position}`;
    const made = element("button", unit.dead ? "unit-card dead" : "unit-card");
    made.type = "button";
    const head = element("span", "head");
    const name = element("b", "", "unit ");
    name.append(field(`${path}.index`, String(unit.index), "channel"));
    const facts = element("span");
    if (unit.dead) facts.textContent = "dead: positive nowhere";
    else {
      facts.append("up to ", field(`${path}.maximum`, significant(unit.maximum), "largest activation in the data"),
        ", in ", field(`${path}.active_images`, percent(unit.active_images), "images in which it is positive somewhere"));
    }
    head.append(name, facts);
    made.append(head);
    if (!unit.dead) {
      made.append(pair(unit));
      made.addEventListener("click", () => open(unit, position));
    }
    return made;
  }

  function open(unit, position) {
    const path = `layers.${layer}.units.${position}`;
    const detail = document.getElementById("unit-detail");
    detail.replaceChildren();
    const title = element("h3", "", `${gallery.layers[layer].name}, unit `);
    title.append(field(`${path}.index`, String(unit.index), "channel"));
    const table = element("table");
    const head = element("tr");
    for (const text of ["Image", "Activation", "At y, x", "Sees rows", "Sees columns"]) head.append(element("th", "", text));
    table.append(head);
    unit.examples.forEach((example, rank) => {
      const row = element("tr");
      const from = `${path}.examples.${rank}`;
      const cells = [
        field(`${from}.name`, example.name || `image ${example.image}`, `image ${example.image} of the data`),
        field(`${from}.value`, significant(example.value), "largest activation of the unit in this image"),
        field(`${from}.position`, example.position.join(", "), "position of the activation in the unit's map"),
        field(`${from}.box`, `${example.box.top} to ${example.box.bottom}`, "pixels, the last one excluded"),
        field(`${from}.box`, `${example.box.left} to ${example.box.right}`, "pixels, the last one excluded"),
      ];
      for (const cell of cells) {
        const td = element("td");
        td.append(cell);
        row.append(td);
      }
      table.append(row);
    });
    const { sprite } = gallery.layers[layer];
    const both = pair(unit);
    const captions = element("span", "pictures quiet");
    captions.append(element("span", "", `Patches: ${sprite.patch_display}`), element("span", "", `Projections: ${sprite.projection_display}`));
    detail.append(title, both, captions, table);
    history.replaceState(null, "", `#gallery/${layer}/${unit.index}`);
    dialog.showModal();
  }

  function more() {
    const next = shown.slice(made, made + PORTION);
    place.append(...next.map(([unit, position]) => card(unit, position)));
    made += next.length;
  }

  const bottom = element("div");
  place.after(bottom);
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && made < shown.length) more();
  }, { rootMargin: "600px" }).observe(bottom);

  function show() {
    const units = gallery.layers[layer].units.map((unit, position) => [unit, position]);
    const alive = units.filter(([unit]) => !unit.dead);
    shown = dead.checked ? units : alive;
    if (order.value !== "index") shown = [...shown].sort(([a], [b]) => b[order.value] - a[order.value]);
    count.textContent = `${shown.length} of ${units.length} units, ${units.length - alive.length} dead`;
    place.replaceChildren();
    made = 0;
    more();
    for (const tab of tabs) {
      const selected = Number(tab.dataset.layer) === layer;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
    }
    for (const facts of document.querySelectorAll("[data-layer-facts]")) {
      facts.hidden = Number(facts.dataset.layerFacts) !== layer;
    }
  }

  for (const tab of tabs) {
    tab.addEventListener("click", () => { layer = Number(tab.dataset.layer); show(); });
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      layer = (layer + step + tabs.length) % tabs.length;
      show();
      tabs[layer].focus();
    });
  }
  dead.addEventListener("change", show);
  order.addEventListener("change", show);
  dialog.addEventListener("close", () => history.replaceState(null, "", "#gallery"));

  const deep = /^#gallery\/(\d+)\/(\d+)$/.exec(location.hash);
  if (deep && gallery.layers[Number(deep[1])]) layer = Number(deep[1]);
  show();
  if (deep) {
    const position = gallery.layers[layer].units.findIndex((unit) => unit.index === Number(deep[2]));
    if (position >= 0) open(gallery.layers[layer].units[position], position);
  }
})();
