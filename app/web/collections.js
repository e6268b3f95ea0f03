// The collections of the service: a switcher, and a line about the encoder of the current one.

import * as api from "./api.js";
import { element, find } from "./dom.js";
import * as state from "./state.js";
import { showEncoder } from "./summary.js";

let known = [];

/** Return the facts about the current collection, as the API lists them; undefined if it is not known. */
export function facts() {
  const { collection } = state.current();
  return collection ? known.find(({ name }) => name === collection) : known[0];
}

/** Load the list of collections and show it; the results report errors. */
export async function load() {
  const response = await api.collections().catch(() => null);
  if (!response) return;
  known = response.collections;
  const options = known.map(({ name, items }) =>
    element("option", { value: name }, items === null ? name : `${name} (${items.toLocaleString("en")})`));
  find("collection").replaceChildren(...options);
  find("switcher").hidden = known.length < 2;
  show();
}

/** Show the current collection. */
export function show() {
  const current = facts();
  find("collection").value = current?.name ?? "";
  showEncoder(current);
  find("add").hidden = !current?.writable;
  const withoutText = current?.text === false;
  find("query").disabled = withoutText;
  if (withoutText) find("query").placeholder = "This encoder supports images only: drop, paste or upload one";
}

/** Listen for the switcher. The query stays, but what belongs to the old collection goes. */
export function listen() {
  find("collection").addEventListener("change", ({ target }) => {
    const parts = state.current().parts.filter(({ kind }) => kind !== "item");
    const collection = target.value === known[0].name ? "" : target.value;
    state.change({ collection, parts, filters: [], lasso: "", group: "", item: "" });
  });
}
