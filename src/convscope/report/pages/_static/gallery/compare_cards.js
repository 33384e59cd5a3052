// A pair of units, one of each gallery, as a card and in full.

const MEANINGS = {
  kept: "its partner is like it above chance",
  changed: "its own channel isn’t like it any more",
  died: "it lives in the first gallery and is dead in the second",
  revived: "it is dead in the first gallery and lives in the second",
  dead: "it is dead in both, or without a partner",
  lost: "no unit of the second gallery is like it above chance",
  new: "no unit of the first gallery is like it above chance",
  double: "a unit that is like it has another partner",
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
  made.setAttribute("aria-label", `${nameOf(pair)}, ${pair.kind}: ${MEANINGS[pair.kind]}; correlation ${significant(pair.correlation)}`);
  const head = element("span", "head");
  const name = element("b", "", nameOf(pair));
  const kind = element("span", `kind-mark ${pair.kind}`, pair.kind);
  kind.title = MEANINGS[pair.kind];
  name.append(" ", kind);
  const facts = element("span", "facts-short", "corr. ");
  facts.append(field(`layers.${number}.pairs.${place}.correlation`, significant(pair.correlation), "correlation of the two units’ largest activations per image"));
  head.append(name, facts);
  made.append(head, half(sides[0].layers[number], pair.first, "first", shows[0]), half(sides[1].layers[number], pair.second, "second", shows[1]));
  return made;
}

// Names, meanings and forms as on a gallery's page.
function numbersOfPairs() {
  return [
    ...STATISTICS,
    ...SCORES.map(({ name, meaning }) => ({ name, label: name.replace("_", " "), write: significant, meaning })),
    { name: "aliased_share", label: "aliased", write: percent, meaning: "share of the filter’s energy that its stride folds into false frequencies" },
  ];
}

function pairTable(pair, path) {
  const table = element("table");
  const head = element("tr");
  for (const text of ["Number", "First", "Second"]) {
    const cell = element("th", "", text);
    cell.scope = "col";
    head.append(cell);
  }
  table.append(element("thead"), element("tbody"));
  table.tHead.append(head);
  for (const { name, label, write, meaning } of numbersOfPairs()) {
    const units = [pair.first, pair.second];
    if (units.every((unit) => !unit || unit[name] === null)) continue;
    const line = element("tr");
    const title = element("th", "", label);
    title.scope = "row";
    title.append(element("small", "meaning", meaning));
    line.append(title);
    units.forEach((unit, side) => {
      const cell = element("td");
      cell.append(unit ? field(`${path}.${side ? "second" : "first"}.${name}`, write(unit[name]), meaning) : "–");
      line.append(cell);
    });
    table.tBodies[0].append(line);
  }
  return table;
}

function pairDetail(sides, number, entry, shows) {
  const { pair, place } = entry;
  const path = `layers.${number}.pairs.${place}`;
  const title = element("h3", "", nameOf(pair));
  title.id = "unit-title";
  const words = element("p", "", `${pair.kind}: ${MEANINGS[pair.kind]}.`);
  if (pair.correlation !== null) words.append(" Correlation ", field(`${path}.correlation`, significant(pair.correlation), "of the largest activations per image"), ".");
  if (pair.overlap !== null) words.append(" Of the strongest images of both, ",
    field(`${path}.overlap`, percent(pair.overlap), "those that are among both’s, by those that are among either’s"), " are the same.");
  const only = pair.first && pair.second ? null : pair.first ? "second" : "first";
  if (only && pair.nearest !== null) words.append(` Of the ${only} gallery, unit ${pair.nearest} is most like it, with a correlation of `,
    field(`${path}.nearest_correlation`, significant(pair.nearest_correlation), "of the largest activations per image"), ".");
  const both = [pair.first, pair.second].map((unit, side) => half(sides[side].layers[number], unit, side ? "second" : "first", shows[side]));
  return [title, words, ...both, pairTable(pair, path)];
}
