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

function headed(...titles) {
  const table = element("table");
  const head = element("thead");
  const line = element("tr");
  for (const title of titles) line.append(element("th", "", title));
  head.append(line);
  table.append(head);
  const scroller = element("div", "scroll");
  scroller.append(table);
  return { scroller, body: table.appendChild(element("tbody")) };
}

function statisticsOf(unit, path) {
  const list = element("dl", "facts row");
  const add = (label, name, text, title) => {
    const pair = element("div");
    const value = element("dd");
    value.append(field(`${path}.${name}`, text, title));
    pair.append(element("dt", "", label), value);
    list.append(pair);
  };
  add("Largest", "maximum", significant(unit.maximum), "largest activation over all images and positions");
  if (unit.mean !== null) add("Mean", "mean", significant(unit.mean), "mean activation over all images and positions");
  if (unit.minimum !== null) add("Smallest", "minimum", significant(unit.minimum), "smallest activation over all images and positions");
  add("Active in", "active_images", percent(unit.active_images), "images in which it is positive somewhere");
  if (unit.active_positions !== null)
    add("Active at", "active_positions", percent(unit.active_positions), "positions in all images at which it is positive");
  return list;
}

function scoresOf(entry, path) {
  if (!entry.unit.scores) return element("p", "quiet", "The scores of this unit’s pictures weren’t measured.");
  const { scroller, body } = headed("Score of the strongest picture", "", "What it asks", "Verdict");
  for (const score of SCORES) {
    const value = entry.unit.scores[score.name];
    const doubted = entry.standing.includes(score.letter.toUpperCase());
    const holds = entry.standing.includes(score.letter);
    const verdict = doubted ? `⚠ it ${score.doubt}` : holds ? "speaks for it" : value === null ? "not measured" : "says nothing here";
    const line = row(score.name.replace("_", " "), field(`${path}.scores.${score.name}`, significant(value), score.meaning),
      score.meaning, verdict);
    if (doubted) line.className = "doubted";
    body.append(line);
  }
  return scroller;
}

function examplesOf(unit, path) {
  const { scroller, body } = headed("Image", "Activation", "At y, x", "Sees rows", "Sees columns");
  unit.examples.forEach((example, rank) => {
    const from = `${path}.examples.${rank}`;
    body.append(row(
      field(`${from}.name`, example.name || `image ${example.image}`, `image ${example.image} of the data`),
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
  const title = element("h3", "", `${layer.name}, unit `);
  title.id = "unit-title";
  title.append(field(`${path}.index`, String(unit.index), "channel"));
  if (unit.dead) {
    const words = element("p", "", "Dead: never positive in ");
    words.append(field("num_images", gallery.num_images.toLocaleString("en"), "images that were looked at"), " images, so there are no pictures.");
    return [title, words, statisticsOf(unit, path)];
  }
  const captions = element("span", "captions quiet");
  captions.append(element("span", "", `Patches, strongest first: ${layer.sprite.patch_display}`));
  captions.append(element("span", "", layer.sprite.projections.length
    ? `Projections (${gallery.rule}): ${layer.sprite.projection_display}`
    : `No projections: ${layer.projected}`));
  return [title, pictures(layer, unit, show), captions, statisticsOf(unit, path), scoresOf(entry, path), examplesOf(unit, path)];
}
