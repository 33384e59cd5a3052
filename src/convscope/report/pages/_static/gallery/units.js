// What is known of a unit, in words and as filters, orders and a search. Nothing here touches the page.

// A unit's standing, a short text, has a letter per score: small speaks for the picture, large against it.
const SCORES = [
  { name: "selectivity", letter: "s", label: "selectivity",
    meaning: "how much the picture changes when a random mixture of all units is projected instead",
    doubt: "isn’t about this unit" },
  { name: "image_dependence", letter: "i", label: "image dep.",
    meaning: "how much the picture changes when the image is mirrored or turned; 0 if it ignores the image",
    doubt: "ignores the image" },
  { name: "randomisation", letter: "r", label: "random.",
    meaning: "how much the picture changes when the weights of all layers but the first are random",
    doubt: "doesn’t show what was learnt" },
  { name: "masking_drop", letter: "m", label: "masking",
    meaning: "how much more the activation drops when what the picture points at is greyed out than when random pixels are",
    doubt: "isn’t confirmed by masking" },
];

// Numbers of every living unit; the first four stand on its card.
const STATISTICS = [
  { name: "maximum", label: "largest", write: significant, meaning: "largest activation over all images and positions" },
  { name: "mean", label: "mean", write: significant, meaning: "mean activation over all images and positions" },
  { name: "active_images", label: "active in", write: percent, meaning: "share of the images in which it is positive somewhere" },
  { name: "active_positions", label: "active at", write: percent, meaning: "share of all positions in all images at which it is positive; small: sparse" },
  { name: "minimum", label: "smallest", write: significant, meaning: "smallest activation over all images and positions" },
];

const FILTERS = [
  { name: "dead", label: "dead", meaning: "positive in no image", of: ({ unit }) => unit.dead },
  { name: "near-dead", label: "near-dead", meaning: "positive in few images", of: ({ unit }) => unit.near_dead },
  { name: "always-on", label: "always on", meaning: "positive everywhere in all images", of: ({ unit }) => unit.always_on },
  { name: "selective", label: "selective", meaning: "the picture is about this unit", of: ({ standing }) => standing.includes("s") },
  { name: "image-dependent", label: "image-dependent", meaning: "the picture is about the image", of: ({ standing }) => standing.includes("i") },
  { name: "sensitive", label: "sensitive to randomisation", meaning: "the picture shows what was learnt", of: ({ standing }) => standing.includes("r") },
  { name: "confirmed", label: "confirmed by masking", meaning: "greying out what the picture points at lowers the activation", of: ({ standing }) => standing.includes("m") },
  { name: "doubted", label: "doubted", meaning: "a score speaks against the picture", of: ({ standing }) => /[A-Z]/.test(standing) },
  { name: "aliased", label: "aliased", meaning: "the filter folds much of its energy into false frequencies", of: ({ standing }) => standing.includes("a") },
];

function scoreOf(name) {
  return ({ unit }) => (unit.scores ? unit.scores[name] : null);
}

// What units are ordered by, and whether the largest comes first.
const ORDERS = [
  { name: "index", label: "by channel", of: ({ unit }) => unit.index, rising: true },
  { name: "maximum", label: "strongest first", of: ({ unit }) => unit.maximum },
  { name: "active_images", label: "active in most images first", of: ({ unit }) => unit.active_images },
  { name: "active_positions", label: "sparsest first", of: ({ unit }) => unit.active_positions, rising: true },
  { name: "selectivity", label: "most selective first", of: scoreOf("selectivity") },
  { name: "image_dependence", label: "most image-dependent first", of: scoreOf("image_dependence") },
  { name: "randomisation", label: "most sensitive to randomisation first", of: scoreOf("randomisation") },
  { name: "masking_drop", label: "best confirmed by masking first", of: scoreOf("masking_drop") },
  { name: "doubts", label: "most doubted first", of: ({ standing }) => doubtsOf(standing).length },
];

function doubtsOf(standing) {
  return SCORES.filter((score) => standing.includes(score.letter.toUpperCase()));
}

// Every unit of a layer with its place in the data and its standing.
function entriesOf(layer, standings) {
  return layer.units.map((unit, position) => ({ unit, position, standing: standings[position] || "" }));
}

function matches(entry, text) {
  if (/^\d+$/.test(text)) return entry.unit.index === Number(text);
  return entry.unit.examples.some((example) => example.name.toLowerCase().includes(text));
}

// Units that have all the properties asked for, the dead among them.
function matching(entries, filters, text) {
  const wanted = text.trim().toLowerCase();
  const asked = FILTERS.filter((filter) => filters.has(filter.name));
  return entries.filter((entry) => asked.every((filter) => filter.of(entry)) && (!wanted || matches(entry, wanted)));
}

// Of those, the ones to list: dead ones if asked for, by filter or by number, or if the layer has no others.
function chosen(entries, filters, text) {
  const all = matching(entries, filters, text);
  const asked = filters.has("dead") || /^\d+$/.test(text.trim()) || entries.every(({ unit }) => unit.dead);
  return asked ? all : all.filter(({ unit }) => !unit.dead);
}

// Units without the number that is asked for come last; ties stay in order of their channels.
function ordered(entries, name) {
  const { of, rising } = ORDERS.find((order) => order.name === name);
  const known = (entry) => { const value = of(entry); return typeof value === "number" ? value : null; };
  return [...entries].sort((a, b) => {
    const [first, second] = [known(a), known(b)];
    if (first === null || second === null) return (first === null) - (second === null);
    return rising ? first - second : second - first;
  });
}
