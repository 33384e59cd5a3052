"use strict";
// What a page holds compressed, to be smaller and painted sooner, once it is asked for.
const [unpackedVega, pageData] = (function () {
  const packed = "PACKED";
  let vega = null, data = null;

  function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  async function addVega() {
    const script = document.createElement("script");
    script.textContent = await unpacked(packed);
    document.head.append(script); // the page's policy has its hash, and no other's
  }

  async function readData() {
    const { textContent: text, dataset } = document.getElementById("data") ?? { textContent: "{}", dataset: {} };
    return JSON.parse(dataset.packed ? await unpacked(text) : text);
  }

  return [() => (vega ??= addVega()), () => (data ??= readData())];
})();
