// The search box: chips for the parts of the query, each with its weight, and a field for text.
// The last text with weight 1 is edited in the field; every other part is a chip.

import * as api from "./api.js";
import { element, find, icon } from "./dom.js";
import { LESS, nameOf, showImage } from "./grid.js";
import { blobOf } from "./query.js";
import { recordOf } from "./results.js";
import * as state from "./state.js";

const WAIT_MS = 250;
let adding = false; // the field is for a further text, and the last text is a chip

const inField = (parts) => (adding ? -1 : parts.findLastIndex(({ kind, weight }) => kind === "text" && weight === 1));

/** Show the parts of the state. */
export function show({ parts }) {
  const text = inField(parts);
  find("query").value = parts[text]?.value ?? "";
  const chips = parts.flatMap((part, index) => (index === text ? [] : [chipOf(part, index)]));
  find("chips").replaceChildren(...chips);
  find("query").placeholder = parts.length ? "and …" : "a cat on a sofa";
}

/** Search by the text in the field, with the other parts. "-people" moves away from "people". */
export function submit({ another = false } = {}) {
  const { parts } = state.current(), text = find("query").value.trim(), edited = inField(parts);
  const kept = parts.filter((_, index) => index !== edited);
  const part = text && partOf(text);
  adding = another || part.weight < 0;
  if (!part) {
    find("query").focus();
    return edited >= 0 && change(kept);
  }
  const next = edited < 0 ? [...kept, part] : parts.with(edited, part);
  if (JSON.stringify(next) === JSON.stringify(parts)) show(state.current());
  else change(next);
}

function partOf(text) {
  const negative = /^[-−]\s*(\S.*)$/u.exec(text);
  return negative ? { kind: "text", value: negative[1], weight: LESS } : { kind: "text", value: text, weight: 1 };
}

const change = (parts, options) => state.change({ parts, item: "" }, options);

/** Make the text in the field a chip, and go on with another text. */
export function addAnother() {
  if (find("query").value.trim()) submit({ another: true });
  find("query").focus();
}

/** Edit the last text in the field again, as after opening a URL. */
export const reset = () => (adding = false);

function chipOf(part, index) {
  const name = element("span", { class: "chip-text" }, part.kind === "text" ? part.value : "");
  const image = part.kind === "text" ? null : element("img", { class: "chip-image", alt: "", hidden: true });
  const chip = element("li", { class: "chip", "data-kind": part.kind }, image, name, weightOf(part, index));
  chip.classList.toggle("negative", part.weight < 0);
  const remove = element("button", { type: "button", "aria-label": "Remove", onclick: () => removePart(index) }, icon("close"));
  chip.append(remove);
  describe(part, image, (text) => {
    name.textContent = name.title = text;
    remove.setAttribute("aria-label", `Remove ${text} from the search`);
    chip.querySelector("summary").setAttribute("aria-label", `Weight of ${text}: ${part.weight}`);
    chip.querySelector("input").setAttribute("aria-label", `Weight of ${text}`);
  });
  return chip;
}

function removePart(index) {
  adding = false;
  change(state.current().parts.filter((_, other) => other !== index));
  find("query").focus();
}

async function describe({ kind, value }, image, label) {
  if (kind === "text") return label(value);
  label({ item: "Like this", image: "Your image", sketch: "Your drawing" }[kind]);
  image.addEventListener("load", () => (image.hidden = false)); // an image that the browser can't show is its name alone
  if (kind === "item") {
    const record = recordOf(value) ?? (await api.item(value).catch(() => null)); // the search itself reports errors
    if (!record) return;
    label(nameOf(record));
    if (record.thumbnail_url) showImage(image, record.thumbnail_url, "");
  } else if (kind === "image") {
    const kept = state.kept(value);
    if (kept) {
      label(kept.blob.name || "Your image");
      image.src = kept.url;
    }
  } else {
    image.src = URL.createObjectURL(await blobOf(kind, value));
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  }
}

function weightOf({ weight }, index) {
  const number = element("summary", {}, String(weight));
  const slider = element("input", { type: "range", min: -1, max: 1, step: 0.1, value: weight });
  let timer;
  slider.addEventListener("input", () => {
    number.textContent = slider.value;
    clearTimeout(timer);
    timer = setTimeout(() => setWeight(index, Number(slider.value)), WAIT_MS);
  });
  const details = element("details", { class: "weight" }, number, element("div", { class: "weight-slider" }, slider));
  details.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !details.open) return;
    event.preventDefault(); // it would clear the selection too
    details.open = false;
    number.focus();
  });
  return details;
}

function setWeight(index, weight) {
  const { parts } = state.current();
  adding = true; // the chip stays a chip although its weight is 1
  change(parts.with(index, { ...parts[index], weight }));
  const details = find("chips").children[index]?.querySelector("details");
  if (!details) return;
  details.open = true;
  details.querySelector("input").focus();
}

/** Close the sliders of weights, but for the one with the focus. */
export function closeWeights(target) {
  for (const details of find("chips").querySelectorAll("details[open]")) if (!details.contains(target)) details.open = false;
}
