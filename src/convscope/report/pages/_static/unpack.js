"use strict";
// Vega from its compressed text, when the first chart is drawn: the page is smaller and painted sooner.
const unpackedVega = (function () {
  const packed = "PACKED";
  let ready = null;

  async function unpack() {
    const bytes = Uint8Array.from(atob(packed), (each) => each.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script); // the page's policy has its hash, and no other's
  }

  return () => (ready ??= unpack());
})();
