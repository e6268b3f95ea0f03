// The comparison: two images side by side with their similarity, and a heat map of three to a hundred.

import * as api from "../api.js";
import { element, find, icon, stylesheet } from "../dom.js";
import { nameOf, percent } from "../grid.js";
import { heatMap } from "./heatmap.js";
import { refusal } from "../image_input.js";
import * as key from "../key.js";
import { loadPairs, pairOf } from "./pairs.js";
import { groupedOrder } from "./seriation.js";

const MAX_IMAGES = 100; // a request compares 10,000 pairs
let view;
let inputs = [];
let chosen = [];
let threshold; // distance up to which images are similar for this encoder, from the first pair
let pending = new AbortController();

/** Open the comparison of some records. */
export async function open(records) {
  await stylesheet("compare/compare.css");
  view ??= build();
  inputs = records.slice(0, MAX_IMAGES).map(itemInput);
  chosen = inputs.slice(0, 2);
  threshold = undefined;
  const ignored = records.length - inputs.length;
  view.note.textContent = ignored ? `At most ${MAX_IMAGES} images are compared. The last ${ignored} are left out.` : "";
  view.group.checked = false;
  view.map.replaceChildren();
  if (!view.dialog.open) view.dialog.showModal();
  await update();
}

const itemInput = (record) => inputOf({ id: record.id, name: nameOf(record), url: record.thumbnail_url });

const fileInput = (blob) => inputOf({ blob, name: blob.name || "image", url: URL.createObjectURL(blob) });

function inputOf({ url, ...input }) {
  const show = (image) => (url ? key.show(image, url) : image.dispatchEvent(new Event("error")));
  return { ...input, url, show };
}

function build() {
  const made = {
    note: element("p", { class: "compare-note", role: "status" }),
    pair: element("div", { class: "compare-pair" }),
    map: element("section", { "aria-label": "Heat map" }),
    group: element("input", { type: "checkbox", onchange: drawMap }),
    file: element("input", { type: "file", multiple: true, accept: find("file").accept }),
  };
  made.file.addEventListener("change", () => {
    const files = [...made.file.files];
    made.file.value = ""; // so that choosing the same file again fires `change`
    addFiles(files);
  });
  made.grouping = element("label", { class: "compare-group" }, made.group, "Group similar");
  const tools = element("div", { class: "compare-tools" },
    element("label", { class: "button compare-add" }, made.file, icon("add"), "Add image files"), made.grouping);
  const close = () => made.dialog.close();
  made.dialog = element("dialog", {
    class: "compare-dialog", "aria-labelledby": "compare-title", onclose: closed,
    onclick: ({ target }) => target === made.dialog && close(), // the backdrop
  },
  element("button", { class: "close", type: "button", "aria-label": "Close", onclick: close }, icon("close")),
  element("div", { class: "compare-body" },
    element("h2", { id: "compare-title" }, "Compare"), tools, made.note, made.pair, made.map));
  document.body.append(made.dialog);
  return made;
}

function closed() {
  pending.abort();
  for (const { blob, url } of inputs) if (blob) URL.revokeObjectURL(url);
  inputs = [];
}

function addFiles(files) {
  const reasons = files.map(refusal).filter(Boolean), images = files.filter((file) => !refusal(file));
  const room = MAX_IMAGES - inputs.length;
  const ignored = images.length - room;
  if (ignored > 0) reasons.push(`At most ${MAX_IMAGES} images are compared: ${ignored} of the files are left out.`);
  const added = images.slice(0, room).map(fileInput);
  inputs = [...inputs, ...added];
  if (added.length) chosen = [...chosen.slice(0, 1), ...added].slice(0, 2);
  view.note.textContent = reasons.join(" ");
  return update();
}

function remove(input) {
  inputs = inputs.filter((other) => other !== input);
  chosen = chosen.filter((other) => other !== input);
  chosen = [...chosen, ...inputs.filter((other) => !chosen.includes(other))].slice(0, 2);
  if (input.blob) URL.revokeObjectURL(input.url);
  view.note.textContent = "";
  return update();
}

