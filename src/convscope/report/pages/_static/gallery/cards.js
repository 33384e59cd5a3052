// The pieces of the page: numbers that say where they come from, pictures out of sprites, a unit's card.

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A number with the place in the gallery's data that it comes from.
function field(path, text, title) {
  const made = element("span", "n", text);
  made.dataset.gallery = path;
  made.title = title;
  return made;
}

function significant(value) {
  return typeof value === "number" ? Number(value.toPrecision(3)).toString().replaceAll("-", "−") : "–";
}

function percent(value) {
  if (typeof value !== "number") return "–";
  if (value === 0 || value === 1) return `${100 * value} %`;
  if (value < 0.00005) return "< 0.01 %"; // what isn't nothing doesn't look like nothing
  if (value >= 0.9995) return "> 99.9 %";
  return `${(100 * value).toFixed(value > 0 && value < 0.01 ? 2 : 1)} %`;
}

// Sprite files load once, when the first card that needs them comes near the view.
function makeSprites(folder) {
  const files = new Map();
  return function show(target, name) {
    const address = `${folder}/${encodeURIComponent(name)}`;
    if (!files.has(name)) {
      files.set(name, new Promise((done) => {
        const image = new Image();
        image.onload = () => done(true);
        image.onerror = () => done(false);
        image.src = address;
      }));
    }
    files.get(name).then((there) => {
      if (there) target.style.backgroundImage = `url("${address}")`;
      else {
        target.classList.add("lost");
        target.textContent = `The file ${name} isn’t there.`;
      }
    });
  };
}

// One unit's block of its file of the layer's sprite, stretched to the element: positions and sizes in percent.
function picture(layer, kind, index, show) {
  const { sprite, units } = layer;
  const made = element("span", "picture");
  const part = Math.floor(index / sprite.per_file);
  const inFile = index % sprite.per_file;
  const rows = Math.ceil(Math.min(sprite.per_file, units.length - part * sprite.per_file) / sprite.across);
  const [column, row] = [inFile % sprite.across, Math.floor(inFile / sprite.across)];
  made.style.backgroundSize = `${100 * sprite.across}% ${100 * rows}%`;
  made.style.backgroundPosition =
    `${sprite.across > 1 ? (100 * column) / (sprite.across - 1) : 0}% ${rows > 1 ? (100 * row) / (rows - 1) : 0}%`;
  made.style.setProperty("--side", sprite.side);
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", kind === "patches" ? `strongest patches of unit ${index}` : `projections of unit ${index}`);
  made.dataset.file = sprite[kind][part];
  show(made, sprite[kind][part]);
  return made;
}

function pictures(layer, unit, show) {
  const both = element("span", "pictures");
  both.append(picture(layer, "patches", unit.index, show));
  both.append(layer.sprite.projections.length
    ? picture(layer, "projections", unit.index, show)
    : element("span", "picture none", "no projections"));
  return both;
}

// A number under its name, with its meaning for those who hover.
function labelled(path, name, label, text, title) {
  const made = element("span", "labelled");
  made.title = title;
  made.append(element("small", "", label), field(`${path}.${name}`, text, title));
  return made;
}

// A score, marked where it speaks against the picture.
function scoreMark(score, entry, path) {
  const value = entry.unit.scores[score.name];
  const doubted = entry.standing.includes(score.letter.toUpperCase());
  const verdict = doubted ? `Don’t trust this picture too far: it ${score.doubt}. ` : "";
  const title = `${verdict}${score.name.replace("_", " ")}: ${score.meaning}${value === null ? " (not measured)" : ""}`;
  const made = labelled(path, `scores.${score.name}`, score.label, significant(value), title);
  made.classList.toggle("doubted", doubted);
  return made;
}

// Two rows of four: what the unit does in the data, and how far its picture can be trusted.
function cardNumbers(entry, path) {
  const made = element("span", "numbers");
  for (const { name, label, write, meaning } of STATISTICS.slice(0, 4))
    made.append(labelled(path, name, label, write(entry.unit[name]), meaning));
  if (entry.unit.scores) made.append(...SCORES.map((score) => scoreMark(score, entry, path)));
  else made.append(element("small", "unscored", "its pictures weren’t scored"));
  return made;
}

// What the names on a card mean, for those who can't hover.
function legend() {
  const lines = [...STATISTICS.slice(0, 4), ...SCORES].map(({ label, meaning }) => [label, meaning]);
  return [...lines, ["⚠", "a score speaks against the picture"]].map(([label, meaning]) => explained(label, meaning));
}

function explained(label, meaning) {
  const line = element("div");
  line.append(element("dt", "", label), element("dd", "", meaning));
  return line;
}

const KINDS = [
  ["near-dead", ({ unit }) => unit.near_dead],
  ["always on", ({ unit }) => unit.always_on],
  ["aliased", ({ standing }) => standing.includes("a")],
];

function cardHead(entry, path) {
  const head = element("span", "head");
  const name = element("b", "", "unit ");
  name.append(field(`${path}.index`, String(entry.unit.index), "channel"));
  head.append(name);
  const doubts = doubtsOf(entry.standing);
  if (doubts.length) {
    const mark = element("span", "doubt", "⚠");
    mark.title = doubtWords(doubts);
    head.append(mark);
  }
  for (const [label, holds] of KINDS) if (holds(entry)) head.append(element("span", "kind-mark", label));
  return head;
}

function doubtWords(doubts) {
  return `Don’t trust this picture too far: it ${doubts.map((score) => score.doubt).join(", it ")}.`;
}

// What a screen reader says of a card: a button's parts have no voice of their own.
function spoken(gallery, entry) {
  const { unit } = entry;
  if (unit.dead) return `unit ${unit.index}: dead, never positive in ${gallery.num_images} images`;
  const kinds = KINDS.filter(([, holds]) => holds(entry)).map(([label]) => `${label}, `).join("");
  const words = `unit ${unit.index}: ${kinds}largest activation ${significant(unit.maximum)}, active in ${percent(unit.active_images)} of the images`;
  const doubts = doubtsOf(entry.standing);
  return doubts.length ? `${words}. ${doubtWords(doubts)}` : words;
}

function makeCard(gallery, number, entry, show) {
  const path = `layers.${number}.units.${entry.position}`;
  const made = element("button", entry.unit.dead ? "unit-card dead" : "unit-card");
  made.type = "button";
  made.tabIndex = -1;
  made.setAttribute("aria-label", spoken(gallery, entry));
  made.append(cardHead(entry, path));
  if (entry.unit.dead) {
    const words = element("span", "", "never positive in ");
    words.append(field("num_images", gallery.num_images.toLocaleString("en"), "images that were looked at"), " images");
    const around = element("span", "never");
    around.append(words);
    made.append(around);
  } else made.append(pictures(gallery.layers[number], entry.unit, show), cardNumbers(entry, path));
  return made;
}
