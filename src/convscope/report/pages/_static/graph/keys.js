// Keys and the pointer: arrows go along edges, a drag moves the picture, Ctrl and the wheel change its size.

// The node that an arrow key leads to, or undefined.
function next(key, from, drawing) {
  const { at, lines, places } = drawing;
  const there = (ends) => ends.filter((each) => each >= 0).sort((a, b) => Math.abs(a - from) - Math.abs(b - from))[0];
  if (key === "ArrowDown") return there(lines.filter((edge) => edge.source === from).map((edge) => edge.target));
  if (key === "ArrowUp") return there(lines.filter((edge) => edge.target === from).map((edge) => edge.source));
  const seen = places.filter((each) => each >= 0);
  if (key === "Home") return seen[0];
  if (key === "End") return seen[seen.length - 1];
  const side = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (!side) return undefined;
  const { x, y } = at.get(from);
  const beside = seen.filter((each) => side * (at.get(each).x - x) > 1 && Math.abs(at.get(each).y - y) < HEIGHT);
  return beside.sort((a, b) => side * (at.get(a).x - at.get(b).x))[0];
}

function listenToKeys(picture, state, act) {
  picture.addEventListener("keydown", (event) => {
    const box = event.target.closest("[data-node]");
    if (!box || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = Number(box.dataset.node);
    const done = () => { event.preventDefault(); event.stopPropagation(); };
    if (event.key === "Enter" || event.key === " ") {
      done();
      act.enter(place);
    } else if (event.key === "Escape") {
      done();
      act.leave(place);
    } else if (event.key === "+" || event.key === "-") {
      done();
      act.zoom(event.key === "+" ? 1.25 : 0.8);
    } else {
      const to = next(event.key, place, state.drawing);
      if (/^(Arrow|Home$|End$)/.test(event.key)) done();
      if (to !== undefined) act.select(to, true);
    }
  });
}

function listenToPointer(canvas, act) {
  let grip = null;
  let dragged = false;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    grip = { x: event.clientX, y: event.clientY, left: canvas.scrollLeft, top: canvas.scrollTop };
    dragged = false;
  });
  addEventListener("pointermove", (event) => {
    if (!grip) return;
    const [x, y] = [event.clientX - grip.x, event.clientY - grip.y];
    if (!dragged && Math.hypot(x, y) < 5) return;
    dragged = true;
    canvas.classList.add("dragged");
    canvas.scrollLeft = grip.left - x;
    canvas.scrollTop = grip.top - y;
  });
  addEventListener("pointerup", () => {
    grip = null;
    canvas.classList.remove("dragged");
  });
  canvas.addEventListener("click", (event) => {
    if (dragged) { dragged = false; return; }
    const at = (name) => event.target.closest(`[data-${name}]`)?.dataset[name];
    const [toggle, closer, node] = ["toggle", "close", "node"].map(at);
    if (closer !== undefined) act.close(Number(closer));
    else if (toggle !== undefined) act.open(Number(toggle));
    else if (node !== undefined) act.select(Number(node), true);
  });
  canvas.addEventListener("dblclick", (event) => {
    const node = event.target.closest("[data-node]:not([data-toggle])")?.dataset.node;
    if (node !== undefined) act.enter(Number(node));
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the wheel alone moves the picture
    event.preventDefault();
    act.zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1, event);
  }, { passive: false });
}
