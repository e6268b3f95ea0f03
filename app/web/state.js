// What is being looked for, and the page's address, which says so: ?q=TEXT, ?like=ID or ?image=KEY, and &limit=N.
// An image itself can't stand in an address: it is kept in this tab's memory under its key.

export const DEFAULT_LIMIT = 24;
const LIMITS = [12, 24, 48, 96];
const images = new Map();

/** Keeps an image file for as long as the tab lives; returns its key. */
export function keep(blob) {
  const key = Math.random().toString(36).slice(2, 10);
  images.set(key, { blob, url: URL.createObjectURL(blob) });
  return key;
}

/** A kept image, undefined after a reload. */
export const kept = (key) => images.get(key);

/** The state that an address describes; `{ limit }` alone is the start page. */
export function read(address = location.search) {
  const parameters = new URLSearchParams(address);
  const wanted = Number(parameters.get("limit"));
  const state = { limit: LIMITS.includes(wanted) ? wanted : DEFAULT_LIMIT };
  for (const name of ["q", "like", "image"]) {
    const value = parameters.get(name)?.trim();
    if (value) return { ...state, [name]: value };
  }
  return state;
}

/** The address of a state, relative to the page. */
export function address({ limit, ...query }) {
  const parameters = new URLSearchParams(query);
  if (limit !== DEFAULT_LIMIT) parameters.set("limit", limit);
  return parameters.size ? `?${parameters}` : "./";
}

/** Makes a state the page's, as a new step in its history unless it is where the page stands already. */
export function go(state) {
  const target = new URL(address(state), document.baseURI.split(/[?#]/)[0]);
  if (target.href !== location.href) history.pushState(null, "", target);
}
