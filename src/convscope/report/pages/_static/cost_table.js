// The cost table: sorted, searched, and summed up by module. Each row can be linked to: #cost/ADDRESS.

const AMOUNTS = [
  { key: "params", write: count, how: "elements of its parameters; shared ones count once" },
  { key: "activations", write: count, how: "elements of its output, whole batch" },
  { key: "macs", write: count, how: "multiply–accumulates of its forward pass, whole batch" },
  { key: "saved_bytes", write: bytes, how: "bytes kept for the backward pass and by no earlier layer" },
];
const pixels = (field) => field && field.size.reduce((product, size) => product * size, 1);
const SORTED_BY = [(row) => row.address, null, (row) => pixels(row.receptive_field), ...AMOUNTS.map(({ key }) => (row) => row[key])];

// The module that a row belongs to, as "cost --depth" has it.
function moduleAt(row, depth) {
  if (row.phase === "loss") return "(loss)";
  const names = row.path === "self" ? [] : row.path.split(".");
  if (names.length >= depth) return names.slice(0, depth).join(".") || "self";
  return row.address.includes(":") ? `${row.path}:${row.op}` : row.path;
}

function summedUp(rows, depth) {
  const groups = new Map();
  for (const row of rows) {
    const address = moduleAt(row, depth);
    groups.set(address, [...(groups.get(address) ?? []), row]);
  }
  return [...groups].map(([address, members]) => {
    const last = members[members.length - 1];
    const sums = AMOUNTS.map(({ key }) => [key, members.reduce((sum, row) => sum + row[key], 0)]);
    const op = members.length === 1 ? last.op : counted(members.length, "layer");
    return { ...last, ...Object.fromEntries(sums), address, op };
  });
}

function amountCell({ key, write, how }, row, largest) {
  const cell = element("td", row[key] ? "num" : "num zero");
  const number = element("span", "n", write(row[key]));
  number.title = `${exact(row[key])} · ${how}`;
  cell.append(number);
  if (largest) {
    const bar = element("i", "bar"), filled = element("i");
    bar.setAttribute("aria-hidden", "true");
    filled.style.width = `${(100 * row[key]) / Math.max(largest, 1)}%`;
    bar.append(filled);
    cell.append(bar);
  }
  return cell;
}

function madeRow(row, largest) {
  const made = element("tr"), heading = element("th");
  heading.scope = "row";
  heading.append(element("code", "", row.address), " ", element("small", "", row.op));
  const output = element("td"), seen = element("td", "num");
  output.append(element("span", "n", shape(row.output_shape)));
  if (row.receptive_field) seen.append(element("span", "n", shape(row.receptive_field.size)));
  made.append(heading, output, seen, ...AMOUNTS.map((amount) => amountCell(amount, row, largest[amount.key])));
  return made;
}

function startTable(place, rows) {
  const [head, body, foot] = ["thead", "tbody", "tfoot"].map((part) => place.querySelector(part));
  const calls = [...body.rows].map((made, number) => ({ made, row: rows[number], number }));
  const byDepth = new Map([[0, calls]]);
  const state = { depth: 0, words: "", column: 0, direction: 0 };
  const total = foot.rows[0];
  const shown = element("tr");
  const headings = [...head.querySelectorAll("th")];

  function entries(depth) {
    if (!byDepth.has(depth)) {
      const sums = summedUp(rows, depth);
      const largest = Object.fromEntries(AMOUNTS.map(({ key }) => [key, Math.max(...sums.map((row) => row[key]))]));
      byDepth.set(depth, sums.map((row, number) => ({ made: madeRow(row, largest), row, number })));
    }
    return byDepth.get(depth);
  }

  // Numbers from the largest to the smallest first; what has none comes last either way.
  function compared(one, other) {
    if (!state.direction) return one.number - other.number;
    const [a, b] = [one, other].map(({ row }) => SORTED_BY[state.column](row));
    if (a === b || (a == null && b == null)) return one.number - other.number;
    if (a == null || b == null) return a == null ? 1 : -1;
    return state.direction * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : b - a);
  }

  function draw() {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const all = entries(state.depth);
    const kept = all.filter(({ row }) => words.every((word) => `${row.address} ${row.op} ${row.type_name}`.toLowerCase().includes(word)));
    body.replaceChildren(...kept.sort(compared).map(({ made }) => made));
    const heading = element("th", "", `Shown: ${exact(kept.length)} of ${exact(all.length)} rows`);
    heading.scope = "row";
    const sums = Object.fromEntries(AMOUNTS.map(({ key }) => [key, kept.reduce((sum, { row }) => sum + row[key], 0)]));
    shown.replaceChildren(heading, element("td"), element("td"), ...AMOUNTS.map((amount) => amountCell(amount, sums)));
    if (words.length) total.before(shown);
    else shown.remove();
    headings.forEach((each, number) => {
      if (!SORTED_BY[number]) return;
      const way = number === state.column ? state.direction * (number ? -1 : 1) : 0;
      if (way) each.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      else each.removeAttribute("aria-sort");
    });
  }

  // Once: from the largest (names: from A); twice: the other way; three times: in order of execution again.
  function sortBy(column) {
    const again = column === state.column;
    state.direction = !again || !state.direction ? 1 : state.direction > 0 ? -1 : 0;
    state.column = column;
    draw();
  }

  const search = element("input"), depth = element("select");
  search.type = "search";
  search.placeholder = "layer3 conv";
  search.addEventListener("input", () => { state.words = search.value; draw(); });
  depth.add(new Option("every call", 0));
  const deepest = Math.max(0, ...rows.map((row) => (row.path === "self" ? 0 : row.path.split(".").length)));
  for (let level = 1; level < Math.min(deepest, 9); level += 1) depth.add(new Option(`by module, ${level} deep`, level));
  depth.addEventListener("change", () => { state.depth = Number(depth.value); draw(); });
  const tools = element("div", "table-tools");
  const labelled = (text, control) => {
    const label = element("label", "", `${text} `);
    label.append(control);
    return label;
  };
  tools.append(labelled("Search", search), ...(depth.length > 1 ? [labelled("Rows", depth)] : []));
  place.before(tools);

  headings.forEach((heading, number) => {
    if (!SORTED_BY[number]) return;
    const button = element("button", "sort");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(number));
    heading.append(button);
  });

  return function reveal(number) {
    state.depth = 0;
    depth.value = "0";
    if (!calls[number].made.isConnected || state.words) {
      state.words = search.value = "";
      draw();
    }
    for (const each of body.querySelectorAll(".pointed-at")) each.classList.remove("pointed-at");
    calls[number].made.classList.add("pointed-at");
    keepInView(calls[number].made);
  };
}

function startTables(data) {
  const reveal = {};
  for (const place of document.querySelectorAll("[data-cost]")) {
    reveal[place.dataset.cost] = startTable(place, data[place.dataset.cost].rows);
  }

  // #cost/ADDRESS, or a module's path, whose first row is meant.
  function follow() {
    const asked = /^#cost\/(.+)$/.exec(location.hash);
    if (!asked || !reveal.cost) return;
    let address;
    try { address = decodeURIComponent(asked[1]); } catch { return; }
    const { rows } = data.cost;
    const exactly = rows.findIndex((row) => row.address === address || row.address === `${address}#1`);
    const found = exactly >= 0 ? exactly : rows.findIndex((row) => row.path === address || row.path.startsWith(`${address}.`));
    if (found >= 0) reveal.cost(found);
  }

  addEventListener("hashchange", follow);
  follow();
}

pageData().then(startTables);
