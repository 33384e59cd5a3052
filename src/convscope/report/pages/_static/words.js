// Elements, and numbers as the rest of the page writes them.

const SVG = "http://www.w3.org/2000/svg";

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Halves go to the even neighbour, as in Python.
function fixed(value, decimals) {
  const scaled = value * 10 ** decimals;
  const below = Math.floor(scaled);
  if (scaled - below !== 0.5) return value.toFixed(decimals);
  return ((below + (below % 2)) / 10 ** decimals).toFixed(decimals);
}

function threeFigures(value) {
  return fixed(value, value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);
}

function scaled(value, sizes, base) {
  const found = sizes.find(([size]) => value >= size * (1 - 0.5 / base));
  return found ? `${threeFigures(value / found[0])} ${found[1]}` : null;
}

const exact = (value) => value.toLocaleString("en-US");
const count = (value) => scaled(value, [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]], 1000) ?? exact(value);
const bytes = (value) =>
  scaled(value, [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]], 1024) ?? `${exact(value)} B`;
const seconds = (value) => scaled(value, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]], 1000) ?? `${fixed(value * 1e9, 0)} ns`;
const percent = (share) => `${fixed(100 * share, share > 0 && share < 0.01 ? 2 : 1)} %`;
const shape = (sizes) => sizes.join(" × ") || "scalar";
const counted = (number, noun) => `${exact(number)} ${noun}${number === 1 ? "" : "s"}`;
