// Editing a writable collection: the buttons of the detail view, and the form of an item's metadata.

import * as api from "../api.js";
import * as collections from "../collections.js";
import { deleteCard, deleteShown, listen as listenToDeletions } from "./delete_items.js";
import { element, find, icon, stylesheet } from "../dom.js";
import * as results from "../results.js";
import * as state from "../state.js";
import { isEditable, newField, row } from "./edit_fields.js";

let listening = false;
let opened = null; // the form that is shown
let edited = ""; // id of the item whose form was saved: its button gets the focus back

/** Add the controls; called once a writable collection is shown. */
export function listen() {
  if (listening) return;
  listening = true;
  stylesheet("editing/editing.css");
  document.addEventListener("details", ({ detail: { record, slot } }) => fill(record.id, slot));
  document.addEventListener("keydown", deleteByKey);
  for (const name of ["keydown", "click"]) document.addEventListener(name, keepForm, { capture: true });
  listenToDeletions();
  const { item } = state.current(), slot = find("details-actions");
  if (item && slot && !slot.children.length) fill(item, slot); // it was opened before this module was loaded
}

const isWritable = () => Boolean(collections.facts()?.writable);

function fill(id, slot) {
  if (!isWritable()) return;
  const edit = element("button", { type: "button", class: "button", onclick: () => openForm(id, slot) }, icon("edit"), "Edit");
  const erase = element("button", { type: "button", class: "button danger", onclick: () => deleteShown(id, slot.closest("dialog")) }, icon("trash"), "Delete");
  slot.replaceChildren(edit, erase, element("p", { class: "edit-problem", role: "alert" }));
  if (edited === id) edit.focus();
  edited = "";
}

function deleteByKey(event) {
  if (event.key !== "Delete" || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || !isWritable()) return;
  if (event.target.closest("input:not([type=checkbox]), textarea, select")) return;
  const dialog = document.querySelector("dialog[open]"), card = event.target.closest(".card");
  if (dialog && dialog.querySelector("#details-actions > .danger")) deleteShown(state.current().item, dialog);
  else if (!dialog && card) deleteCard(card);
}

async function openForm(id, slot) {
  const problem = slot.querySelector(".edit-problem");
  try {
    const [item, { fields }] = await Promise.all([api.taggedItem(id), api.fields()]);
    if (state.current().item === id && slot.contains(problem)) showForm(item, fields, slot);
  } catch (error) {
    problem.textContent = error.message;
  }
}

function showForm(item, fields, slot) {
  const editable = fields.filter((field, _, all) => isEditable(field, all));
  const withValue = ({ name }) => item.metadata[name] !== undefined && item.metadata[name] !== null;
  const ordered = [...editable.filter(withValue), ...editable.filter((field) => !withValue(field))];
  const rows = ordered.map((field) => row(field, item.metadata[field.name]));
  const added = newField(), message = element("p", { class: "edit-problem", role: "alert" });
  const cancel = () => {
    fill(item.id, slot);
    slot.querySelector("button").focus();
  };
  const buttons = element("div", { class: "add-buttons" },
    element("button", { class: "button primary" }, "Save"),
    element("button", { type: "button", class: "button", onclick: cancel }, "Cancel"));
  const form = { item, rows, added, message, slot, cancel, base: api.prefix(), saving: false };
  const shown = element("form", { class: "edit-form", "aria-label": "Metadata", onsubmit: (event) => submit(event, form) },
    element("p", { class: "edit-hint" }, "An empty field has no value. Lists have one value a line."),
    ...rows.map(({ line }) => line), added.fieldset, message, buttons);
  opened = { ...form, shown };
  slot.replaceChildren(shown);
  (rows[0]?.input ?? shown.querySelector("input")).focus();
}

// Escape and a click beside the detail view would close it, and lose what was entered.
function keepForm(event) {
  const dialog = opened?.shown.isConnected && opened.shown.closest("dialog");
  const leaves = event.type === "click" ? event.target === dialog : event.key === "Escape" && event.target.closest("dialog") === dialog;
  if (!dialog || !leaves) return;
  event.preventDefault();
  event.stopPropagation();
  if (Object.keys(changes(opened)).length) opened.message.textContent = "There are changes. Press Save or Cancel.";
  else opened.cancel();
}

// Return the values that differ from the item's; with `strict`, an input that has no value raises an error.
function changes({ rows, added }, strict = false) {
  const changed = rows.filter((each) => each.isChanged());
  const values = Object.fromEntries(changed.map((each) => [each.name, strict ? each.value() : null]));
  if (!added.name()) {
    if (strict && added.isFilled()) added.problem("Give the new field a name.");
    return values;
  }
  return { ...values, [added.name()]: strict ? added.value() : null };
}

async function submit(event, form) {
  event.preventDefault();
  const { item, message, rows, added, slot, base } = form;
  if (form.saving) return;
  for (const each of [...rows, added]) each.show("");
  message.textContent = "";
  try {
    const metadata = changes(form, true);
    if (rows.some(({ name }) => name === added.name())) added.problem(`There is a field ${added.name()} above.`);
    if (!Object.keys(metadata).length) {
      message.textContent = "Nothing has changed.";
      return;
    }
    form.saving = true;
    const [outcome] = (await api.write([{ op: "patch", id: item.id, metadata, if_match: item.etag }], { base })).results;
    if (!outcome.result) throw new api.Problem(outcome.status, outcome);
    await saved(item.id, slot);
  } catch (error) {
    if (error.status === 412) await merge(form);
    else showProblem(error, form);
  } finally {
    form.saving = false;
  }
}

async function saved(id, slot) {
  if (!slot.querySelector(".edit-form")) return; // the view has moved on
  edited = id;
  const item = await api.item(id).catch(() => null);
  if (item) results.update(item);
  if (state.current().item === id) (await import("../details/details.js")).show(id);
}

// Somebody else has changed the item: the form takes those values, but for the fields that the user has changed.
async function merge(form) {
  try {
    Object.assign(form.item, await api.taggedItem(form.item.id));
    for (const each of form.rows) each.rebase(form.item.metadata[each.name]);
    form.message.textContent =
      "This image was changed meanwhile. The other fields show its new values, and yours are kept. Save again to write yours.";
  } catch (error) {
    showProblem(error, form);
  }
}

function showProblem(error, { rows, added, message }) {
  const about = (name) => name && error.message.startsWith(`metadata.${name} `);
  const field = error.field ?? [...rows.filter(({ name }) => about(name)), ...(about(added.name()) ? [added] : [])].at(-1);
  if (!field) return (message.textContent = error.message);
  field.show(error.message.replace(/^metadata\./, ""));
  return field.input.focus();
}
