// The filters of the state, as chips that can be removed.

import { element, find, icon } from "./dom.js";
import * as state from "./state.js";

let conditions;

/** Show a chip for each filter. */
export async function show({ filters, lasso, group, duplicates }) {
  if (filters.length) conditions ??= await import("./filters/conditions.js");
  if (state.current().filters !== filters) return; // the state changed while the module was loaded
  const chips = filters.map((condition, index) => chip(conditions.label(condition), { filters: conditions.without(filters, index) }));
  if (lasso) chips.push(chip("inside the lasso", { lasso: "" }));
  if (group) chips.push(chip(`grouped by ${group}`, { group: "" }));
  if (duplicates) chips.push(chip("with near-duplicates", { duplicates: false }));
  find("filter-chips").replaceChildren(...chips);
}

const chip = (text, changes) =>
  element("li", { class: "chip" }, element("span", { class: "chip-text", title: text }, text),
    element("button", { type: "button", "aria-label": `Remove the filter: ${text}`, onclick: () => state.change(changes) }, icon("close")));
