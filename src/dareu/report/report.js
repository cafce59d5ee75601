"use strict";
// A curve shows the value under the pointer; the search box keeps the samples that hold its words.
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
