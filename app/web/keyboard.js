// The keyboard: arrows move between images, Space selects, Shift extends the selection, / goes to the search box.

import { find } from "./dom.js";
import { recordOf, results } from "./results.js";
import * as selection from "./selection.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const FIELDS = "input:not([type=checkbox]), select, textarea, canvas";
let anchor = ""; // id of the item from which Shift selects

const idOf = (link) => link.closest(".card").dataset.id;

/** Select the items from the last one to this one, in the order of the results. */
export function selectTo(id) {
  const order = results(), indexes = [anchor || id, id].map((each) => order.findIndex((record) => record.id === each));
  const [from, to] = indexes.sort((a, b) => a - b);
  if (from >= 0) selection.select(order.slice(from, to + 1));
}

/** Select an item or no longer; Shift selects from it. */
export function toggle(id) {
  anchor = id;
  selection.toggle(recordOf(id));
}

/** Listen for keys. */
export function listen() {
  find("grid").addEventListener("keydown", moveOrSelect);
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") selection.clear();
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest(FIELDS)) return;
    event.preventDefault();
    find("query").select();
  });
}

function moveOrSelect(event) {
  const link = event.target.closest(".image");
  if (!link || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " ") {
    event.preventDefault();
    return event.shiftKey ? selectTo(idOf(link)) : toggle(idOf(link));
  }
  const step = STEPS[event.key];
  if (!step) return;
  const links = [...find("grid").querySelectorAll(".image")];
  const target = step[0] ? links[links.indexOf(link) + step[0]] : nearestInNextRow(link, links, step[1]);
  if (!target) return;
  event.preventDefault();
  if (!event.shiftKey) anchor = idOf(target);
  else {
    anchor ||= idOf(link);
    selectTo(idOf(target));
  }
  target.focus();
}

function nearestInNextRow(link, links, direction) {
  const box = (element) => element.getBoundingClientRect();
  const from = box(link), center = from.left + from.width / 2;
  const beyond = links.filter((other) => (box(other).top - from.top) * direction > 8);
  const row = beyond.length && Math.min(...beyond.map((other) => Math.abs(box(other).top - from.top)));
  return beyond
    .filter((other) => Math.abs(Math.abs(box(other).top - from.top) - row) < 8)
    .sort((a, b) => Math.abs(box(a).left + box(a).width / 2 - center) - Math.abs(box(b).left + box(b).width / 2 - center))[0];
}
