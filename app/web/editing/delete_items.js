// Deleting items: they disappear at once, and are deleted when the message that offers to undo it closes.

import * as api from "../api.js";
import * as collections from "../collections.js";
import { element, find, icon, toast } from "../dom.js";
import * as results from "../results.js";
import * as selection from "../selection.js";
import * as state from "../state.js";

const MAX_ITEMS = 10_000;
const CHUNK = 1_000; // operations of a batch
const MAX_KEEPALIVE_BYTES = 60_000; // of the requests that browsers send although the page is left: 64 KiB, less the rest

const waiting = new Set(); // deletions that may still be undone, the latest last

const images = (count) => (count === 1 ? "1 image" : `${count.toLocaleString("en")} images`);
const operationsOf = (ids) => ids.map((id) => ({ op: "delete", id }));
const bytesOf = (ids) => new Blob([JSON.stringify(operationsOf(ids))]).size;

/** Delete items once the time to undo it is over. */
export function deleteItems(ids) {
  if (ids.length > MAX_ITEMS) {
    return toast(`${images(ids.length)} are selected. Select at most ${MAX_ITEMS.toLocaleString("en")} to delete them at once.`);
  }
  const deletion = { ids, base: api.prefix(), ...results.remove(ids) };
  selection.remove(ids);
  waiting.add(deletion);
  const undo = () => {
    if (!waiting.delete(deletion)) return;
    deletion.restore(ids);
    focusCard(({ dataset }) => dataset.id === ids[0]);
  };
  deletion.close = toast(`${images(ids.length)} deleted.`, { label: "Undo", run: undo, onclose: () => send(deletion) });
  deletion.undo = undo;
  return undefined;
}

/** Delete the item of a card, or the selected items if it is one of them, and go on to the next card. */
export function deleteCard(card) {
  const { id } = card.dataset, position = [...document.querySelectorAll(".card")].indexOf(card);
  const chosen = selection.selected();
  deleteItems(chosen.has(id) ? [...chosen.keys()] : [id]);
  focusPosition(position);
}

/** Delete the item of the detail view, which is closed. */
export function deleteShown(id, dialog) {
  const position = [...document.querySelectorAll(".card")].findIndex(({ dataset }) => dataset.id === id);
  deleteItems([id]);
  dialog?.addEventListener("close", () => focusPosition(position), { once: true });
  state.change({ item: "" }, { replace: true });
}

function focusPosition(position) {
  const cards = document.querySelectorAll(".card");
  cards[Math.min(Math.max(0, position), cards.length - 1)]?.querySelector(".image").focus();
}

function focusCard(test) {
  [...document.querySelectorAll(".card")].find(test)?.querySelector(".image").focus();
}

async function send(deletion, { leaving = false } = {}) {
  if (!waiting.delete(deletion)) return;
  const { ids } = deletion;
  for (let start = 0; start < ids.length; start += CHUNK) {
    const sent = sendSome(deletion, ids.slice(start, start + CHUNK), leaving);
    if (!leaving) await sent; // a page that is left must send all at once
  }
  if (!leaving) collections.load(); // their numbers of images
}

async function sendSome({ base, restore, settle }, ids, leaving) {
  const keepalive = bytesOf(ids) <= MAX_KEEPALIVE_BYTES;
  try {
    const { results: outcomes } = await api.write(operationsOf(ids), { base, keepalive, retry: !leaving });
    const isGone = ({ result, code }) => result === "deleted" || code === "unknown_item"; // deleted by somebody else
    const failed = ids.filter((_, index) => !isGone(outcomes[index]));
    settle(ids.filter((_, index) => isGone(outcomes[index])));
    if (!failed.length) return;
    restore(failed);
    toast(`${images(failed.length)} not deleted: ${outcomes.find((outcome) => !isGone(outcome)).detail}`);
  } catch (error) {
    restore(ids);
    toast(`${images(ids.length)} not deleted: ${error.message}`);
  }
}

// The message closes, too, which finds nothing left to send.
function sendAll(options) {
  for (const deletion of [...waiting]) {
    send(deletion, options);
    deletion.close();
  }
}

function undoLatest(event) {
  if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
  const latest = [...waiting].at(-1);
  if (!latest || event.target.closest("input:not([type=checkbox]), textarea, select, dialog")) return;
  event.preventDefault();
  latest.undo();
  latest.close();
}

/** Add the selection's button, and send deletions when the page or the collection is left. */
export function listen() {
  const button = element("button", {
    type: "button", class: "button danger", onclick: () => deleteItems([...selection.selected().keys()]),
  }, icon("trash"), "Delete");
  find("selection-actions").append(button);
  state.subscribe((current, previous) => {
    if (current.collection === previous.collection) return;
    sendAll();
    button.hidden = !collections.facts()?.writable;
  });
  addEventListener("pagehide", () => sendAll({ leaving: true }));
  addEventListener("beforeunload", (event) => {
    const large = [...waiting].filter(({ ids }) => bytesOf(ids) > MAX_KEEPALIVE_BYTES);
    if (!large.length) return;
    event.preventDefault(); // while the browser asks, they are sent
    sendAll();
  });
  addEventListener("keydown", undoLatest);
}
