"use strict";
// Charts as SVG, and what they and the tables show as CSV, saved from the page itself.
(async function () {
  const data = await pageData();

  function save(name, content, type) {
    const way = document.createElement("a");
    way.href = typeof content === "string" && content.startsWith("data:") ? content : URL.createObjectURL(new Blob([content], { type }));
    way.download = name;
    way.click();
    if (way.href.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(way.href), 1000);
  }

  const at = (path, within = data) => path.split(".").reduce((value, key) => (value == null ? value : value[key]), within);

  // Every data set that a specification names, once: [its name, its rows].
  function sources(spec, found = new Map()) {
    if (spec === null || typeof spec !== "object") return found;
    const values = spec.data?.values;
    if (values?.$field) found.set(values.$field, at(values.$field));
    else if (values) found.set(JSON.stringify(values), values);
    for (const value of Object.values(spec)) if (value !== values) sources(value, found);
    return found;
  }

  // The columns that a chart takes apart, so that each of their values is a row.
  function flattened(spec, found = new Set()) {
    if (spec === null || typeof spec !== "object") return found;
    if (Array.isArray(spec.flatten)) spec.flatten.forEach((name) => found.add(name));
    for (const value of Object.values(spec)) flattened(value, found);
    return found;
  }

  // One row for each value of the columns named, which may lie deeper: "single.gamma".
  function rowsOf(value, lists = new Set()) {
    const rows = (Array.isArray(value) ? value : [value]).map((row) => (row !== null && typeof row === "object" ? row : { value: row }));
    return rows.flatMap((row) => {
      const found = [...lists].filter((name) => Array.isArray(at(name, row)));
      if (!found.length) return [row];
      const taken = new Set(found.map((name) => name.split(".")[0]));
      const kept = Object.fromEntries(Object.entries(row).filter(([key]) => !taken.has(key)));
      const length = Math.max(...found.map((name) => at(name, row).length));
      const single = (place) => found.map((name) => [name, at(name, row)[place]]);
      return Array.from({ length }, (_, place) => ({ ...kept, ...Object.fromEntries(single(place)) }));
    });
  }

  // As the command line writes it: shapes joined by x, no formulas, no control characters.
  function cell(value) {
    if (value === null || value === undefined) return "";
    if (Array.isArray(value) && value.every(Number.isInteger)) return value.join("x");
    let text = typeof value === "object" ? JSON.stringify(value) : String(value);
    if (typeof value === "string") {
      text = text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (each) => `\\x${each.charCodeAt(0).toString(16).padStart(2, "0")}`);
      if (/^\s*[=+\-@]/.test(text)) text = `'${text}`;
    }
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  // An object in a row as columns of its own: "share.median".
  function flat(row, prefix = "") {
    const parts = Object.entries(row).flatMap(([key, value]) =>
      value !== null && typeof value === "object" && !Array.isArray(value) ? Object.entries(flat(value, `${prefix}${key}.`)) : [[prefix + key, value]]);
    return Object.fromEntries(parts);
  }

  // The names that columns are saved under; without those that aren't, or lie in one that isn't.
  function named(columns, names) {
    const parents = (name) => name.split(".").map((_, place, parts) => parts.slice(0, place + 1).join("."));
    const isLeftOut = (name) => (name in names ? names[name] === null : parents(name).some((each) => names[each] === null));
    return columns.filter((name) => !isLeftOut(name)).map((name) => [name, names[name] ?? name]);
  }

  // Rows of several sources; each with what its columns are called.
  function csv(tables) {
    const saved = tables.map(({ rows, names }) => {
      const flat = flattenedRows(rows);
      const columns = named([...new Set(flat.flatMap(Object.keys))], names);
      return flat.map((row) => Object.fromEntries(columns.map(([key, name]) => [name, row[key]])));
    }).flat();
    const columns = [...new Set(saved.flatMap(Object.keys))];
    const lines = [columns, ...saved.map((row) => columns.map((name) => row[name]))];
    return lines.map((line) => line.map(cell).join(",") + "\n").join("");
  }

  function flattenedRows(given) {
    const nested = new Set(given.flatMap((row) => Object.keys(flat(row)).filter((key) => key.includes(".")).map((key) => key.split(".")[0])));
    const isEmpty = ([key, value]) => value === null && nested.has(key); // an object in other rows
    return given.map((row) => flat(Object.fromEntries(Object.entries(row).filter((entry) => !isEmpty(entry)))));
  }

  function table(path, value, lists) {
    const { names, row } = columnsOf(path, lists.size > 0, data);
    return { rows: rowsOf(value, lists).map(row), names };
  }

  function chartCsv(spec) {
    const found = sources(spec), lists = flattened(spec);
    // Plain names or numbers, such as the classes behind the line of guessing, are no rows of the picture's.
    for (const [name, value] of [...found]) {
      if (found.size > 1 && [].concat(value).every((each) => each === null || typeof each !== "object")) found.delete(name);
    }
    return csv([...found].map(([name, value]) => {
      const { rows, names } = table(name, value, lists);
      return { names, rows: found.size > 1 ? rows.map((row) => ({ source: name, ...row })) : rows };
    }));
  }

  function buttons(place, title, ways) {
    const row = document.createElement("p");
    row.className = "save";
    for (const [text, action] of ways) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.setAttribute("aria-label", `Save as ${text}: ${title}`);
      button.addEventListener("click", action);
      row.append(button);
    }
    place.after(row);
  }

  document.addEventListener("drawn", ({ target, detail: { view, spec, name } }) => {
    const title = target.getAttribute("aria-label");
    buttons(target, title, [
      ["SVG", async () => save(`${name}.svg`, await view.toSVG(), "image/svg+xml")],
      ["CSV", () => save(`${name}.csv`, chartCsv(spec), "text/csv")],
    ]);
  });

  for (const place of document.querySelectorAll("[data-csv]")) {
    const { csv: path, name } = place.dataset, picture = place.querySelector("img");
    const ways = [["CSV", () => save(`${name}.csv`, csv([table(path, at(path), new Set())]), "text/csv")]];
    if (picture) ways.unshift(["PNG", () => save(`${name}.png`, picture.src)]);
    buttons(place, place.getAttribute("aria-label") ?? name, ways);
  }
})();
