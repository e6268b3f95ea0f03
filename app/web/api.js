// A client of the public HTTP API. URLs are relative, so that the service may run under a path prefix.

import * as key from "./key.js";

/** An error response; `title`, `message` and `code` are those of its problem document. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `The service responded with status ${status}.`);
    this.title = body.title ?? "Something went wrong";
    this.code = body.code ?? "";
    this.status = status;
  }
}

async function request(path, options) {
  const sent = performance.now();
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...key.headers() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { title: "No connection", detail: "The service can't be reached. Is it still running?" });
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const problem = new Problem(response.status, body);
  if (response.status !== 401 || !(await key.prompt(problem, sent))) throw problem;
  return request(path, options);
}

const post = (path, body, signal) =>
  body instanceof FormData
    ? request(path, { method: "POST", body, signal })
    : request(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal });

export const ready = (signal) => request("readyz", { signal });

export const collection = (name, signal) => request(`v1/collections/${encodeURIComponent(name)}`, { signal });

export const items = (offset, limit, signal) => request(`v1/items?offset=${offset}&limit=${limit}`, { signal });

export const item = (id, signal) => request(`v1/item?id=${encodeURIComponent(id)}`, { signal });

export const searchText = (text, limit, signal) => post("v1/search/text", { text, limit }, signal);

export const searchItem = (id, limit, signal) => post("v1/search/item", { id, limit }, signal);

export function searchImage(blob, limit, signal) {
  const form = new FormData();
  form.append("file", blob, blob.name || "image");
  form.append("limit", limit);
  return post("v1/search/image", form, signal);
}

/** Compare two inputs, each `{ id }` or `{ blob }`. */
export function compare(a, b, signal) {
  const form = new FormData();
  for (const [name, input] of [["a", a], ["b", b]]) {
    if (input.blob) form.append(name, input.blob, input.blob.name || "image");
    else form.append(`${name}_id`, input.id);
  }
  return post("v1/similarity", form, signal);
}
