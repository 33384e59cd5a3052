// The network as a graph: it is laid out when it comes into view, and again whenever a group opens or closes.

function startGraph(data, marks) {
  const at = (id) => document.getElementById(id);
  const [canvas, status, measure, legend, path] = ["canvas", "status", "measure", "legend", "path"].map((name) => at(`graph-${name}`));
  const view = makeView(data.graph);
  const { nodes } = view;
  const state = { drawing: null, scale: 0, chosen: view.inside(-1)[0] };
  const measures = MEASURES.filter(({ key }) => whole(key) > 0);
  const picture = drawn("svg", { role: "group", "aria-label": "The network as a graph", "aria-describedby": "graph-keys" });
  const actions = { select, open, close, enter, leave, zoom };
  const act = Object.fromEntries(Object.entries(actions).map(([name, action]) => [name, careful(action)]));
  const detail = makeDetails(at("graph-detail"), data, marks, view, act);

  function whole(key) {
    return view.inside(-1).reduce((sum, each) => sum + (nodes[each][key] ?? 0), 0);
  }

  function worst(place) {
    const found = (marks.findings?.[place] ?? []).map((each) => data.checkup.findings[each].severity);
    const severity = SEVERITIES.slice(0, 3).find((each) => found.includes(each));
    return severity ?? (marks.norms?.[place] ? "healthy" : null);
  }

  function boxes(places, positions) {
    const by = measures.find(({ key }) => key === measure.value);
    const total = by ? whole(by.key) : 0;
    const shares = places.map((each) => (total ? nodes[each][by.key] / total : 0));
    const largest = Math.max(...shares, 1e-9);
    tellLegend(by, total, largest);
    return places.map((each, number) => {
      const text = shares[number] > 0 ? percent(shares[number]) : "";
      return box(view, each, positions.get(each), { colour: shares[number] / largest, text }, worst(each));
    });
  }

  function tellLegend(by, total, largest) {
    legend.hidden = !by;
    if (!by) return;
    at("graph-most").textContent = percent(largest);
    at("graph-whole").textContent = `of ${by.write(total)}${by.write === count ? ` ${by.label}` : ""}`;
    legend.title = by.how;
  }

  function draw() {
    const { places, groups, by } = view.seen();
    const edges = view.edges(by);
    const stubs = [BEFORE, AFTER].filter((each) => edges.some((edge) => edge.source === each || edge.target === each));
    const drawing = layout([...places, ...stubs], edges);
    const frames = groups.map(({ group, depth }) => {
      const members = places.filter((each) => view.ancestors(each).includes(group));
      return { group, area: around(members, drawing.at, Math.max(4, 13 - 4 * depth)) };
    });
    state.drawing = { ...drawing, places };
    picture.replaceChildren(
      arrow(),
      ...frames.map(({ area }) => frame(area)),
      ...drawing.lines.map(line),
      ...stubs.map((each) => stub(each, drawing.at.get(each))),
      ...closers(view, frames),
      ...boxes(places, drawing.at),
    );
    picture.setAttribute("viewBox", `0 0 ${drawing.width} ${drawing.height}`);
    if (!state.scale) state.scale = Math.min(1, Math.max(0.6, (canvas.clientWidth - 4) / drawing.width));
    resize();
    tellPath();
  }

  function resize() {
    picture.setAttribute("width", state.drawing.width * state.scale);
    picture.setAttribute("height", state.drawing.height * state.scale);
  }

  // From the whole network to the module that is looked into.
  function tellPath() {
    path.hidden = view.root < 0;
    if (path.hidden) return path.replaceChildren();
    const chain = [view.root, ...view.ancestors(view.root)].reverse();
    path.replaceChildren("Inside: ", ...[-1, ...chain].map((group) => {
      const button = element("button", "plain", group < 0 ? data.subject?.network ?? "network" : nodes[group].name);
      button.type = "button";
      button.disabled = group === view.root;
      button.addEventListener("click", () => {
        if (group < 0) view.reset();
        else view.look(group);
        redraw(chain[0]);
      });
      return button;
    }));
  }

  const boxOf = (place) => picture.querySelector(`[data-node="${place}"]`);

  // The node itself where it is seen, else the one that it is in or the first that is seen.
  function seenAs(place) {
    const { places, by } = view.seen();
    return by[place] ?? places.find((each) => view.ancestors(each).includes(place)) ?? places[0];
  }

  function select(place, focus = false, linked = true) {
    state.chosen = place;
    for (const each of picture.querySelectorAll("[data-node]")) {
      const own = Number(each.dataset.node) === place;
      each.tabIndex = own ? 0 : -1;
      each.classList.toggle("chosen", own);
      if (own) each.setAttribute("aria-current", "true");
      else each.removeAttribute("aria-current");
    }
    for (const each of picture.querySelectorAll(".edge")) {
      each.classList.toggle("near", [each.dataset.source, each.dataset.target].includes(String(place)));
    }
    detail(place, state.drawing.lines);
    if (linked) history.replaceState(null, "", `#graph=${encodeURIComponent(nodes[place].address)}`);
    if (!focus) return;
    boxOf(place).focus({ preventScroll: true });
    scrollTo(place);
  }

  // Only the canvas moves, not the page.
  function scrollTo(place, behavior = "auto") {
    const { x, y } = state.drawing.at.get(place);
    const [left, top, near] = [x * state.scale, y * state.scale, HEIGHT];
    const inside = (value, from, size) => value - near > from && value + near < from + size;
    if (!inside(top, canvas.scrollTop, canvas.clientHeight)) canvas.scrollTo({ top: top - canvas.clientHeight / 3, behavior });
    if (left - WIDTH / 2 < canvas.scrollLeft || left + WIDTH / 2 > canvas.scrollLeft + canvas.clientWidth) {
      canvas.scrollTo({ left: left - canvas.clientWidth / 2, behavior });
    }
  }

  function redraw(place, focus = true) {
    draw();
    select(seenAs(place), focus);
    if (focus) scrollTo(state.chosen);
  }

  function open(group) {
    view.open(group);
    redraw(view.inside(group)[0]);
    status.textContent = `${nodes[group].name} is open: ${counted(view.inside(group).length, "node")}`;
  }

  function close(group) {
    view.close(group);
    redraw(group);
    status.textContent = `${nodes[group].name} is closed`;
  }

  function enter(place) {
    if (view.isGroup(place)) open(place);
    else select(place, true);
  }

  function leave(place) {
    if (nodes[place].parent >= 0) close(nodes[place].parent);
  }

  function zoom(by, pointer) {
    const before = state.scale;
    state.scale = Math.min(3, Math.max(0.15, state.scale * by));
    const area = canvas.getBoundingClientRect();
    const [x, y] = pointer ? [pointer.clientX - area.left, pointer.clientY - area.top] : [area.width / 2, area.height / 2];
    const [left, top] = [canvas.scrollLeft + x, canvas.scrollTop + y].map((each) => (each * state.scale) / before);
    resize();
    canvas.scrollTo({ left: left - x, top: top - y, behavior: "instant" });
  }

  // #graph=ADDRESS, or a module's path, whose first call is meant.
  function follow() {
    const asked = /^#graph=(.+)$/.exec(location.hash);
    if (!asked) return false;
    let address;
    try { address = decodeURIComponent(asked[1]); } catch { return false; }
    const place = nodes.findIndex((node) => node.address === address || node.address === `${address}#1`);
    if (place < 0) return false;
    start();
    if (boxOf(place) === null) {
      view.reveal(place);
      draw();
    }
    at("graph").scrollIntoView({ behavior: "instant" });
    select(seenAs(place), true, false);
    return true;
  }

  function fitWhole() {
    const { width, height } = state.drawing;
    state.scale = Math.min(1.5, (canvas.clientWidth - 4) / width, (canvas.clientHeight - 4) / height);
    resize();
  }

  function save() {
    const way = element("a");
    way.href = URL.createObjectURL(new Blob([standalone(picture)], { type: "image/svg+xml" }));
    way.download = "network.svg";
    way.click();
    setTimeout(() => URL.revokeObjectURL(way.href), 1000);
  }

  function start() {
    if (canvas.dataset.drawn === "yes") return;
    at("graph-drawing").hidden = false;
    for (const { key, label } of measures) measure.add(new Option(label, key));
    canvas.append(picture);
    draw();
    select(seenAs(state.chosen), false, false);
    canvas.scrollLeft = (state.drawing.width * state.scale - canvas.clientWidth) / 2;
    canvas.dataset.drawn = "yes";
    at("graph-list").open = false;
  }

  function careful(action) {
    return (...given) => {
      try { return action(...given); } catch (error) {
        fail();
        console.error(error);
        return false;
      }
    };
  }

  function fail() {
    at("graph-drawing").hidden = true;
    at("graph-failed").hidden = false;
    at("graph-list").open = true;
    canvas.dataset.drawn = "failed";
  }

  linkAddresses(nodes);
  listenToKeys(picture, state, act);
  listenToPointer(canvas, act);
  measure.addEventListener("change", careful(() => { draw(); select(state.chosen, false, false); }));
  at("graph-in").addEventListener("click", () => zoom(1.25));
  at("graph-out").addEventListener("click", () => zoom(0.8));
  at("graph-fit").addEventListener("click", fitWhole);
  at("graph-reset").addEventListener("click", careful(() => { view.reset(); state.scale = 0; redraw(view.inside(-1)[0], false); }));
  at("graph-save").addEventListener("click", save);
  addEventListener("hashchange", careful(follow));
  if (careful(follow)() || canvas.dataset.drawn) return;
  const near = new IntersectionObserver((entries) => {
    if (!entries.some((each) => each.isIntersecting)) return;
    near.disconnect();
    careful(start)();
  }, { rootMargin: "400px" });
  near.observe(at("graph"));
}

const graphMarks = JSON.parse(document.getElementById("graph-marks").textContent);
pageData().then((data) => startGraph(data, graphMarks));
