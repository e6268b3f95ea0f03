// A heat map of the cosines of some images, each with each: a table, so that screen readers read the numbers too.

import { element, icon } from "../dom.js";
import { percent } from "../grid.js";

const LARGEST = 68, SMALLEST = 12, SMALLEST_FOR_A_FINGER = 26; // pixels of a cell
const ROOM_FOR_NUMBER = 40, ROOM_FOR_BUTTON = 26;
const CROSSING = 62; // percent of the colour scale where the text turns from black to white, or the reverse
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/**
 * Return a heat map.
 *
 * `inputs` are `{ name, show(img) }`; `pair(i, j)` is `{ cosine, probability, similar }`; `threshold` is the cosine
 * from which images are similar; `on` has the handlers `choose(i, j)` and `remove(i)`; `width` is the room in pixels.
 */
export function heatMap({ inputs, pair, threshold, on, width }) {
  const lowest = lowestOf(inputs, pair);
  const smallest = matchMedia("(pointer: coarse)").matches ? SMALLEST_FOR_A_FINGER : SMALLEST;
  const size = Math.floor(Math.min(LARGEST, Math.max(smallest, width / (inputs.length + 1) - 2)));
  const readout = element("p", { class: "heat-readout", "aria-hidden": "true" }, hint(size));
  const table = element("table", { class: "heat-table", role: "grid", "aria-label": "Cosine of each pair" });
  table.style.setProperty("--cell", `${size}px`);
  table.classList.toggle("numbers", size >= ROOM_FOR_NUMBER);
  table.append(headRow(inputs), ...inputs.map((_, i) => row(i, { inputs, pair, lowest, on, size })));
  listen(table, { inputs, pair, readout, on });
  const scroll = element("div", { class: "heat-scroll" }, table);
  return element("div", { class: "heat-map" }, legend(lowest, threshold), readout, scroll);
}

function hint(size) {
  const keys = "Point at a cell, or move with the arrow keys. Enter shows the pair";
  return size < ROOM_FOR_BUTTON ? `${keys}, Delete removes the image of the row.` : `${keys}.`;
}

function lowestOf(inputs, pair) {
  const cosines = inputs.flatMap((_, i) => inputs.map((_, j) => pair(i, j).cosine));
  return Math.min(0.9, Math.floor(Math.min(...cosines) * 10) / 10);
}

const share = (cosine, lowest) => Math.round(((cosine - lowest) / (1 - lowest)) * 1000) / 10;

function headRow(inputs) {
  return element("thead", {}, element("tr", {}, corner(), ...inputs.map((input) => header(input, "col"))));
}

// A <td> would count as a cell of the grid.
const corner = () => element("th", {}, element("span", { class: "visually-hidden" }, "Image"));

function header(input, scope, ...children) {
  const image = element("img", { alt: input.name, loading: "lazy" });
  image.onerror = () => image.replaceWith(element("span", { class: "heat-name" }, input.name));
  const cell = element("th", { scope, title: input.name }, image, ...children);
  input.show(image);
  return cell;
}

function row(i, { inputs, pair, lowest, on, size }) {
  const name = inputs[i].name;
  const attributes = { type: "button", class: "heat-remove", "aria-label": `Remove: ${name}` };
  const remove = size >= ROOM_FOR_BUTTON && removeButton(attributes, () => on.remove(i));
  return element("tr", {}, header(inputs[i], "row", remove), ...inputs.map((_, j) => cell(i, j, pair(i, j), lowest)));
}

const removeButton = (attributes, onclick) => element("button", { ...attributes, onclick }, icon("close"));

function cell(i, j, { cosine, similar }, lowest) {
  const made = element("td", { role: "gridcell", tabindex: i || j ? -1 : 0 }, cosine.toFixed(2));
  const strength = share(cosine, lowest);
  made.style.setProperty("--share", `${strength}%`);
  made.classList.toggle("strong", strength > CROSSING);
  made.classList.toggle("similar", similar);
  return made;
}

function listen(table, { inputs, pair, readout, on }) {
  const position = (target) => {
    const found = target.closest?.("td[role=gridcell]");
    return found && [found.parentElement.rowIndex - 1, found.cellIndex - 1];
  };
  const at = (i, j) => table.rows[i + 1]?.cells[j + 1];
  const describe = ([i, j]) => (readout.textContent = sentence(inputs[i].name, inputs[j].name, pair(i, j)));
  table.addEventListener("mouseover", ({ target }) => position(target) && describe(position(target)));
  table.addEventListener("focusin", ({ target }) => {
    if (position(target)) target.setAttribute("aria-label", describe(position(target)));
  });
  table.addEventListener("click", ({ target }) => {
    const place = position(target);
    if (!place) return;
    focusCell(table, at(...place));
    on.choose(...place);
  });
  table.addEventListener("keydown", (event) => {
    const place = position(event.target), by = STEPS[event.key];
    if (!place) return;
    if (by) focusCell(table, at(place[0] + by[0], place[1] + by[1]));
    else if (event.key === "Home") focusCell(table, at(place[0], 0));
    else if (event.key === "End") focusCell(table, at(place[0], inputs.length - 1));
    else if (event.key === "Enter" || event.key === " ") on.choose(...place);
    else if (event.key === "Delete") on.remove(place[0]);
    else return;
    event.preventDefault();
  });
}

// One cell is in the tab order: the one that had the focus last.
function focusCell(table, target) {
  if (target?.getAttribute("role") !== "gridcell") return;
  for (const cell of table.querySelectorAll("td[tabindex='0']")) cell.tabIndex = -1;
  target.tabIndex = 0;
  target.focus();
}

/** Describe a pair in words. */
export function sentence(a, b, { cosine, probability, similar }) {
  const likelihood = Number.isFinite(probability) ? `, probability ${percent(probability)}` : "";
  return `${a} and ${b}: ${similar ? "similar" : "not similar"}, cosine ${cosine.toFixed(3)}${likelihood}`;
}

function legend(lowest, threshold) {
  const mark = element("span", { class: "heat-mark" });
  mark.style.left = `${Math.min(100, Math.max(0, share(threshold, lowest)))}%`;
  return element("div", { class: "heat-legend" },
    element("span", {}, `cosine ${lowest.toFixed(1)}`), element("span", { class: "heat-scale" }, mark),
    element("span", {}, "1.0"), element("span", { class: "heat-key" }, `Similar: ${threshold.toFixed(2)} and above`),
  );
}
