// The comparison bar at the bottom: two images, from the grid or from files, and their similarity.

import * as api from "./api.js";
import * as key from "./key.js";
import { nameOf } from "./view.js";

const find = (id) => document.getElementById(id);
let inputs = [];
let request = new AbortController();

const same = (input, record) => input.id !== undefined && input.id === record.id;

/** Return whether an item is one of the two. */
export const chosen = (record) => inputs.some((input) => same(input, record));

/** Add an item, or remove it if it is one of the two; a third item replaces the second. */
export function toggle(record) {
  if (chosen(record)) set(inputs.filter((input) => !same(input, record)));
  else set([...inputs.slice(0, 1), { id: record.id, url: record.thumbnail_url, name: nameOf(record) }]);
}

/** Add an image file. */
export const add = (blob) =>
  set([...inputs.slice(0, 1), { blob, url: URL.createObjectURL(blob), name: blob.name || "image" }]);

export const clear = () => set([]);

function set(next) {
  inputs = next;
  find("compare").hidden = inputs.length === 0;
  ["a", "b"].forEach((name, i) => showSlot(find(`slot-${name}`), inputs[i]));
  for (const card of document.querySelectorAll(".card")) {
    card.querySelector(".pair").setAttribute("aria-pressed", chosen({ id: card.dataset.id }));
  }
  request.abort();
  request = new AbortController();
  if (inputs.length === 2) requestVerdict(request.signal);
  else find("verdict").textContent = "Choose or upload a second image to compare.";
}

function showSlot(slot, input) {
  slot.replaceChildren();
  slot.classList.toggle("empty", !input);
  if (!input) return;
  const image = document.createElement("img");
  image.alt = input.name;
  image.onerror = () => image.replaceWith(input.name); // of a format that the browser can't show
  slot.append(input.url ? image : input.name);
  if (input.url) key.show(image, input.url);
}

async function requestVerdict(signal) {
  const verdict = find("verdict");
  verdict.textContent = "Comparing …";
  try {
    const response = await api.compare(inputs[0], inputs[1], signal);
    const strong = document.createElement("strong");
    strong.textContent = response.similar ? "Similar" : "Not similar";
    const { cosine, distance, threshold, probability } = response;
    const relation = response.similar ? "≤" : ">";
    const likelihood = probability === null ? "" : ` · probability ${Math.round(probability * 100)} %`;
    verdict.replaceChildren(
      strong, ` cosine ${cosine.toFixed(3)} · distance ${distance.toFixed(3)} ${relation} threshold ${threshold.toFixed(2)}${likelihood}`,
    );
  } catch (error) {
    if (error.name !== "AbortError") verdict.textContent = error.message;
  }
}
