// The detail view: one image, large, with its metadata and similar images. The state's `item` is the id that it shows.

import * as api from "../api.js";
import { element, icon, stylesheet } from "../dom.js";
import { nameOf, percent } from "../grid.js";
import { itemActions } from "./item_actions.js";
import * as key from "../key.js";
import { metadataList } from "./metadata.js";
import { more, recordOf, results, subscribe } from "../results.js";
import * as state from "../state.js";

const SIMILAR = 12;
const STATUS_MS = 4000;
let view;
let pending = new AbortController();
let shownId = "";

/** Show an item. */
export async function show(id) {
  shownId = id;
  await stylesheet("details/details.css");
  if (shownId !== id) return; // closed or moved on while the stylesheet was loading
  view ??= build();
  pending.abort();
  pending = new AbortController();
  view.similar.replaceChildren();
  view.slot.replaceChildren();
  showSteps(id);
  const known = recordOf(id);
  if (known) render(known);
  else renderWait();
  if (!view.dialog.open) view.dialog.showModal();
  await complete(id, known, pending.signal);
}

/** Close the view; the focus returns to the card of the item that it showed. */
export function hide() {
  const id = shownId;
  shownId = "";
  pending.abort();
  if (!view?.dialog.open) return;
  view.dialog.close();
  view.image.replaceChildren();
  const card = [...document.querySelectorAll(".card")].find(({ dataset }) => dataset.id === id);
  card?.querySelector("a, button")?.focus();
}

// `replace`: the back button leads to the page before, not into the view that was just closed.
const close = () => state.change({ item: "" }, { replace: true });

function build() {
  const made = {
    image: element("div", { class: "details-image" }),
    title: element("h2", { id: "details-title" }),
    match: element("p", { class: "details-match" }),
    problem: element("div", { class: "problem", role: "alert", hidden: true }),
    buttons: element("div", { class: "details-buttons" }),
    slot: element("div", { id: "details-actions" }),
    status: element("p", { class: "details-status", role: "status" }),
    list: element("div"),
    similar: element("section", { class: "details-similar", "aria-labelledby": "details-similar-title" }),
    previous: step("Previous image", "left", -1),
    next: step("Next image", "right", 1),
  };
  const { title, match, problem, buttons, slot, status, list, similar } = made;
  const closeButton = element(
    "button", { class: "close", type: "button", "aria-label": "Close", onclick: close }, icon("close"),
  );
  const stage = element("div", { class: "details-stage" }, made.image, made.previous, made.next);
  const facts = element(
    "div", { class: "details-facts" }, title, match, problem, buttons, slot, status, list,
  );
  made.dialog = element("dialog", {
    id: "item-details", class: "item-details", "aria-labelledby": "details-title", onkeydown: onKey,
    oncancel: (event) => (event.preventDefault(), close()),
    onclose: () => shownId && !made.dialog.open && close(), // Chromium closes at a second Escape without asking
    onclick: ({ target }) => target === made.dialog && close(), // the backdrop
  }, closeButton, element("div", { class: "details-body" }, stage, facts, similar));
  document.body.append(made.dialog);
  subscribe(showPlace);
  return made;
}

function step(label, name, by) {
  const attributes = { type: "button", class: `details-step ${name}`, "aria-label": label, title: label };
  return element("button", { ...attributes, onclick: () => move(by) }, icon(name));
}

function onKey(event) {
  if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  move(by);
}

function neighbor(id, by) {
  const records = results(), position = records.findIndex((record) => record.id === id);
  return position < 0 ? undefined : records[position + by];
}

async function move(by) {
  const id = shownId;
  if (by > 0 && !neighbor(id, by)) await more(); // the next page of results, if there is one
  if (shownId !== id) return;
  showSteps(id);
  const record = neighbor(id, by);
  if (record) state.change({ item: record.id }, { replace: true });
}

// A link to an item opens it before its results have arrived.
function showPlace() {
  const record = shownId && recordOf(shownId);
  if (!record || !view.dialog.open) return;
  showSteps(shownId);
  view.match.textContent = matchOf(record);
}

// Not `disabled`: a button that loses the focus at the last image would drop it.
function showSteps(id) {
  const isResult = results().some((record) => record.id === id);
  for (const [button, by] of [[view.previous, -1], [view.next, 1]]) {
    button.hidden = !isResult;
    button.setAttribute("aria-disabled", !neighbor(id, by));
  }
}

