// The results of the current state: loaded page by page as they are scrolled to, and kept for the way back.

import * as api from "./api.js";
import { find } from "./dom.js";
import * as grid from "./grid.js";
import * as query from "./query.js";
import * as state from "./state.js";
import * as summary from "./summary.js";

const PAGE = 48;
const MAX_RESTORED = 480;
const MAX_LISTS = 6;

let list = { records: [], byId: new Map() };
let pending = new AbortController();
let loading = false;
const lists = new Map(); // by URL, the latest last
const hidden = new Set(); // ids of items that are being deleted: pages that arrive meanwhile still have them
const listeners = new Set();

/** Return the records shown so far, in order. */
export const results = () => list.records;

/** Return whether all results are shown. */
export const isComplete = () => list.done;

/** Return the version of the collection that the results are of; undefined before the first page. */
export const version = () => list.version;

/** Return a shown record; undefined if it is not shown. */
export const recordOf = (id) => list.byId.get(id);

/** Call `listener()` after each page of results and each new search. */
export const subscribe = (listener) => listeners.add(listener);

const keyOf = (current) => state.url({ ...current, view: "grid", item: "" });

/** Return whether two states have the same results. */
export const sameResults = (one, other) => keyOf(one) === keyOf(other);

/** Search, or show the kept results of an entry of the history at their place. */
export async function show({ focus = false } = {}) {
  const current = state.current(), { y = 0, count = 0, start } = state.place();
  pending.abort();
  pending = new AbortController();
  summary.describe(current);
  const kept = lists.get(keyOf(current));
  if (kept && count) return restore(kept, y);
  list = { key: keyOf(current), records: [], byId: new Map(), offset: 0, start, done: false };
  loading = false;
  if (!count) scrollTo(0, 0);
  summary.busy(true);
  const loaded = await load(current, Math.min(MAX_RESTORED, Math.max(PAGE, count)), true);
  if (loaded && y) scrollTo(0, y);
  if (loaded && focus) find("results").focus({ preventScroll: true });
}

function restore(kept, y) {
  list = kept;
  loading = false;
  grid.clear();
  grid.append(list.records);
  summary.busy(false);
  showSummary(list);
  scrollTo(0, y);
  announce();
}

/** Search again, at the top. */
export function reload() {
  lists.clear();
  state.rememberPlace({ y: 0, count: 0 });
  return show();
}

/** Load the next page unless all is shown. */
export const more = () => (loading || list.done || !list.version ? undefined : load(state.current(), PAGE, false));

async function load(current, limit, first) {
  const { signal } = pending, target = list;
  loading = true;
  summary.showMore("loading");
  try {
    const response = await page(current, limit, signal);
    if (signal.aborted) return false;
    if (first) grid.clear();
    if (target.version && target.version !== response.version) return changed(target);
    add(target, response, limit);
    return true;
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return false;
    if (first) fail(error);
    else if (error.code === "query_invalid") add(target, { results: [] }, limit); // beyond the service's last page
    else summary.showMore("failed", error.message);
    return false;
  } finally {
    if (!signal.aborted) {
      loading = false;
      summary.busy(false);
    }
  }
}

function add(target, response, limit) {
  const records = response.results ?? response.items;
  const fresh = records.filter(({ id }) => !target.byId.has(id) && !hidden.has(id)); // a live collection may move items between pages
  for (const record of fresh) target.byId.set(record.id, record);
  target.records.push(...fresh);
  target.offset += response.asked ?? records.length;
  target.done = response.done ?? (records.length < limit || (response.items && target.offset >= response.total));
  target.version ??= response.version;
  target.response ??= response;
  grid.append(fresh);
  keepList(target);
  showSummary(target);
  announce();
}

function keepList(target) {
  lists.delete(target.key);
  lists.set(target.key, target);
  if (lists.size > MAX_LISTS) lists.delete(lists.keys().next().value);
}

const announce = () => listeners.forEach((listener) => listener());

function changed(target) {
  target.done = true;
  summary.showMore("changed");
  return false;
}

function fail(error) {
  grid.clear();
  announce();
  summary.showProblem(error);
}

