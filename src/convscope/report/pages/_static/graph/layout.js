// Where the nodes stand, by dagre: edges go down.

const WIDTH = 208, HEIGHT = 46, STUB = 26, MARGIN = 18;

// Places are node positions and stubs; edges as the view gives them.
function layout(places, edges) {
  const began = performance.now();
  const plan = new dagre.graphlib.Graph();
  plan.setGraph({ rankdir: "TB", nodesep: 26, ranksep: 34, edgesep: 12, marginx: MARGIN, marginy: MARGIN });
  plan.setDefaultEdgeLabel(() => ({}));
  for (const place of places) plan.setNode(String(place), { width: WIDTH, height: place < 0 ? STUB : HEIGHT });
  const short = edges.length > 2 * places.length ? nearest(edges) : new Set(edges);
  for (const { source, target } of short) plan.setEdge(String(source), String(target));
  dagre.layout(plan);
  const { width, height } = plan.graph();
  const at = new Map(places.map((place) => {
    const { x, y } = plan.node(String(place));
    return [place, { x, y }];
  }));
  const points = (edge) =>
    short.has(edge) ? plan.edge(String(edge.source), String(edge.target)).points : bow(at.get(edge.source), at.get(edge.target));
  const lines = edges.map((edge) => ({ ...edge, points: points(edge) }));
  const right = Math.max(width, ...lines.map((each) => Math.max(...each.points.map(({ x }) => x)) - 20));
  performance.measure("convscope-graph", { start: began, end: performance.now() });
  return { width: right, height, at, lines };
}

// Where every layer reads all before it, dagre takes seconds: it gets each node's nearest edge on either
// side, which give the order, and the others are bows beside them.
function nearest(edges) {
  const kept = new Map();
  const keep = (key, edge) => {
    const best = kept.get(key);
    const length = ({ source, target }) => Math.abs(target - source);
    if (!best || length(edge) < length(best)) kept.set(key, edge);
  };
  for (const edge of edges) {
    keep(`from ${edge.source}`, edge);
    keep(`to ${edge.target}`, edge);
  }
  return new Set(kept.values());
}

function bow(from, to) {
  const start = { x: from.x + WIDTH / 2, y: from.y }, end = { x: to.x + WIDTH / 2, y: to.y };
  const x = Math.max(start.x, end.x) + 20 + 6 * Math.sqrt(Math.abs(to.y - from.y));
  return [start, { x, y: from.y }, { x, y: to.y }, end];
}

// The box around everything in an open group.
function around(members, at, padding) {
  const xs = members.map((each) => at.get(each).x), ys = members.map((each) => at.get(each).y);
  const [left, right] = [Math.min(...xs) - WIDTH / 2 - padding, Math.max(...xs) + WIDTH / 2 + padding];
  const [top, bottom] = [Math.min(...ys) - HEIGHT / 2 - padding, Math.max(...ys) + HEIGHT / 2 + padding];
  return { x: left, y: top, width: right - left, height: bottom - top };
}

function curve(points) {
  const [first, ...rest] = points;
  const last = rest.pop();
  let path = `M${first.x} ${first.y}`;
  rest.forEach((point, number) => {
    const next = rest[number + 1];
    const end = next ? { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 } : last;
    path += `Q${point.x} ${point.y} ${end.x} ${end.y}`;
  });
  return rest.length ? path : `${path}L${last.x} ${last.y}`;
}