// The record of a result may lack columns, and may have been deleted since: the item itself has the last word.
async function complete(id, known, signal) {
  try {
    const item = await api.item(id, signal), record = { ...known, ...recordOf(id), ...item };
    if (signal.aborted) return;
    render(record);
    document.dispatchEvent(new CustomEvent("details", { detail: { record, slot: view.slot } }));
    const found = await api.search({ query: { id }, limit: SIMILAR + 1 }, signal);
    showSimilar(found.results.filter((other) => other.id !== id));
  } catch (error) {
    if (!signal.aborted) showProblem(id, error);
  }
}

function showProblem(id, { code, title, message }) {
  const isUnknown = code === "unknown_item";
  if (isUnknown) {
    for (const part of [view.buttons, view.list]) part.replaceChildren();
    view.image.replaceChildren(element("p", { class: "details-missing" }, "No image"));
    view.title.textContent = "This image is no longer in the collection";
    view.match.textContent = "";
  } else if (!recordOf(id)) view.title.textContent = "This image can't be shown";
  const unknown = `No item has the id “${id}”. It may have been deleted, or the link is from another collection.`;
  view.problem.replaceChildren(
    element("strong", {}, isUnknown ? "Unknown item" : title ?? "Something went wrong"),
    element("p", {}, isUnknown ? unknown : message),
  );
  view.problem.hidden = false;
}

function renderWait() {
  view.title.textContent = "Loading …";
  view.match.textContent = "";
  view.problem.hidden = true;
  for (const part of [view.image, view.buttons, view.list]) part.replaceChildren();
}

function render(record) {
  view.problem.hidden = true;
  view.title.textContent = nameOf(record);
  view.match.textContent = matchOf(record);
  showImage(record);
  showButtons(record);
  view.list.replaceChildren(metadataList(record));
}

// Buttons that are the same stay: one of them may have the focus.
function showButtons(record) {
  const key = JSON.stringify([record.id, record.original_url]);
  if (view.buttons.dataset.key === key && view.buttons.children.length) return;
  view.buttons.dataset.key = key;
  view.buttons.replaceChildren(...itemActions(record, say));
}

function matchOf({ score, probability }) {
  const parts = [];
  if (Number.isFinite(probability)) parts.push(`Probability of a match ${percent(probability)}`);
  if (Number.isFinite(score)) parts.push(`score ${score.toFixed(4)}`);
  return parts.join(" · ");
}

// The thumbnail is shown at once; the original replaces it once it has loaded, if the browser can show it.
function showImage(record) {
  const shown = view.image.querySelector("img");
  if (shown?.dataset.id !== record.id) showThumbnail(record);
  if (!record.original_url || view.image.dataset.original === record.original_url) return;
  view.image.dataset.original = record.original_url;
  const full = element("img", { alt: nameOf(record), "data-id": record.id });
  full.onload = () => shownId === record.id && view.image.replaceChildren(full);
  key.show(full, record.original_url);
}

function showThumbnail(record) {
  const { width, height } = record.metadata;
  const name = nameOf(record), image = element("img", { alt: name, "data-id": record.id, width, height });
  const missing = () =>
    view.image.replaceChildren(element("p", { class: "details-missing" }, `${name} has no preview.`));
  delete view.image.dataset.original;
  image.onerror = () => image.isConnected && missing();
  if (!record.thumbnail_url) return missing();
  view.image.replaceChildren(image);
  key.show(image, record.thumbnail_url);
}

let statusTimer;

function say(text) {
  view.status.textContent = text;
  clearTimeout(statusTimer);
  statusTimer = setTimeout(() => (view.status.textContent = ""), STATUS_MS);
}

function showSimilar(records) {
  if (!records.length) return view.similar.replaceChildren();
  const title = element("h3", { id: "details-similar-title" }, "Similar images");
  view.similar.replaceChildren(title, element("ol", {}, ...records.map(similarItem)));
}

function similarItem({ id, thumbnail_url: url, ...record }) {
  const name = nameOf({ id, ...record }), image = element("img", { alt: "", loading: "lazy" });
  const open = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    state.change({ item: id });
  };
  if (url) key.show(image, url);
  const attributes = { href: state.urlWith({ item: id }), title: name, "aria-label": `Details: ${name}` };
  return element("li", {}, element("a", { ...attributes, onclick: open }, url ? image : name));
}
