"use strict";
// Vega from its compressed text, when the first chart is drawn: the page is smaller and painted sooner.
const unpackedVega = (function () {
  const packed = "PACKED";
  let ready = null;

  async function add() {
    const script = document.createElement("script");
    script.textContent = await unpacked(packed);
    document.head.append(script); // the page's policy has its hash, and no other's
  }

  return () => (ready ??= add());
})();
