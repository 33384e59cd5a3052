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
    actions: false, // downloads.js has them
    tooltip: { theme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light" },
  };

  async function draw(place) {
    if (place.dataset.drawn) return;
    place.dataset.drawn = "pending";
    try {
      const name = place.dataset.chart, spec = charts[name];
      await unpackedVega();
      const { view } = await vegaEmbed(place, { description: place.getAttribute("aria-label"), ...filled(spec) }, embedding);
      place.dataset.drawn = "yes";
      place.dispatchEvent(new CustomEvent("drawn", { bubbles: true, detail: { view, spec, name } }));
    } catch (error) {
      place.dataset.drawn = "failed";
      console.error(error);
    }
  }

  // A chart in a closed <details> has no width yet; it is drawn when that opens. The others are drawn one by
  // one once the page is painted, so that it can be read and scrolled meanwhile.
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  (async function () {
    const places = [...document.querySelectorAll("[data-chart]")];
    const shown = places.filter((place) => {
      const hidden = place.closest("details:not([open])");
      hidden?.addEventListener("toggle", () => draw(place), { once: true });
      return !hidden;
    });
    for (const place of shown) {
      await Promise.race([painted(), new Promise((done) => setTimeout(done, 100))]); // none in a hidden tab
      await draw(place);
    }
  })();

  // In a table the head of a column says how its numbers were had; a number says so too, once pointed at.
  addEventListener("pointerover", (event) => {
    const number = event.target.closest?.("td .n");
    if (!number || number.dataset.told) return;
    number.dataset.told = "yes";
    const cell = number.closest("td");
    const how = cell.closest("table").tHead?.rows[0].cells[cell.cellIndex]?.title;
    if (how && !number.title.includes(how)) number.title = [number.title, how].filter(Boolean).join(" · ");
  });

  // What is folded away is printed, but for charts that nobody has looked at: there is no time to draw them.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("main details")) {
      details.open ||= !details.querySelector("[data-chart]:not([data-drawn=yes])");
    }
  });
})();
