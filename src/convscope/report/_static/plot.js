"use strict";
// The chart, from the specification in the page.
(async function () {
  const place = document.getElementById("plot");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  try {
    await vegaEmbed(place, JSON.parse(document.getElementById("chart").textContent), {
      mode: "vega-lite", renderer: "svg", ast: true, theme: dark ? "dark" : undefined,
      actions: { export: { svg: true, png: false }, source: false, compiled: false, editor: false },
      tooltip: { theme: dark ? "dark" : "light" }, downloadFileName: "sweep",
    });
    place.dataset.drawn = "yes";
  } catch (error) {
    place.dataset.drawn = "failed";
    console.error(error);
  }
})();
