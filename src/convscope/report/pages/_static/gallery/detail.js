// One unit in full: its pictures, its statistics, its scores with their meanings, and its images.

function row(...cells) {
  const made = element("tr");
  cells.forEach((cell, column) => {
    const around = element(column ? "td" : "th");
    if (!column) around.scope = "row";
    around.append(cell);
    made.append(around);
  });
  return made;
}

function headed(name, ...titles) {
  const table = element("table");
  const head = element("thead");
  const line = element("tr");
  for (const title of titles) {
    const cell = element(title ? "th" : "td", "", title);
    if (title) cell.scope = "col";
    line.append(cell);
  }
  head.append(line);
  table.append(head);
  const scroller = element("div", "scroll");
  scroller.tabIndex = 0;
  scroller.setAttribute("role", "region");
  scroller.setAttribute("aria-label", name);
  scroller.append(table);
  return { scroller, body: table.appendChild(element("tbody")) };
}

function statisticsOf(unit, path) {
  const list = element("dl", "facts row");
  for (const { name, label, write, meaning } of STATISTICS) {
    if (unit[name] === null) continue;
    const pair = element("div");
    const value = element("dd");
    value.append(field(`${path}.${name}`, write(unit[name]), meaning));
    pair.append(element("dt", "", label[0].toUpperCase() + label.slice(1)), value);
    list.append(pair);
  }
  return list;
}

function verdictOn(score, entry) {
  const { scores } = entry.unit;
  if (entry.standing.includes(score.letter.toUpperCase())) return `⚠ it ${score.doubt}`;
  if (entry.standing.includes(score.letter)) return "speaks for the picture";
  if (scores[score.name] !== null) return "says nothing here";
  // An empty picture has no direction, hence no selectivity; the one layer of a first layer isn't randomised.
  if (scores.selectivity === null) return "not measured: the projection is zero everywhere";
  return score.name === "randomisation" ? "not measured: there is no layer but the first" : "not measured";
}

function scoresOf(entry, path) {
  if (!entry.unit.scores) return element("p", "quiet", "The scores of this unit’s pictures weren’t measured.");
  const { scroller, body } = headed("Scores", "Score of the strongest picture", "Value", "Verdict");
  for (const score of SCORES) {
    const name = element("span", "", score.name.replace("_", " "));
    name.append(element("small", "meaning", score.meaning));
    const value = entry.unit.scores[score.name];
    const line = row(name, field(`${path}.scores.${score.name}`, significant(value), score.meaning), verdictOn(score, entry));
    if (entry.standing.includes(score.letter.toUpperCase())) line.className = "doubted";
    body.append(line);
  }
  return scroller;
}

function examplesOf(unit, path) {
  const { scroller, body } = headed("Strongest images", "", "Image", "Activation", "At y, x", "Sees rows", "Sees columns");
  unit.examples.forEach((example, rank) => {
    const from = `${path}.examples.${rank}`;
    const name = field(`${from}.name`, example.name || `image ${example.image}`, `image ${example.image} of the data`);
    name.classList.add("name");
    name.dir = "auto";
    body.append(row(
      String(rank + 1),
      name,
      field(`${from}.value`, significant(example.value), "largest activation of the unit in this image"),
      field(`${from}.position`, example.position.join(", "), "position of the activation in the unit’s map"),
      field(`${from}.box`, `${example.box.top} to ${example.box.bottom}`, "pixels, the last one excluded"),
      field(`${from}.box`, `${example.box.left} to ${example.box.right}`, "pixels, the last one excluded"),
    ));
  });
  return scroller;
}

function detailOf(gallery, number, entry, show) {
  const layer = gallery.layers[number];
  const { unit } = entry;
  const path = `layers.${number}.units.${entry.position}`;
  // Of an nn.Sequential's layer, the name is a mere number.
  const title = element("h3", "", `${/^[\d.]+$/.test(layer.name) ? "layer " : ""}${layer.name}, unit `);
  title.id = "unit-title";
  title.append(field(`${path}.index`, String(unit.index), "channel"));
  if (unit.dead) {
    const words = element("p", "", "Dead: never positive in ");
    words.append(field("num_images", gallery.num_images.toLocaleString("en"), "images that were looked at"), " images, so there are no pictures.");
    return [title, words, statisticsOf(unit, path)];
  }
  const captions = element("span", "captions quiet");
  captions.append(element("span", "", `Patches, strongest first, row by row: ${inWords(layer.sprite.patch_display)}. Grey margins lie beyond the image.`));
  captions.append(element("span", "", layer.sprite.projections.length
    ? `Projections (${gallery.rule}) of the same: ${inWords(layer.sprite.projection_display)}. Grey is zero.`
    : `No projections: ${layer.projected}`));
  const few = unit.examples.length < gallery.top
    ? [element("p", "quiet", `Positive in ${unit.examples.length} of the images only, hence so few pictures.`)] : [];
  return [title, pictures(layer, unit, show), captions, ...few, statisticsOf(unit, path), scoresOf(entry, path), examplesOf(unit, path)];
}

// How numbers became colours, for readers who don't read formulas.
function inWords(display) {
  if (display === "x · std + mean") return "in the images’ own colours, the network’s normalisation undone";
  if (display.startsWith("0.5 + x / (2 s)")) return "positive numbers bright, negative ones dark, as strongly as the largest of the picture allow, but for the very largest";
  return display;
}
