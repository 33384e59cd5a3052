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
  return typeof value === "number" ? Number(value.toPrecision(3)).toString().replace("-", "−") : "–";
}

function percent(value) {
  if (typeof value !== "number") return "–";
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

// A score with its meaning for those who hover, marked where it speaks against the picture.
function scoreMark(score, entry, path) {
  const value = entry.unit.scores[score.name];
  const doubted = entry.standing.includes(score.letter.toUpperCase());
  const made = element("span", doubted ? "score doubted" : "score");
  const verdict = doubted ? `Don’t trust this picture too far: it ${score.doubt}. ` : "";
  const title = `${verdict}${score.name.replace("_", " ")}: ${score.meaning}${value === null ? " (not measured)" : ""}`;
  made.title = title;
  made.append(element("small", "", score.label), field(`${path}.scores.${score.name}`, significant(value), title));
  return made;
}

function scoreRow(entry, path) {
  const made = element("span", "scores");
  if (entry.unit.scores) made.append(...SCORES.map((score) => scoreMark(score, entry, path)));
  else made.append(element("small", "quiet", "scores not measured"));
  return made;
}

const KINDS = [
  ["near-dead", ({ unit }) => unit.near_dead],
  ["always on", ({ unit }) => unit.always_on],
  ["aliased", ({ standing }) => standing.includes("a")],
];

function cardHead(entry, path) {
  const { unit } = entry;
  const head = element("span", "head");
  const name = element("b", "", "unit ");
  name.append(field(`${path}.index`, String(unit.index), "channel"));
  const doubts = doubtsOf(entry.standing);
  if (doubts.length) {
    const mark = element("span", "doubt", "⚠");
    mark.title = `Don’t trust this picture too far: it ${doubts.map((score) => score.doubt).join(", it ")}.`;
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", mark.title);
    name.append(" ", mark);
  }
  for (const [label, holds] of KINDS) if (holds(entry)) name.append(" ", element("span", "kind-mark", label));
  const facts = element("span", "facts-short");
  if (!unit.dead) {
    facts.append("≤ ", field(`${path}.maximum`, significant(unit.maximum), "largest activation in the data"),
      " · ", field(`${path}.active_images`, percent(unit.active_images), "images in which it is positive somewhere"));
  }
  head.append(name, facts);
  return head;
}

function makeCard(gallery, number, entry, show) {
  const path = `layers.${number}.units.${entry.position}`;
  const made = element("button", entry.unit.dead ? "unit-card dead" : "unit-card");
  made.type = "button";
  made.tabIndex = -1;
  made.append(cardHead(entry, path));
  if (entry.unit.dead) {
    const words = element("span", "never", "never positive in ");
    words.append(field("num_images", gallery.num_images.toLocaleString("en"), "images that were looked at"), " images");
    made.append(words);
  } else made.append(pictures(gallery.layers[number], entry.unit, show), scoreRow(entry, path));
  return made;
}
