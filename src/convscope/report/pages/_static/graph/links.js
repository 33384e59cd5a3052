// The addresses of findings lead to their nodes in the graph.

function linkAddresses(nodes) {
  const known = new Set(nodes.map(({ address }) => address));
  for (const code of document.querySelectorAll(".where code")) {
    const address = code.textContent;
    const found = [address, `${address}#1`, address.replace(/:[^:]*$/, "")].find((each) => known.has(each));
    if (!found) continue;
    const way = element("a");
    way.href = `#graph=${encodeURIComponent(found)}`;
    code.replaceWith(way);
    way.append(code);
  }
}
