// A layer: the tab that chooses it, and what is known of all its units.

function facts(...pairs) {
  const list = element("dl", "facts row");
  for (const [label, path, text, title] of pairs) {
    const pair = element("div");
    const value = element("dd");
    value.append(field(path, text, title));
    pair.append(element("dt", "", label), value);
    list.append(pair);
  }
  return list;
}

// Where it isn't one window, what the strongest images' boxes say.
function seenBy(gallery, layer, image) {
  if (layer.receptive_field) return `${layer.receptive_field.size.join(" × ")} of ${image} px`;
  const [height, width] = gallery.image_size;
  const boxes = layer.units.flatMap((unit) => unit.examples.map((example) => example.box));
  const isWhole = ({ top, left, bottom, right }) => top === 0 && left === 0 && bottom === height && right === width;
  if (!boxes.length) return "not known";
  return boxes.every(isWhole) ? `all ${image} px` : `parts of ${image} px that differ by position`;
}

function countsOf(gallery, layer, path) {
  const count = (name) => String(layer.units.filter((unit) => unit[name]).length);
  const image = gallery.image_size.join(" × ");
  const counted = layer.units.some((unit) => unit.always_on !== null);
  return facts(
    ["Units", `${path}.units`, String(layer.units.length), "channels of the layer, after normalisation and activation"],
    ["Dead", `${path}.units`, count("dead"), `units that are positive in none of ${gallery.num_images} images`],
    ["Near-dead", `${path}.units`, count("near_dead"), "units that are positive in less than 1 % of the images"],
    ...(counted ? [["Always on", `${path}.units`, count("always_on"), "units that are positive everywhere in all images"]] : []),
    ["Map", `${path}.map_size`, layer.map_size.join(" × "), "height × width of the units’ maps"],
    ["Sees", `${path}.receptive_field`, seenBy(gallery, layer, image),
      "receptive field, height × width in pixels of the image; beyond the image lies nothing"],
  );
}

function mediansOf(layer, path) {
  const scored = layer.units.filter((unit) => unit.scores).length;
  if (!scored) return element("p", "census", "No picture of this layer was scored.");
  const list = facts(...SCORES.map(({ name, meaning }) =>
    [name.replace("_", " "), `${path}.${name}`, significant(layer[name]), `median over ${scored} units; ${meaning}`]));
  const title = element("div", "medians");
  title.append(element("dt", "", `Medians of ${scored} scored ${scored === 1 ? "unit" : "units"}:`));
  list.prepend(title);
  return list;
}

function factsOf(gallery, number, census) {
  const layer = gallery.layers[number];
  const path = `layers.${number}`;
  const parts = [countsOf(gallery, layer, path), ...(layer.projected === null ? [mediansOf(layer, path)] : [])];
  if (layer.projected !== null) {
    const caveat = element("p", "caveat");
    caveat.append(element("b", "", "No projections. "), layer.projected);
    parts.push(caveat);
  } else {
    const way = element("p", "census");
    way.append(element("b", "", "On the way back: "), census || "–");
    way.append(`. Projected ${layer.window ? `in windows of ${layer.window.join(" × ")} pixels` : "in whole images"}`);
    if (layer.window && layer.num_whole) way.append(", ", field(`${path}.num_whole`, String(layer.num_whole), "projections made in whole images"), " of the pictures in whole images");
    way.append(".");
    parts.push(way);
    if (gallery.rule === "deconvnet" && !layer.census.switches.length) {
      const caveat = element("p", "caveat");
      caveat.append(element("b", "", "Careful. "), "There is no max-pool below this layer: its projections follow the filters and hardly depend on the image.");
      parts.push(caveat);
    }
  }
  return parts;
}

function tabOf(gallery, number) {
  const layer = gallery.layers[number];
  const made = element("button");
  made.type = "button";
  made.id = `tab-${number}`;
  made.setAttribute("role", "tab");
  made.setAttribute("aria-controls", "layer");
  made.title = layer.name;
  const dead = layer.units.filter((unit) => unit.dead).length;
  made.append(element("code", "", layer.name), element("small", "about", `${layer.units.length} units${dead ? `, ${dead} dead` : ""}`), element("small", "found"));
  return made;
}
