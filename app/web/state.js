// The state of the page is its URL: ?q=TEXT&like=ID&image=KEY&sketch=STROKES are the parts of the query, each followed by
// its weight (&w=-0.5) unless that is 1; &f=CONDITION are filters. Modules read and change it here alone.
// A URL can't hold an image file itself: files are kept in the tab's memory under a key.

const KINDS = { q: "text", like: "item", image: "image", sketch: "sketch" };
const NAMES = Object.fromEntries(Object.entries(KINDS).map(([name, kind]) => [kind, name]));
const TEXTS = { lasso: "lasso", in: "collection", group: "group", item: "item" };

/** The start page. `parts` are `{ kind, value, weight }`; `filters` are conditions as the API has them. */
export const emptyState = Object.freeze({
  parts: [], filters: [], lasso: "", collection: "", group: "", duplicates: false, view: "grid", item: "",
});

const images = new Map();

/** Keep an image file until the tab is closed; return its key. */
export function keep(blob) {
  const key = Math.random().toString(36).slice(2, 10);
  images.set(key, { blob, url: URL.createObjectURL(blob) });
  return key;
}

/** Return a kept image `{ blob, url }`; undefined after a reload. */
export const kept = (key) => images.get(key);

/** Return the state in a URL's query string. */
export function read(search) {
  const state = { ...emptyState, parts: [], filters: [] };
  for (const [name, text] of new URLSearchParams(search)) {
    const value = name === "q" ? text.trim() : text; // ids may begin and end with spaces
    if (KINDS[name] && value) state.parts.push({ kind: KINDS[name], value, weight: 1 });
    else if (name === "w" && state.parts.length) state.parts.at(-1).weight = weightOf(value);
    else if (name === "f") state.filters.push(...conditionOf(value));
    else if (TEXTS[name]) state[TEXTS[name]] = value;
    else if (name === "dup") state.duplicates = value === "1";
    else if (name === "view") state.view = value === "map" ? "map" : "grid";
  }
  return Object.freeze(state);
}

function weightOf(text) {
  const weight = Number(text);
  return Number.isFinite(weight) ? Math.min(1, Math.max(-1, weight)) : 1;
}

function conditionOf(text) {
  try {
    const condition = JSON.parse(text);
    return condition && typeof condition === "object" && !Array.isArray(condition) ? [condition] : [];
  } catch {
    return [];
  }
}

/** Return the URL of a state, relative to the page. */
export function url(state) {
  const parameters = new URLSearchParams();
  for (const { kind, value, weight } of state.parts) {
    parameters.append(NAMES[kind], value);
    if (weight !== 1) parameters.append("w", weight);
  }
  for (const condition of state.filters) parameters.append("f", JSON.stringify(condition));
  for (const [name, key] of Object.entries(TEXTS)) if (state[key]) parameters.append(name, state[key]);
  if (state.duplicates) parameters.append("dup", "1");
  if (state.view === "map") parameters.append("view", "map");
  return parameters.size ? `?${parameters}` : "./";
}

let state = read(location.search);
const listeners = new Set();
history.scrollRestoration = "manual"; // the results restore the place themselves, once they are shown again

/** Return the current state. */
export const current = () => state;

/** Return the URL of the current state with changes. */
export const urlWith = (changes) => url({ ...state, ...changes });

/** Call `listener(state, previous, inHistory)` after each change; `inHistory` if it was a step back or forward. */
export const subscribe = (listener) => listeners.add(listener);

/** Change the state and the URL; `replace` adds no entry to the history. */
export function change(changes, { replace = false } = {}) {
  const target = new URL(urlWith(changes), document.baseURI.split(/[?#]/)[0]);
  if (target.href === location.href) return;
  if (replace) history.replaceState(history.state, "", target);
  else history.pushState(null, "", target);
  moveTo(target.search);
}

function moveTo(search, inHistory = false) {
  const previous = state;
  state = read(search);
  for (const listener of listeners) listener(state, previous, inHistory);
}

addEventListener("popstate", () => {
  if (url(read(location.search)) !== url(state)) moveTo(location.search, true); // the skip link changes only the fragment
});

/** Return what `rememberPlace` noted of this entry of the history; `{}` if nothing. */
export const place = () => history.state ?? {};

/** Note the place in the results with this entry of the history. */
export const rememberPlace = (noted) => history.replaceState({ ...place(), ...noted }, "");
