// The picture: boxes, lines and frames around open groups, as SVG.

function cut(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

const isOperator = (node) => node.kind === "layer" && /:\w+\.\d+$/.test(node.address);

// What the texts in a box don't say, for readers of the screen.
function said(view, place, health) {
  const node = view.nodes[place];
  const what = {
    input: "input of the network", loss: `loss, ${counted(node.num_layers, "layer")}`,
    list: `${counted(node.num_layers, "layer")} in a row`, run: `${counted(node.num_layers, "layer")} in a row`,
    module: `module of ${counted(node.num_layers, "layer")}`, layer: node.op,
  }[node.kind];
  return [what, health && `check-up: ${health}`].filter(Boolean).join("; ");
}

function box(view, place, { x, y }, share, severity) {
  const node = view.nodes[place];
  const group = view.isGroup(place);
  const made = drawn("g", {
    class: `node ${node.kind}${group ? " group" : ""}`, "data-node": place, role: "button", tabindex: -1,
    transform: `translate(${x - WIDTH / 2} ${y - HEIGHT / 2})`,
  });
  if (group) made.setAttribute("aria-expanded", "false");
  if (group) made.append(drawn("rect", { class: "behind", x: 4, y: 4, width: WIDTH, height: HEIGHT, rx: 7 }));
  made.append(drawn("rect", { class: "paper", width: WIDTH, height: HEIGHT, rx: 7 }));
  const heat = drawn("rect", { class: "heat", width: WIDTH, height: HEIGHT, rx: 7 });
  heat.style.setProperty("--share", share.colour.toFixed(3));
  made.append(heat, drawn("rect", { class: "box", width: WIDTH, height: HEIGHT, rx: 7 }));
  const left = group ? 30 : 11;
  made.append(drawn("text", { class: "name", x: left, y: 19 }, cut(node.name, group ? 17 : 20)));
  if (share.text) made.append(drawn("text", { class: "share", x: WIDTH - 10, y: 19 }, share.text));
  const sizes = shape(node.output_shape);
  made.append(drawn("text", { class: "sizes", x: WIDTH - 10, y: 36 }, sizes));
  const kind = isOperator(node) ? "" : node.type_name; // an operator's class is that of the module around it
  const room = Math.floor((WIDTH - left - 18 - 5.6 * sizes.length) / 6.1);
  if (room > 3) made.append(drawn("text", { class: "kind", x: left, y: 36 }, cut(kind, room)));
  const texts = [...made.querySelectorAll("text")];
  for (const text of texts) text.append(" "); // between the words of the name that browsers make of them
  made.setAttribute("aria-label", `${texts.map((each) => each.textContent.trim()).join(" ")}; ${said(view, place, severity)}`);
  if (group) {
    const toggle = drawn("g", { class: "toggle", "data-toggle": place });
    toggle.append(drawn("rect", { width: 28, height: HEIGHT }), drawn("path", { d: "M11 23h10M16 18v10" }));
    made.append(toggle);
  }
  if (severity) made.append(badge(severity));
  return made;
}

function badge(severity) {
  const made = drawn("g", { class: `badge ${severity}`, transform: `translate(${WIDTH - 2} 2)` });
  const sign = severity === "healthy" ? "M-3.5.2l2.5 2.8 4.3-5.6" : "M0-4.2v5M0 2.8v1.6"; // a tick, or "!"
  made.append(drawn("circle", { r: 8 }), drawn("path", { d: sign }));
  return made;
}

function stub(place, { x, y }) {
  const made = drawn("g", { class: "stub", transform: `translate(${x} ${y})` });
  made.append(drawn("text", { y: 4 }, place === BEFORE ? "what comes before" : "what comes after"));
  return made;
}

function line({ source, target, points, shapes }) {
  const made = drawn("g", { class: "edge", "data-source": source, "data-target": target });
  made.append(drawn("title", {}, shapes.map(shape).join("\n")));
  const path = curve(points);
  made.append(
    drawn("path", { class: "wide", d: path }),
    drawn("path", { class: "line", d: path, "marker-end": "url(#graph-arrow)" }),
  );
  return made;
}

const frame = (area) => drawn("rect", { class: "frame", ...area, rx: 10 });

// The names of the open groups, to close them by; that of a frame in a corner of another stands beside its.
function closers(view, frames) {
  const ends = new Map();
  return frames.map(({ group, area }) => {
    const name = cut(view.nodes[group].name, 18);
    const [width, outer] = [26 + 6.4 * name.length, ends.get(view.ancestors(group).find((each) => ends.has(each)))];
    const left = outer && Math.abs(outer.y - area.y) < 16 ? Math.max(area.x + 7, outer.x + 5) : area.x + 7;
    ends.set(group, { x: left + width, y: area.y });
    const made = drawn("g", { class: "closer", "data-close": group, transform: `translate(${left} ${area.y - 1})` });
    made.append(drawn("title", {}, `Close ${view.nodes[group].name}`), drawn("rect", { y: -8, width, height: 17, rx: 8 }));
    made.append(drawn("path", { d: "M7 .5h7" }), drawn("text", { x: 18, y: 4 }, name));
    return made;
  });
}

function arrow() {
  const defs = drawn("defs", {});
  const marker = drawn("marker", {
    id: "graph-arrow", viewBox: "0 0 8 8", refX: 7, refY: 4,
    markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto",
  });
  marker.append(drawn("path", { d: "M0 .6 7.5 4 0 7.4z" }));
  defs.append(marker);
  return defs;
}

const STYLES = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray",
  "font-family", "font-size", "font-weight", "text-anchor", "opacity",
];

// The picture as a file of its own: what the styles say is written into it.
function standalone(picture) {
  const copy = picture.cloneNode(true);
  const [from, to] = [picture, copy].map((each) => [...each.querySelectorAll("rect, path, text, circle")]);
  from.forEach((each, number) => {
    const style = getComputedStyle(each);
    for (const name of STYLES) to[number].style.setProperty(name, style.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", SVG);
  return new XMLSerializer().serializeToString(copy);
}
