// Filter of a column by its values: a list of checkboxes with counts, and a search box if there are many.

import { numberText, valueText } from "./conditions.js";
import { element } from "../dom.js";

const FEW = 10, MANY = 100;
export const MAX_SEARCHED = 1000;

/** Return the control of a column; `more()` is called when its less frequent values are needed. */
export function valueControl(field, choose, more) {
  const rows = new Map();
  let facet = field, chosen = [], expanded = false;

  const search = field.distinct > FEW && element("input", {
    type: "search", class: "value-search", placeholder: "Search values", "aria-label": `Search the values of ${field.name}`,
    oninput: () => { if (search.value && isCut(facet)) more(); draw(); },
  });
  const list = element("ul", { class: "values" });
  const note = element("p", { class: "hint", hidden: true });
  const toggle = element("button", { class: "link", type: "button", onclick: () => { expanded = !expanded; draw(); } });

  function draw() {
    const query = folded(search ? search.value.trim() : "");
    const matching = listed(facet, chosen).filter(({ value }) => !query || folded(valueName(value)).includes(query));
    const isChosen = ({ value }) => chosen.includes(value);
    const few = matching.filter((each, i) => i < FEW || isChosen(each));
    const shown = query || expanded ? matching.filter((each, i) => i < MANY || isChosen(each)) : few;
    keepFocus(list, () => list.replaceChildren(...shown.map((each) => row(each, isChosen(each)))));
    const others = Math.min(matching.length, MANY) - few.length;
    toggle.hidden = Boolean(query) || others <= 0;
    toggle.textContent = expanded ? "Show fewer" : `Show ${others} more`;
    toggle.setAttribute("aria-expanded", String(expanded));
    note.textContent = noteFor(query, matching.length);
    note.hidden = !note.textContent;
  }

  function noteFor(query, found) {
    if (query && !found) return isCut(facet) ? `Not among the ${MAX_SEARCHED} most frequent values.` : "No such value.";
    if (query) return found > MANY ? `${numberText(found)} values match; type more to see others.` : "";
    if (!found) return "No values under the other filters.";
    return expanded && facet.distinct > MANY ? `The first ${MANY} of ${numberText(facet.distinct)} values.` : "";
  }

  // Rows are kept, so that a checkbox keeps the focus while counts change.
  function row({ value, count }, checked) {
    if (!rows.has(value)) rows.set(value, newRow(value, (on) => pick(value, on)));
    const { item, box, number } = rows.get(value);
    box.checked = checked;
    number.textContent = count === undefined ? "" : numberText(count);
    item.classList.toggle("none", count === 0);
    return item;
  }

  function pick(value, on) {
    chosen = on ? [...chosen, value] : chosen.filter((each) => each !== value);
    choose(conditionOf(field.name, chosen), true);
  }

  draw();
  return {
    tests: ["in", "equals"],
    elements: [search, list, note, toggle],
    show(condition) {
      chosen = [condition?.in ?? condition?.equals ?? []].flat();
      draw();
    },
    count(counted) {
      facet = counted;
      draw();
    },
  };
}

const folded = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const isCut = ({ values, distinct }) => values.length < distinct;

function valueName(value) {
  return typeof value === "string" && value.trim() ? value : valueText(value);
}

function conditionOf(field, values) {
  if (!values.length) return null;
  return values.length === 1 ? { field, equals: values[0] } : { field, in: values };
}

/** Return the values that have counts, and those chosen that have none. */
function listed({ values, distinct }, chosen) {
  const counted = new Set(values.map(({ value }) => value));
  const count = values.length < distinct ? undefined : 0;
  return [...values, ...chosen.filter((value) => !counted.has(value)).map((value) => ({ value, count }))];
}

function newRow(value, onPick) {
  const name = valueName(value);
  const box = element("input", { type: "checkbox", onchange: () => onPick(box.checked) });
  const number = element("span", { class: "count" });
  const item = element("li", {}, element("label", {}, box, element("bdi", { class: "value", title: name }, name), number));
  return { item, box, number };
}

function keepFocus(list, change) {
  const focused = list.contains(document.activeElement) && document.activeElement;
  change();
  if (focused && list.contains(focused)) focused.focus({ preventScroll: true });
}
