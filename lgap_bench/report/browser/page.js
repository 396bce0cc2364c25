"use strict";
// Sorting: a column's button sorts the rows of every section; a second click turns the order, blanks stay last.
function key(row, place) {
  const cell = row.cells[place];
  const text = cell.textContent.trim();
  if (cell.dataset.number !== undefined) return Number(cell.dataset.number);
  return text === "" || text === "-" ? null : text;
}
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === typeof b) return a.localeCompare(b, undefined, { numeric: true });
  return typeof a === "number" ? -1 : 1;
}
function sort(table, place) {
  const head = table.tHead.rows[0].cells[place];
  const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("section"));
    const held = rows.map((row) => [key(row, place), row]);
    held.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : turn * compare(a, b)));
    for (const [, row] of held) body.append(row);
  }
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => sort(table, place));
  });
}
// Zoom: the same picture, large; Escape or a click beside it closes.
const large = document.getElementById("large");
for (const button of document.querySelectorAll("button.zoom")) {
  button.addEventListener("click", () => {
    const small = button.querySelector("img");
    large.querySelector("img").src = small.src;
    large.querySelector("img").alt = small.alt;
    const said = [...button.parentElement.querySelectorAll("span")].map((each) => each.textContent);
    large.querySelector("p").textContent = [small.alt, ...said.slice(-1)].join(": ");
    large.showModal();
  });
}
large.addEventListener("click", (event) => {
  if (event.target === large) large.close();
});
