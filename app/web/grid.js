// The grid of results: cards, in rows of equal height, or in sections by group.

import { element, find } from "./dom.js";
import * as key from "./key.js";
import * as selection from "./selection.js";
import * as state from "./state.js";

const MIN_RATIO = 0.75, MAX_RATIO = 2.4;
export const LESS = -0.5;

/** Return an image's display name: its caption, title or file name. */
export const nameOf = (record) =>
  String(record.metadata.caption || record.metadata.title || record.id.split("/").at(-1) || record.id);

/** Return the parts of the query with an item added by a weight. */
export const withItem = (id, weight) => [
  ...state.current().parts.filter(({ kind, value }) => kind !== "item" || value !== id),
  { kind: "item", value: id, weight },
];

/** Remove all cards. */
export const clear = () => find("grid").replaceChildren();

/** Add cards, in sections by the records' group if the results are grouped. */
export function append(records) {
  const grouped = state.current().group !== "" && records.some((record) => "group" in record);
  for (const record of records) (grouped ? section(record.group) : section()).append(card(record));
}

/** Remove the cards of some ids, and sections that are empty then. */
export function remove(ids) {
  for (const shown of find("grid").querySelectorAll(".card")) if (ids.has(shown.dataset.id)) shown.remove();
  for (const list of find("grid").querySelectorAll("section:not(:has(.card))")) list.remove();
}

/** Show a card again, with what has changed. */
export function refresh(record) {
  for (const shown of find("grid").querySelectorAll(".card")) {
    if (shown.dataset.id === record.id) shown.replaceWith(card(record));
  }
}

function section(group) {
  const name = group === undefined ? "" : JSON.stringify(group);
  const found = [...find("grid").children].find((child) => child.dataset.group === name);
  if (found) return found.querySelector("ol");
  const list = element("ol", { class: "grid" });
  const made = element("section", { "data-group": name }, group === undefined ? null : heading(group), list);
  find("grid").append(made);
  return list;
}

function heading(group) {
  const { filters, group: field } = state.current();
  if (group === null) return element("h2", { class: "group" }, `no ${field}`);
  const condition = { field, equals: group };
  const href = state.urlWith({ filters: [...filters, condition], group: "" });
  return element("h2", { class: "group" }, String(group), element("a", { href, "aria-label": `Only ${field} ${group}` }, "Only these"));
}

function card(record) {
  const made = find("card").content.cloneNode(true).firstElementChild;
  const part = (name) => made.querySelector(name), name = nameOf(record);
  const links = [
    [".image", { item: record.id }, name],
    [".like", { parts: withItem(record.id, 1) }, `More like this: ${name}`],
    [".unlike", { parts: withItem(record.id, LESS) }, `Less like this: ${name}`],
  ];
  for (const [link, changes, label] of links) {
    part(link).href = state.urlWith(changes);
    part(link).setAttribute("aria-label", label);
  }
  made.dataset.id = record.id;
  made.style.setProperty("--ratio", ratio(record.metadata));
  showImage(part("img"), record.thumbnail_url, name);
  part(".caption").textContent = part(".caption").title = name;
  showScore(made, record);
  showDuplicates(part(".duplicates"), record, name);
  part("input").setAttribute("aria-label", `Select: ${name}`);
  part("input").checked = selection.selected().has(record.id);
  return made;
}

function ratio({ width, height }) {
  return width > 0 && height > 0 ? Math.min(MAX_RATIO, Math.max(MIN_RATIO, width / height)) : 1;
}

/** Show an image, or its name if there is none. */
export function showImage(image, url, name) {
  image.alt = name;
  image.onerror = () => image.classList.add("missing");
  image.classList.toggle("missing", !url);
  if (url) key.show(image, url);
  else image.removeAttribute("src");
}

// The bar and the number are the probability. Without one there is no bar: a score alone does not say whether it is high.
function showScore(made, { score, probability = null }) {
  const line = made.querySelector(".score"), number = line.querySelector(".number");
  if (score === undefined) return line.remove();
  line.title = `Cosine similarity ${score.toFixed(4)}`;
  number.textContent = score.toFixed(3);
  if (probability === null) return line.querySelector(".track").remove();
  line.title = `Probability of a match ${percent(probability)}. ${line.title}`;
  number.textContent = percent(probability);
  line.querySelector(".fill").style.width = `${probability * 100}%`;
}

/** Return a share as text: "83 %". */
export const percent = (share) => `${Math.round(share * 100)} %`;

function showDuplicates(link, { duplicates = 0 }, name) {
  if (!duplicates) return link.remove();
  link.href = state.urlWith({ duplicates: true });
  link.textContent = `+${duplicates}`;
  link.title = "Show the near-duplicates that are hidden";
  link.setAttribute("aria-label", `Show near-duplicates, ${duplicates} of ${name}`);
}
