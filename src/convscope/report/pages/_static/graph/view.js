// What of the graph is seen: which groups are open, and the edges between the nodes that are seen.

const BEFORE = -1; // what comes before the module that is looked into
const AFTER = -2;

function makeView(graph) {
  const { nodes, most_at_once: most } = graph;
  const children = nodes.map(() => []);
  const outermost = [];
  nodes.forEach((node, position) => (node.parent < 0 ? outermost : children[node.parent]).push(position));
  const opened = new Set(graph.opened); // in the order of opening
  let root = -1; // the group that is looked into; -1 is the whole network

  const inside = (group) => (group < 0 ? outermost : children[group]);
  const isGroup = (position) => position >= 0 && children[position].length > 0;

  // From the nearest to the outermost.
  function ancestors(position) {
    const found = [];
    for (let each = nodes[position].parent; each >= 0; each = nodes[each].parent) found.push(each);
    return found;
  }

  function number() {
    const of = (group) => inside(group).reduce((sum, child) => sum + (opened.has(child) ? of(child) : 1), 0);
    return of(root);
  }

  // At most 150 at a time: close what was opened longest ago; where that isn't enough, look into a module.
  function fit(kept) {
    const needed = new Set([kept, ...ancestors(kept)]);
    for (const group of [...opened]) {
      if (number() <= most) return;
      if (!needed.has(group) && children[group].length > 1) opened.delete(group);
    }
    for (const group of [...ancestors(kept).reverse(), kept]) {
      if (number() <= most || !isGroup(group)) return;
      root = group;
    }
  }

  function open(group) {
    for (const each of [...ancestors(group).reverse(), group]) {
      opened.delete(each);
      opened.add(each);
    }
    if (root >= 0 && root !== group && !ancestors(group).includes(root)) root = -1;
    fit(group);
  }

  function reveal(position) {
    const parent = nodes[position].parent;
    if (parent >= 0) open(parent);
    else root = -1;
  }

  function close(group) {
    opened.delete(group);
    if (root === group || ancestors(root < 0 ? group : root).includes(group)) root = nodes[group].parent;
  }

  // The nodes that are seen, the open groups around them, and by which node each layer is seen.
  function seen() {
    const places = [], groups = [], by = new Array(nodes.length).fill(null);
    const hand = (position, place) => {
      by[position] = place;
      for (const child of children[position]) hand(child, place);
    };
    const walk = (group, depth) => {
      for (const child of inside(group)) {
        if (opened.has(child)) {
          if (children[child].length > 1) groups.push({ group: child, depth });
          walk(child, depth + 1);
        } else {
          places.push(child);
          hand(child, child);
        }
      }
    };
    walk(root, 0);
    return { places, groups, by };
  }

  function edges(by) {
    const found = new Map();
    const at = (position) => by[position] ?? (position < root ? BEFORE : AFTER);
    for (const { source, target, shapes } of graph.edges) {
      const [from, to] = [at(source), at(target)];
      if (from === to || (from < 0 && to < 0)) continue;
      const key = `${from} ${to}`;
      if (!found.has(key)) found.set(key, { source: from, target: to, shapes: new Map() });
      for (const each of shapes) found.get(key).shapes.set(`${source} ${each}`, each);
    }
    return [...found.values()].map((edge) => ({ ...edge, shapes: [...edge.shapes.values()] }));
  }

  return {
    nodes, ancestors, isGroup, open, close, reveal, seen, edges,
    get root() { return root; },
    isOpen: (group) => opened.has(group),
    inside,
    look: (group) => { root = group; },
    reset: () => {
      opened.clear();
      for (const group of graph.opened) opened.add(group);
      root = -1;
    },
  };
}
