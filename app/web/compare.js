// The tray at the bottom: two images, from the grid or from files, and how alike the service says they are.

import * as api from "./api.js";
import * as key from "./key.js";
import { nameOf } from "./view.js";

const find = (id) => document.getElementById(id);
let sides = [];
let request = new AbortController();

const same = (side, record) => side.id !== undefined && side.id === record.id;

/** Whether an item is one of the two. */
export const chosen = (record) => sides.some((side) => same(side, record));

/** Puts an item in, or takes it out again; a third one takes the place of the second. */
export function toggle(record) {
  if (chosen(record)) set(sides.filter((side) => !same(side, record)));
  else set([...sides.slice(0, 1), { id: record.id, url: record.thumbnail_url, name: nameOf(record) }]);
}

/** Puts an image file in. */
export const add = (blob) =>
  set([...sides.slice(0, 1), { blob, url: URL.createObjectURL(blob), name: blob.name || "image" }]);

export const clear = () => set([]);

function set(next) {
  sides = next;
  find("compare").hidden = sides.length === 0;
  ["a", "b"].forEach((name, i) => showSlot(find(`slot-${name}`), sides[i]));
  for (const card of document.querySelectorAll(".card")) {
    card.querySelector(".pair").setAttribute("aria-pressed", chosen({ id: card.dataset.id }));
  }
  request.abort();
  request = new AbortController();
  if (sides.length === 2) judge(request.signal);
  else find("verdict").textContent = "Choose a second image, or upload one, to see how alike they are.";
}

function showSlot(slot, side) {
  slot.replaceChildren();
  slot.classList.toggle("empty", !side);
  if (!side) return;
  const image = document.createElement("img");
  image.alt = side.name;
  if (side.url) key.show(image, side.url);
  slot.append(image);
}

async function judge(signal) {
  const verdict = find("verdict");
  verdict.textContent = "Comparing …";
  try {
    const answer = await api.compare(sides[0], sides[1], signal);
    const strong = document.createElement("strong");
    strong.textContent = answer.similar ? "Similar" : "Not similar";
    const { cosine, distance, threshold, probability } = answer;
    const sign = answer.similar ? "≤" : ">";
    const odds = probability === null ? "" : ` · probability ${Math.round(probability * 100)} %`;
    verdict.replaceChildren(
      strong, ` cosine ${cosine.toFixed(3)} · distance ${distance.toFixed(3)} ${sign} threshold ${threshold.toFixed(2)}${odds}`,
    );
  } catch (error) {
    if (error.name !== "AbortError") verdict.textContent = error.message;
  }
}
