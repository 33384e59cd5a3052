// What keys, buttons and clicks do, alike for a gallery and for two that are compared.

// "/" goes to the search, unless somebody writes or a unit is shown in full.
function searchBySlash(search, dialog) {
  addEventListener("keydown", (event) => {
    const writes = event.target.closest && event.target.closest("input, select, textarea, [contenteditable]");
    if (event.key !== "/" || writes || dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    search.focus();
  });
}

// Arrow keys and two buttons call step(-1) and step(1), which says whether there is such a unit; a click
// beside the dialog closes it.
function walkThrough(dialog, previous, next, step) {
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by && step(by)) event.preventDefault();
  });
  previous.addEventListener("click", () => step(-1));
  next.addEventListener("click", () => step(1));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