async function page(current, limit, signal) {
  if (query.isQuery(current)) return query.search(current, { limit, offset: list.offset }, signal);
  if (current.lasso) return inLasso(current, limit, signal);
  const filter = await query.filterOf(current, signal);
  if (filter) return api.items({ filter: JSON.stringify(filter), limit, offset: list.offset }, signal);
  return browse(limit, signal);
}

// A URL can't hold all ids in a lasso: each page asks for its own.
async function inLasso({ lasso, filters }, limit, signal) {
  const condition = await query.lassoCondition({ lasso }, signal), ids = condition.in;
  const total = list.response?.total ?? (await api.count({ must: [...filters, condition] }, signal)).count;
  const asked = ids.slice(list.offset, list.offset + limit), filter = { must: [...filters, { ...condition, in: asked }] };
  const response = await api.items({ filter: JSON.stringify(filter), limit }, signal);
  return { ...response, total, asked: asked.length, done: list.offset + asked.length >= ids.length };
}

// Without a query, the list begins anywhere, goes to the end of the collection, and on from its start.
async function browse(limit, signal) {
  if (list.start === undefined) {
    const { total } = await api.items({ limit: 1 }, signal);
    list.start = total > limit ? Math.floor(Math.random() * total) : 0;
    state.rememberPlace({ start: list.start });
  }
  const { total = Infinity } = list.response ?? {};
  const offset = list.start + list.offset;
  if (offset < total) {
    const response = await api.items({ limit: Math.min(limit, total - list.offset), offset }, signal);
    if (response.items.length === limit || list.start === 0) return response;
    return { ...response, items: [...response.items, ...(await fromStart(limit, response, signal))] };
  }
  return api.items({ limit: Math.min(limit, total - list.offset), offset: offset - total }, signal);
}

async function fromStart(limit, { items, total }, signal) {
  const missing = Math.min(limit, total - list.offset) - items.length;
  return missing > 0 ? (await api.items({ limit: missing, offset: 0 }, signal)).items : [];
}

const everyList = () => [...new Set([list, ...lists.values()])];

/**
 * Remove items from all results, such as those that are being deleted. Return two functions: `restore(ids)` shows some
 * of them again, at their places; `settle(ids)` notes that the service does not have them any more.
 */
export function remove(ids) {
  const gone = new Set(ids), taken = everyList().map((target) => take(target, gone));
  for (const id of ids) hidden.add(id);
  grid.remove(gone);
  summarize();
  return {
    restore(some) {
      const back = new Set(some);
      for (const id of back) hidden.delete(id);
      for (const { target, places } of taken) putBack(target, places.filter(({ record }) => back.has(record.id)));
      if (!taken.some(({ target }) => target === list)) return reload(); // a later search left them out
      grid.clear();
      grid.append(list.records);
      return summarize();
    },
    settle(some) {
      const settled = new Set(some);
      for (const id of settled) hidden.delete(id);
      for (const { target, places } of taken) forget(target, places.filter(({ record }) => settled.has(record.id)).length);
    },
  };
}

function take(target, gone) {
  const places = target.records.map((record, index) => ({ record, index })).filter(({ record }) => gone.has(record.id));
  target.records = target.records.filter(({ id }) => !gone.has(id));
  for (const { record } of places) target.byId.delete(record.id);
  target.removed = (target.removed ?? 0) + places.length;
  return { target, places };
}

function putBack(target, places) {
  for (const { record, index } of places) {
    target.records.splice(index, 0, record);
    target.byId.set(record.id, record);
  }
  target.removed -= places.length;
}

// The service's order has moved up by the items that it no longer has.
function forget(target, count) {
  target.removed -= count;
  target.offset -= count;
  if (target.response?.items) target.response = { ...target.response, total: target.response.total - count };
}

/** Show an item's new metadata. */
export function update({ id, metadata }) {
  for (const { byId } of everyList()) if (byId.has(id)) byId.get(id).metadata = metadata;
  if (list.byId.has(id)) grid.refresh(list.byId.get(id));
}

function summarize() {
  if (list.response) showSummary(list);
  announce();
}

function showSummary({ response, removed = 0, ...target }) {
  summary.show({ ...target, response: { ...response, total: response.total - removed } });
}

let noting;
addEventListener("scroll", () => {
  clearTimeout(noting);
  noting = setTimeout(() => list.version && state.rememberPlace({ y: scrollY, count: list.records.length }), 150);
}, { passive: true });
