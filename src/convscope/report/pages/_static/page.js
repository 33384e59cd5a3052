"use strict";
// Charts from the page's own data; the gallery from the data that its folder's script has set.
// What is drawn above it in the meantime moves it, for as long as the reader doesn't.
function keepInView(place, block = "center", milliseconds = 3000) {
  const show = () => place.scrollIntoView({ block, behavior: "instant" });
  const moved = new ResizeObserver(show);
  const acts = ["wheel", "touchstart", "pointerdown", "keydown"];
  const leave = () => {
    moved.disconnect();
    for (const act of acts) removeEventListener(act, leave);
  };
  for (const act of acts) addEventListener(act, leave, { passive: true });
  moved.observe(document.body);
  setTimeout(leave, milliseconds);
  show();
}

(async function () {
  // A link to a section, which charts and gallery move while they are drawn.
  const linked = /^#[\w-]+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
  if (linked) keepInView(linked, "start", 15000);
  // A finding's card, below sections whose height isn't known before they are seen.
  addEventListener("hashchange", () => {
    const card = /^#finding-[\w-]+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
    if (card) keepInView(card, "start", 1500);
  });

  const data = await pageData();
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
      const filledSpec = filled(spec);
      // In a narrow place entries of a legend stand below one another, not cut.
      if (place.clientWidth < 520) {
        const legend = { ...filledSpec.config?.legend, columns: 1, labelLimit: place.clientWidth - 50, layout: { top: { direction: "vertical", anchor: "start" } } };
        filledSpec.config = { ...filledSpec.config, legend };
      }
      const { view } = await vegaEmbed(place, { description: place.getAttribute("aria-label"), ...filledSpec }, embedding);
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

  // How the numbers of a part were had, for readers who can't point at them; listed when it is opened.
  const labelOf = (number) =>
    (number.closest("dl > div")?.querySelector("dt") ?? number.closest("tr")?.querySelector("th") ??
      number.closest(".verdict")?.querySelector("h2"))?.textContent.trim();
  function listed(part) {
    const list = document.createElement("dl"), seen = new Set();
    for (const told of part.querySelectorAll("thead th[title], .n[title], dd [title]")) {
      if (told.closest("section, header") !== part || told.closest("tbody, .alike")) continue;
      const name = told.matches("th") ? told.textContent.trim() : labelOf(told);
      const how = told.title.split(" · ").pop();
      const once = name ? `${name}: ${how}` : how;
      if (seen.has(once) || !/[a-z]{3}/.test(how)) continue;
      seen.add(once);
      const row = document.createElement("div"), term = document.createElement("dt"), text = document.createElement("dd");
      term.textContent = name || told.textContent;
      text.textContent = how;
      row.append(term, text);
      list.append(row);
    }
    return list;
  }
  for (const part of document.querySelectorAll("header.top, section[data-results]")) {
    if (!part.querySelector(".n[title], th[title]")) continue;
    const how = document.createElement("details"), summary = document.createElement("summary");
    how.className = "how";
    summary.textContent = "How these numbers were measured";
    how.append(summary);
    how.addEventListener("toggle", () => how.append(listed(part)), { once: true });
    part.append(how);
  }

  // What is folded away is printed; charts that nobody has looked at aren't: there is no time to draw them.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("main details:not(.licences, .how, [open])")) {
      details.open = true;
      addEventListener("afterprint", () => { details.open = false; }, { once: true });
    }
  });
})();
