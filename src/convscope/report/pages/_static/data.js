"use strict";
// The page's data, parsed once, and what makes texts of what a page holds compressed.
function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const pageData = (function () {
  let data = null;

  async function read() {
    const { textContent: text, dataset } = document.getElementById("data") ?? { textContent: "{}", dataset: {} };
    return JSON.parse(dataset.packed ? await unpacked(text) : text);
  }

  return () => (data ??= read());
})();
