"use strict";
// Charts from the page's own data; the gallery from the data that its folder's script has set.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const charts = JSON.parse(document.getElementById("charts").textContent);

  function at(path) {
    let value = data;
    for (const key of path.split(".")) value = value == null ? value : value[key];
    return value;
  }

  // {"$field": "a.b"} becomes what lies at a.b; a single object becomes a list of one.
  function filled(spec) {
    if (Array.isArray(spec)) return spec.map(filled);
    if (spec === null || typeof spec !== "object") return spec;
    if ("$field" in spec) {
      const value = at(spec.$field);
      const list = Array.isArray(value) ? value : [value];
      return list.map((item) => (item !== null && typeof item === "object" ? { ...item } : { data: item }));
    }
    return Object.fromEntries(Object.entries(spec).map(([key, value]) => [key, filled(value)]));
  }

  const embedding = {
    mode: "vega-lite", renderer: "svg", ast: true, defaultStyle: true,
    actions: { export: { svg: true, png: false }, source: false, compiled: false, editor: false },
    tooltip: { theme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light" },
  };

  async function draw(place) {
    if (place.dataset.drawn) return;
    place.dataset.drawn = "pending";
    try {
      await vegaEmbed(place, filled(charts[place.dataset.chart]), { ...embedding, downloadFileName: place.dataset.chart });
      place.dataset.drawn = "yes";
    } catch (error) {
      place.dataset.drawn = "failed";
      console.error(error);
    }
  }

  // A chart in a closed <details> has no width yet; it is drawn when that opens.
  for (const place of document.querySelectorAll("[data-chart]")) {
    const hidden = place.closest("details:not([open])");
    if (hidden) hidden.addEventListener("toggle", () => draw(place), { once: true });
    else draw(place);
  }

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("main details:not(.chart details)")) details.open = true;
  });
})();
