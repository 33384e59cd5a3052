// The panel beside the graph: all that is known of the chosen node, with ways to the other sections.

function makeDetails(place, data, marks, view, act) {
  const totals = data.cost.totals;
  const of = (name, node) => marks[name]?.[node] ?? [];

  function fact(label, text, title) {
    const row = element("div");
    const value = element("dd", "n", text);
    if (title) value.title = title;
    row.append(element("dt", "", label), value);
    return row;
  }

  function amount(label, node, key, write, how) {
    const whole = key === "seconds" ? 0 : totals[key];
    const share = whole ? ` (${percent(node[key] / whole)})` : "";
    return fact(label, write(node[key]) + share, `${key === "seconds" ? node[key] : exact(node[key])} · ${how}`);
  }

  function facts(node) {
    const list = element("dl", "facts");
    list.append(fact("Output", shape(node.output_shape), "shape of its first output, batch included"));
    if (node.kind === "input") return list;
    if (view.isGroup(view.nodes.indexOf(node))) list.append(fact("Layers", exact(node.num_layers), "rows of the cost table"));
    const [macs, params, saved, time] = MEASURES;
    list.append(amount("Parameters", node, "params", count, params.how), amount("MACs", node, "macs", count, macs.how));
    list.append(amount("Forward FLOPs", node, "forward_flops", count, "twice the MACs"));
    const how = "for the inputs and for the weights, whole batch";
    if (totals.backward_flops) list.append(amount("Backward FLOPs", node, "backward_flops", count, how));
    if (totals.saved_bytes) list.append(amount("Saved for backward", node, "saved_bytes", bytes, saved.how));
    if (node.seconds !== null) list.append(amount("Time", node, "seconds", seconds, time.how));
    return list;
  }

  function link(text, address) {
    const made = element("a", "", text);
    made.href = address;
    return made;
  }

  function health(number) {
    const norms = of("norms", number), findings = of("findings", number).map((each) => data.checkup.findings[each]);
    if (!norms.length && !findings.length) return [];
    const bad = findings.filter((each) => each.severity !== "info");
    const made = element("div", "health");
    const healthy = norms.length === 1 ? "Its batch norm is healthy" : `Its ${norms.length} batch norms are healthy`;
    const text = bad.length ? `${counted(bad.length, "finding")} from the check-up` : healthy;
    made.append(element("b", bad.length ? "" : "good", text));
    const list = element("ul");
    for (const each of findings.slice(0, 5)) {
      const item = element("li", each.severity);
      item.append(element("span", "severity", each.severity), ` ${each.fault}`, element("small", "", ` ${each.address}`));
      list.append(item);
    }
    if (findings.length > 5) list.append(element("li", "quiet", `and ${findings.length - 5} more`));
    if (findings.length) made.append(list);
    return [made];
  }

  // Layers that this one reads, or that read it, as they are seen now.
  function neighbours(title, edges, end) {
    if (!edges.length) return [];
    const list = element("ul", "neighbours");
    for (const edge of edges) {
      const item = element("li");
      const other = edge[end];
      if (other < 0) item.append(other === BEFORE ? "what comes before" : "what comes after");
      else {
        const button = element("button", "plain", view.nodes[other].name);
        button.type = "button";
        button.addEventListener("click", () => act.select(other, true));
        item.append(button);
      }
      const more = edge.shapes.length > 3 ? ` and ${edge.shapes.length - 3} more` : "";
      const sizes = edge.shapes.slice(0, 3).map(shape).join(", ") + more;
      item.append(element("small", "", sizes));
      list.append(item);
    }
    return [element("h4", "", title), list];
  }

  function ways(number) {
    const node = view.nodes[number];
    const list = element("p", "ways");
    list.append(link("Cost table", node.row === null ? "#cost" : `#cost/${encodeURIComponent(data.cost.rows[node.row].address)}`));
    if (of("norms", number).length || of("findings", number).length) list.append(link("Check-up", "#checkup"));
    const sight = of("sight", number);
    if (sight.length) list.append(link("What its units look for", `#gallery/${sight[0]}`));
    return list;
  }

  function actions(number) {
    const row = element("p", "actions");
    const button = (text, action) => {
      const made = element("button", "", text);
      made.type = "button";
      made.addEventListener("click", action);
      row.append(made);
    };
    if (view.isGroup(number)) button("Open", () => act.open(number));
    const parent = view.nodes[number].parent;
    if (parent >= 0) button(`Close ${cut(view.nodes[parent].name, 24)}`, () => act.close(parent));
    return row.childElementCount ? [row] : [];
  }

  return function show(number, edges) {
    const node = view.nodes[number];
    const title = element("h3", "");
    title.append(element("code", "", node.address));
    const kind = {
      input: "Input of the network", loss: "The loss",
      list: "Modules one after another", run: "Layers one after another",
    }[node.kind];
    place.replaceChildren(
      title,
      element("p", "quiet", kind ?? [node.type_name, node.op].filter(Boolean).join(" · ")),
      ...actions(number),
      facts(node),
      ...health(number),
      ...neighbours("Reads", edges.filter((edge) => edge.target === number), "source"),
      ...neighbours("Is read by", edges.filter((edge) => edge.source === number), "target"),
      ...(node.kind === "input" ? [] : [ways(number)]),
    );
  };
}
