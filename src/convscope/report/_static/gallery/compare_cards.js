// A pair of units, one of each gallery, as a card and in full.

const MEANINGS = {
  kept: "its partner is like it above chance",
  changed: "its own channel isn’t like it any more",
  died: "it lives in the first gallery and is dead in the second",
  revived: "it is dead in the first gallery and lives in the second",
  dead: "it is dead in both, or without a partner",
  lost: "no unit of the second gallery is like it above chance",
  new: "no unit of the first gallery is like it above chance",
  unknown: "its activations say nothing",
};

function nameOf(pair) {
  if (!pair.second) return `unit ${pair.first.index} → none`;
  if (!pair.first) return `none → unit ${pair.second.index}`;
  return pair.first.index === pair.second.index ? `unit ${pair.first.index}` : `unit ${pair.first.index} → ${pair.second.index}`;
}

// One gallery's patches and projections of a unit, or words where there are none.
function half(layer, unit, word, show) {
  const made = element("span", "half");
  made.append(element("small", "quiet", word));
  if (!unit || unit.dead) {
    const both = element("span", "pictures");
    both.append(element("span", "picture none", unit ? "dead" : "no partner"), element("span", "picture none", ""));
    made.append(both);
  } else made.append(pictures(layer, unit, show));
  return made;
}

function pairCard(sides, number, entry, shows) {
  const { pair, place } = entry;
  const made = element("button", "unit-card");
  made.type = "button";
  made.tabIndex = -1;
  const head = element("span", "head");
  const name = element("b", "", nameOf(pair));
  const kind = element("span", `kind-mark ${pair.kind}`, pair.kind);
  kind.title = MEANINGS[pair.kind];
  name.append(" ", kind);
  const facts = element("span", "facts-short", "r ");
  facts.append(field(`layers.${number}.pairs.${place}.correlation`, significant(pair.correlation), "correlation of the two units’ largest activations per image"));
  head.append(name, facts);
  made.append(head, half(sides[0].layers[number], pair.first, "first", shows[0]), half(sides[1].layers[number], pair.second, "second", shows[1]));
  return made;
}

const NUMBERS = [
  ["maximum", significant], ["mean", significant], ["minimum", significant], ["active_images", percent], ["active_positions", percent],
  ["selectivity", significant], ["image_dependence", significant], ["randomisation", significant], ["masking_drop", significant],
  ["aliased_share", percent],
];

function pairDetail(sides, number, entry, shows) {
  const { pair, place } = entry;
  const path = `layers.${number}.pairs.${place}`;
  const title = element("h3", "", nameOf(pair));
  title.id = "unit-title";
  const words = element("p", "", `${pair.kind}: ${MEANINGS[pair.kind]}. Correlation `);
  words.append(field(`${path}.correlation`, significant(pair.correlation), "of the largest activations per image"), "; of the strongest images, ",
    field(`${path}.overlap`, percent(pair.overlap), "Jaccard’s index"), " are the same.");
  const table = element("table");
  const head = element("tr");
  for (const text of ["", "First", "Second"]) head.append(element("th", "", text));
  table.append(head);
  for (const [name, write] of NUMBERS) {
    const values = [pair.first, pair.second].map((unit) => (unit ? unit[name] : null));
    if (values.every((value) => value === null)) continue;
    const line = element("tr");
    line.append(element("th", "", name.replaceAll("_", " ")));
    values.forEach((value, side) => {
      const cell = element("td");
      cell.append(field(`${path}.${side ? "second" : "first"}.${name}`, write(value), name.replaceAll("_", " ")));
      line.append(cell);
    });
    table.append(line);
  }
  const both = [pair.first, pair.second].map((unit, side) => half(sides[side].layers[number], unit, side ? "second" : "first", shows[side]));
  return [title, words, ...both, table];
}
