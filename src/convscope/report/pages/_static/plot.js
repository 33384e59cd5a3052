"use strict";
// The chart, from the specification in the page.
(async function () {
  const place = document.getElementById("plot");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  try {
    const spec = JSON.parse(document.getElementById("chart").textContent);
    await unpackedVega();
    const { view } = await vegaEmbed(place, { ...spec, description: place.getAttribute("aria-label") }, {
      mode: "vega-lite", renderer: "svg", ast: true, theme: dark ? "dark" : undefined, actions: false,
      tooltip: { theme: dark ? "dark" : "light" },
    });
    place.dataset.drawn = "yes";
    place.dispatchEvent(new CustomEvent("drawn", { bubbles: true, detail: { view, spec, name: "sweep" } }));
  } catch (error) {
    place.dataset.drawn = "failed";
    console.error(error);
  }
})();
