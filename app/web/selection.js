// The selected items, and the bar of what to do with them.

import { find } from "./dom.js";

const chosen = new Map(); // id -> record, in the order of selection
const listeners = new Set();

/** Return the selected records by id. */
export const selected = () => chosen;

/** Call `listener()` after each change. */
export const subscribe = (listener) => listeners.add(listener);

/** Select a record, or no longer. */
export function toggle(record) {
  if (!chosen.delete(record.id)) chosen.set(record.id, record);
  notify();
}

/** Select records in addition. */
export function select(records) {
  for (const record of records) chosen.set(record.id, record);
  notify();
}

/** Select some items no longer, such as deleted ones. */
export function remove(ids) {
  for (const id of ids) chosen.delete(id);
  notify();
}

/** Select nothing. */
export function clear() {
  chosen.clear();
  notify();
}

function notify() {
  find("selection").hidden = chosen.size === 0;
  find("selection-count").textContent = `${chosen.size.toLocaleString("en")} selected`;
  find("selection-compare").disabled = chosen.size < 2;
  for (const card of document.querySelectorAll(".card")) card.querySelector("input").checked = chosen.has(card.dataset.id);
  for (const listener of listeners) listener();
}

const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);

/** Save records as a CSV file: id, score, probability. */
export function download(records) {
  const rows = [["id", "score", "probability"], ...records.map(({ id, score, probability }) => [id, score ?? "", probability ?? ""])];
  const blob = new Blob([rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("")], { type: "text/csv" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = "ids.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
