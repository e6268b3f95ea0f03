// The group of one column in the filters panel: its control, and whether items have a value at all.

import { indexOf, numberText } from "./conditions.js";
import { element } from "../dom.js";
import { rangeControl } from "./range_control.js";
import { valueControl } from "./value_control.js";

const TYPING_MS = 500;

const CONTROLS = {
  values: valueControl,
  number: rangeControl,
  time: rangeControl,
  prefix: prefixControl,
  exists: () => ({ tests: [], elements: [], show() {}, count() {} }),
};

/** Return the group of a column.
 *
 * `handlers`: `change(condition, tests, done)` when a condition is chosen, which replaces those with `tests`; `open()`
 * when its counts are needed; `more()` when more of its values are. */
export function fieldGroup(field, kind, total, open, handlers) {
  const change = (condition, done) => handlers.change(condition, tests, done);
  const control = CONTROLS[kind](field, change, handlers.more);
  const existence = field.count < total ? existsControl(field, total, change) : null;
  const tests = [...control.tests, ...(existence ? ["exists"] : [])];
  const mark = element("span", { class: "mark", hidden: true }, element("span", { class: "visually-hidden" }, "filtered"));
  const details = element("details", { class: "field", open, ontoggle: () => details.open && handlers.open() },
    element("summary", {}, element("bdi", { class: "name", title: field.name }, field.name), mark),
    ...control.elements.filter(Boolean), existence && existence.element);
  return {
    field: field.name,
    tests,
    element: details,
    isOpen: () => details.open,
    /** Show the column's condition in the state; open the group if it has one. */
    show(filters) {
      const condition = filters[indexOf(filters, field.name, tests)];
      control.show(condition);
      existence?.show(condition);
      if (condition && mark.hidden) details.open = true;
      mark.hidden = !condition;
    },
    /** Show counts under the other conditions: the column's facet, and the number of items that pass. */
    count(facet, passing) {
      control.count(facet);
      existence?.count(facet.count, passing);
    },
  };
}

function prefixControl(field, choose) {
  let timer = 0;
  const send = (done) => {
    clearTimeout(timer);
    timer = 0;
    choose(input.value ? { field: field.name, prefix: input.value } : null, done);
  };
  const input = element("input", {
    type: "search", class: "value-search", placeholder: "Starts with", "aria-label": `${field.name} starts with`,
    spellcheck: "false", title: field.values?.[0] ? `such as ${String(field.values[0].value)}` : null,
    oninput: () => { clearTimeout(timer); timer = setTimeout(send, TYPING_MS, false); },
    onchange: () => send(true),
  });
  return {
    tests: ["prefix"],
    elements: [input],
    show(condition) {
      if (!timer) input.value = condition?.prefix ?? ""; // not under the fingers of someone who types
    },
    count() {},
  };
}

function existsControl(field, total, choose) {
  const buttons = [true, false].map((exists) => element("button", {
    type: "button", "aria-pressed": "false",
    onclick: ({ currentTarget }) =>
      choose(currentTarget.getAttribute("aria-pressed") === "true" ? null : { field: field.name, exists }, true),
  }));
  const count = (present, passing) =>
    [`Any value ${numberText(present)}`, `No value ${numberText(passing - present)}`]
      .forEach((text, i) => { buttons[i].textContent = text; });
  count(field.count, total);
  return {
    element: element("div", { class: "exists", role: "group", "aria-label": `${field.name}: any value or none` }, ...buttons),
    show: (condition) =>
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(condition?.exists === !i))),
    count,
  };
}
