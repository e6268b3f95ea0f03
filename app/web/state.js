// The query, stored in the page's URL: ?q=TEXT, ?like=ID or ?image=KEY, and &limit=N.
// A URL can't hold an image itself: images are kept in the tab's memory under a key.

export const DEFAULT_LIMIT = 24;
const LIMITS = [12, 24, 48, 96];
const images = new Map();

/** Keep an image file until the tab is closed; return its key. */
export function keep(blob) {
  const key = Math.random().toString(36).slice(2, 10);
  images.set(key, { blob, url: URL.createObjectURL(blob) });
  return key;
}

/** Return a kept image; undefined after a reload. */
export const kept = (key) => images.get(key);

/** Return the state in a URL's query string; `{ limit }` alone is the start page. */
export function read(search = location.search) {
  const parameters = new URLSearchParams(search);
  const limit = Number(parameters.get("limit"));
  const state = { limit: LIMITS.includes(limit) ? limit : DEFAULT_LIMIT };
  for (const name of ["q", "like", "image"]) {
    const value = parameters.get(name)?.trim();
    if (value) return { ...state, [name]: value };
  }
  return state;
}

/** Return the URL of a state, relative to the page. */
export function url({ limit, ...query }) {
  const parameters = new URLSearchParams(query);
  if (limit !== DEFAULT_LIMIT) parameters.set("limit", limit);
  return parameters.size ? `?${parameters}` : "./";
}

/** Navigate to a state: add it to the history unless the page shows it already. */
export function navigate(state) {
  const target = new URL(url(state), document.baseURI.split(/[?#]/)[0]);
  if (target.href !== location.href) history.pushState(null, "", target);
}
