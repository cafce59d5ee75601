"use strict";
// A curve shows the value under the pointer; the search box keeps the samples that hold its words; tables sort.
for (const figure of document.querySelectorAll(".small")) {
  const points = JSON.parse(figure.dataset.points), number = figure.querySelector("figcaption .n");
  const first = points[0][0], span = points[points.length - 1][0] - first || 1;
  const box = figure.querySelector(".draw"), rule = box.appendChild(document.createElement("i"));
  box.addEventListener("pointermove", (event) => {
    const area = box.getBoundingClientRect(), step = first + span * (event.clientX - area.left) / area.width;
    const near = points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
    number.textContent = near[1] + " at " + near[0];
    rule.style.left = 100 * (near[0] - first) / span + "%";
    rule.style.opacity = 1;
  });
  box.addEventListener("pointerleave", () => { number.textContent = figure.dataset.last; rule.style.opacity = 0; });
}
const find = document.getElementById("find");
if (find) {
  find.hidden = false;
  find.addEventListener("input", () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const sample of document.querySelectorAll(".sample")) {
      const text = sample.textContent.toLowerCase();
      sample.hidden = !words.every((word) => text.includes(word));
    }
    for (const rest of document.querySelectorAll(".rest")) rest.open = words.length > 0;
  });
}
const sortKey = (cell) => {
  // "4 min 11 s" stands for a number that the cell brings along.
  const words = cell.dataset.sort || cell.textContent.trim(), found = parseFloat(words.replace(/^\./, "0.").replace(/^-\./, "-0."));
  return Number.isNaN(found) ? words.toLowerCase() : found;
};
for (const table of document.querySelectorAll("table.figures")) {
  const body = table.tBodies[0];
  if (!body || body.rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    head.classList.add("sortable");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [sortKey(a.cells[column]), sortKey(b.cells[column])];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
      });
      body.append(...rows);
    });
  });
}
