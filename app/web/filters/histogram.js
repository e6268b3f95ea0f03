// A histogram as SVG; dragging over it chooses a range, and a click the bin under the pointer.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000, HEIGHT = 100;
const MIN_BAR_WIDTH = 3, MIN_BAR_HEIGHT = 4; // so that a bin with one of a million items is seen

/** Return { element, draw(histogram, low, high) }; `brushed([from, to], done)` gets places from 0 to 1. */
export function histogram(place, brushed) {
  const element = svg("svg", { class: "histogram", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  let bars = [];
  listen(element, brushed, (x) => bars.find((bar) => x >= bar.from && x < bar.to));
  return {
    element,
    /** Draw the counts, with the chosen range in colour; bars have the area of their counts, as bins differ in width. */
    draw({ edges = [], counts = [] } = {}, low = 0, high = 1) {
      bars = counts
        .map((count, i) => ({ from: Math.max(0, place(edges[i])), to: Math.min(1, place(edges[i + 1])), count }))
        .filter((bar) => bar.count && bar.to > bar.from);
      const densest = Math.max(...bars.map(density));
      element.replaceChildren(...bars.map((bar) => rectangle(bar, density(bar) / densest, low, high)));
    },
  };
}

const density = (bar) => bar.count / (bar.to - bar.from);

function rectangle({ from, to }, share, low, high) {
  const height = Math.max(MIN_BAR_HEIGHT, share * HEIGHT), middle = (from + to) / 2;
  const width = Math.max(MIN_BAR_WIDTH, (to - from) * WIDTH - 2);
  const chosen = middle >= low && middle <= high;
  return svg("rect", { x: from * WIDTH, y: HEIGHT - height, width, height, class: chosen ? "chosen" : null });
}

function listen(element, brushed, barAt) {
  let start = null;
  const placeOf = (event) => {
    const box = element.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const range = (event) => [start, placeOf(event)].sort((a, b) => a - b);
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    start = placeOf(event);
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    if (start !== null && Math.abs(placeOf(event) - start) > 0.01) brushed(range(event), false);
  });
  element.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const bar = barAt(start), moved = Math.abs(placeOf(event) - start) > 0.01;
    if (moved || bar) brushed(moved ? range(event) : [bar.from, bar.to], true);
    start = null;
  });
  element.addEventListener("pointercancel", () => { start = null; });
}

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  return element;
}
