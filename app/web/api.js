// A client of the public HTTP API. URLs are relative, so that the service may run under a path prefix.
// A request waits and is sent again while the network fails, or when the service asks for that (429, 503).

import * as key from "./key.js";
import { current } from "./state.js";
import { wait } from "./waiting.js";

const MAX_WAIT_S = 15;

/** An error response; `title`, `message` and `code` are those of its problem document. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `The service responded with status ${status}.`);
    this.title = body.title ?? "Something went wrong";
    this.code = body.code ?? "";
    this.status = status;
  }
}

/**
 * Return the JSON of a response to a request below `base`: `v1` of the current collection. Without `retry`, it is sent once;
 * with `tagged`, the `ETag` of the response is added as `etag`.
 */
export const request = (path, { base = prefix(), ...options } = {}) => send(`${base}${path}`, options);

/** Return the path of the current collection. */
export function prefix() {
  const { collection } = current();
  return collection ? `v1/collections/${encodeURIComponent(collection)}/` : "v1/";
}

async function send(path, { retry = true, tagged = false, ...options } = {}, failures = 0) {
  const sent = performance.now();
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...key.headers() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (!retry) throw new Problem(0, { title: "No connection", detail: "The service can't be reached. Is it still running?" });
    await wait("The service can't be reached.", Math.min(MAX_WAIT_S, 2 ** failures), options.signal);
    return send(path, { tagged, ...options }, failures + 1);
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return tagged ? { ...body, etag: response.headers.get("ETag") } : body;
  const problem = new Problem(response.status, body);
  const seconds = Number(response.headers.get("Retry-After"));
  if (retry && [429, 503].includes(response.status) && seconds > 0) {
    await wait(problem.message, seconds, options.signal);
    return send(path, { tagged, ...options });
  }
  if (response.status !== 401) throw problem;
  if (!(await key.prompt(problem, sent))) throw new Problem(401, { title: "An API key is needed", detail: "Try again, and enter the key of this service." });
  return send(path, { retry, tagged, ...options });
}

/** POST JSON or a form below `v1` of the current collection. */
export const post = (path, body, signal, options = {}) =>
  request(path, body instanceof FormData
    ? { method: "POST", body, signal, ...options }
    : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal, ...options });

const text = (parameters) => new URLSearchParams(parameters).toString();

export const collections = (signal) => send("v1/collections", { signal });

export const items = (query, signal) => request(`items?${text(query)}`, { signal });

export const item = (id, signal) => request(`item?${text({ id })}`, { signal });

/** Return an item with its ETag as `etag`. */
export const taggedItem = (id) => request(`item?${text({ id })}`, { tagged: true });

/** Apply operations, at most 1,000; each has its own result or problem. */
export const write = (operations, options) => post("items/batch", { operations }, undefined, options);

export const fields = (signal) => request("fields", { signal });

export const facets = (body, signal) => post("facets", body, signal);

export const count = (filter, signal) => post("count", { filter }, signal);

export const map = (field, signal) => request(`map${field ? `?${text({ field })}` : ""}`, { signal });

export const matrix = (body, signal) => post("similarity/matrix", body, signal);

export const search = (body, signal) => post("search", body, signal);

/** Search by one image file, without its growth by a third in JSON. */
export function searchImage(blob, { filter, ...options }, signal) {
  const form = new FormData();
  form.append("file", blob, blob.name || "image");
  if (filter) form.append("filter", JSON.stringify(filter));
  for (const [name, value] of Object.entries(options)) form.append(name, value);
  return post("search/image", form, signal);
}

/** Compare two inputs, each `{ id }` or `{ blob }`. */
export function compare(a, b, signal) {
  const form = new FormData();
  for (const [name, input] of [["a", a], ["b", b]]) {
    if (input.blob) form.append(name, input.blob, input.blob.name || "image");
    else form.append(`${name}_id`, input.id);
  }
  return post("similarity", form, signal);
}