async function update() {
  pending.abort();
  pending = new AbortController();
  const { signal } = pending;
  view.dialog.setAttribute("aria-busy", "true");
  try {
    showPair();
    await loadPairs(inputs, signal);
    threshold ??= inputs.length > 1 ? (await api.compare(...chosen, signal)).threshold : undefined;
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
  if (signal.aborted) return;
  view.dialog.setAttribute("aria-busy", "false");
  showPair("");
  drawMap();
}

// An image that can't be compared is left out, so that the others can.
function fail(error) {
  if (!error.input) return view.note.replaceChildren(element("strong", {}, "Not compared: "), error.message);
  remove(error.input);
  view.note.textContent = `${error.input.name} is left out: ${error.message}`;
}

function decided({ cosine, probability }) {
  const distance = Math.round((1 - cosine) * 1e6) / 1e6;
  return { cosine, probability, distance, similar: distance <= threshold };
}

function showPair(unknown = "Comparing …") {
  const [first, second] = [0, 1].map((i) => (chosen[i] ? slot(chosen[i]) : emptySlot()));
  view.pair.replaceChildren(first, verdict(unknown), second);
}

const emptySlot = () => element("div", { class: "compare-slot empty" }, "no image");

function slot(input) {
  const image = element("img", { alt: input.name });
  image.onerror = () => image.replaceWith(element("span", { class: "compare-missing" }, "no preview"));
  const attributes = { type: "button", class: "icon-button compare-remove", "aria-label": `Remove: ${input.name}` };
  const button = element("button", { ...attributes, onclick: () => removeAndFocus(input) }, icon("close"));
  const made = element("figure", { class: "compare-slot" }, image, element("figcaption", {}, input.name), button);
  input.show(image);
  return made;
}

function verdict(unknown) {
  const made = element("div", { class: "compare-verdict", role: "status" });
  if (chosen.length < 2) made.append("Add an image file, or select a second image in the results.");
  const pair = chosen.length === 2 && pairOf(...chosen);
  if (chosen.length === 2 && !(pair && threshold !== undefined)) made.append(unknown);
  if (!pair || threshold === undefined) return made;
  const { cosine, distance, similar, probability } = decided(pair);
  const facts = [
    ["cosine", cosine.toFixed(3)],
    ["distance", `${distance.toFixed(3)} ${similar ? "≤" : ">"} threshold ${threshold.toFixed(2)}`],
    ...(Number.isFinite(probability) ? [["probability", percent(probability)]] : []),
  ];
  made.append(
    element("strong", { class: similar ? "yes" : "no" }, similar ? "Similar" : "Not similar"),
    element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
  );
  return made;
}

function drawMap() {
  const isKnown = threshold !== undefined && inputs.every((a) => inputs.every((b) => pairOf(a, b)));
  view.grouping.hidden = !isKnown || inputs.length < 3;
  if (view.grouping.hidden) return view.map.replaceChildren();
  const cosine = (i, j) => pairOf(inputs[i], inputs[j]).cosine;
  const order = view.group.checked ? groupedOrder(inputs.length, cosine) : inputs.map((_, i) => i);
  const shown = order.map((i) => inputs[i]);
  view.map.replaceChildren(heatMap({
    inputs: shown,
    pair: (i, j) => decided(pairOf(shown[i], shown[j])),
    threshold: 1 - threshold,
    on: { choose: (i, j) => choose(shown[i], shown[j]), remove: (i) => removeAndFocus(shown[i]) },
    width: view.map.clientWidth,
  }));
}

function choose(...pair) {
  chosen = pair;
  showPair();
  view.pair.scrollIntoView({ block: "nearest" });
}

// The button that had the focus is gone; the next thing to do is near its place.
async function removeAndFocus(input) {
  const fromMap = view.map.contains(document.activeElement);
  await remove(input);
  ((fromMap && view.map.querySelector("[role=gridcell][tabindex='0']")) || view.file).focus();
}
