// A grid of any number of equally large cards, of which only those near the view exist.

const GAP = 14;
const NARROWEST = 280;
const NEAR = 500;

// make(entry) builds a card; open(position in the list) is called when one is chosen.
function makeShelf(place, make, open) {
  let entries = [];
  let current = 0; // which card the arrow keys start from
  let columns = 1;
  let width = 0;
  let height = 0;
  let waiting = false;
  const made = new Map();

  function slot(position) {
    const around = element("div", "slot");
    around.setAttribute("role", "listitem");
    around.setAttribute("aria-setsize", entries.length);
    around.setAttribute("aria-posinset", position + 1);
    const card = make(entries[position]);
    card.addEventListener("click", () => { point(position); open(position); });
    card.addEventListener("focus", () => point(position));
    card.tabIndex = position === current ? 0 : -1;
    around.append(card);
    return around;
  }

  function point(position) {
    const before = made.get(current);
    if (before) before.firstChild.tabIndex = -1;
    current = position;
    const now = made.get(current);
    if (now) now.firstChild.tabIndex = 0;
  }

  function put(position) {
    const around = slot(position);
    around.style.width = `${width}px`;
    around.style.height = `${height}px`;
    around.style.left = `${(position % columns) * (width + GAP)}px`;
    around.style.top = `${Math.floor(position / columns) * (height + GAP)}px`;
    made.set(position, around);
    // In the document cards stand as they are seen, for those who have the page read to them.
    const after = Math.min(...[...made.keys()].filter((each) => each > position));
    place.insertBefore(around, after === Infinity ? null : made.get(after));
  }

  // The cards near the view are made, the others go; one that has the focus stays.
  function update() {
    waiting = false;
    if (!height) return;
    const top = place.getBoundingClientRect().top;
    const rows = Math.ceil(entries.length / columns);
    const first = Math.max(0, Math.floor((-top - NEAR) / (height + GAP)));
    const last = Math.min(rows - 1, Math.floor((innerHeight - top + NEAR) / (height + GAP)));
    const [from, to] = [first * columns, Math.min(entries.length, (last + 1) * columns)];
    for (const [position, around] of made) {
      if ((position < from || position >= to) && !around.contains(document.activeElement)) {
        around.remove();
        made.delete(position);
      }
    }
    for (let position = from; position < to; position += 1) if (!made.has(position)) put(position);
    // The Tab key comes in here while the card that it should come to isn't made.
    if (entries.length && !made.has(current)) place.tabIndex = 0;
    else place.removeAttribute("tabindex");
  }

  function soon() {
    if (!waiting) requestAnimationFrame(update);
    waiting = true;
  }

  // All cards are as high as a living unit's, or as the first one's.
  function measure() {
    const room = place.clientWidth;
    columns = Math.max(1, Math.floor((room + GAP) / (NARROWEST + GAP)));
    width = (room - GAP * (columns - 1)) / columns;
    height = 0;
    const example = entries.find(({ unit }) => !unit.dead) || entries[0];
    if (example) {
      const trial = element("div", "slot trial");
      trial.style.width = `${width}px`;
      trial.append(make(example, () => {}));
      place.append(trial);
      height = Math.ceil(trial.offsetHeight);
      trial.remove();
    }
    const rows = Math.ceil(entries.length / columns);
    place.style.height = `${Math.max(0, rows * (height + GAP) - GAP)}px`;
  }

  function rebuild() {
    for (const around of made.values()) around.remove();
    made.clear();
    measure();
    update();
  }

  function show(list) {
    entries = list;
    current = 0;
    rebuild();
  }

  function focus(position) {
    const row = Math.floor(position / columns);
    const top = place.getBoundingClientRect().top + row * (height + GAP);
    if (top < 0 || top + height > innerHeight) scrollTo({ top: scrollY + top - 80, behavior: "instant" });
    update();
    if (!made.has(position)) put(position);
    made.get(position).firstChild.focus({ preventScroll: true });
  }

  place.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || !entries.length) return;
    event.preventDefault();
    const step = steps[event.key];
    const wanted = current + step;
    if (Math.abs(step) === columns && (wanted < 0 || wanted >= entries.length)) return;
    focus(Math.min(entries.length - 1, Math.max(0, wanted)));
  });
  place.addEventListener("focus", () => { if (entries.length) focus(current); });
  addEventListener("scroll", soon, { passive: true });
  let room = 0;
  new ResizeObserver(() => {
    if (place.clientWidth !== room) { room = place.clientWidth; rebuild(); }
  }).observe(place);
  // Parts of the page above may open and close, or be drawn late.
  new ResizeObserver(soon).observe(document.body);
  addEventListener("resize", soon);
  return { show, focus };
}
