// Thumbnails as decoded images, for a canvas: a bounded number of them, loaded a few at a time.

import { prefix } from "../api.js";
import * as key from "../key.js";

const MAX_KEPT = 256;
const MAX_LOADING = 6;
const HEIGHT = 160;
const PAUSE_S = 5; // after a failure other than a missing thumbnail

// A broken image is like none.
const decode = (blob) => createImageBitmap(blob, { resizeHeight: HEIGHT, resizeQuality: "medium" }).catch(() => null);

/** Return the URL of the thumbnail of an item. */
export const thumbnailUrl = (id, version) =>
  `${prefix()}item/thumbnail?${new URLSearchParams({ id, v: version })}`;

/** Loads thumbnails of one version of a collection; `onload` is called when one more can be drawn. */
export class Thumbnails {
  #images = new Map(); // id -> image, null where there is none; the most recently used last
  #wanted = [];
  #loading = new Set();
  #pausedUntil = 0;

  constructor(version, onload) {
    this.version = version;
    this.onload = onload;
  }

  /** Return a loaded image, null if the item has none, undefined if it is not loaded. */
  get(id) {
    const image = this.#images.get(id);
    if (image === undefined) return undefined;
    this.#images.delete(id);
    this.#images.set(id, image);
    return image;
  }

  /** Load these, instead of those wanted before. */
  want(ids) {
    this.#wanted = ids.filter((id) => !this.#images.has(id) && !this.#loading.has(id));
    this.#next();
  }

  /** Release all images. */
  close() {
    this.#wanted = [];
    this.closed = true;
    for (const image of this.#images.values()) image?.close();
    this.#images.clear();
  }

  #next() {
    if (performance.now() < this.#pausedUntil) return;
    while (this.#wanted.length && this.#loading.size < MAX_LOADING) this.#load(this.#wanted.shift());
  }

  async #load(id) {
    this.#loading.add(id);
    const image = await this.#fetch(id).catch(() => undefined);
    this.#loading.delete(id);
    if (this.closed) return image?.close();
    if (image === undefined) this.#pause(PAUSE_S);
    else this.#keep(id, image);
    this.#next();
  }

  async #fetch(id) {
    const response = await fetch(thumbnailUrl(id, this.version), { headers: key.headers() });
    if (response.status === 404) return null;
    if (response.ok) return decode(await response.blob());
    this.#pause(Number(response.headers.get("Retry-After")) || PAUSE_S);
    return undefined;
  }

  #pause(seconds) {
    const until = performance.now() + 1000 * seconds;
    if (until <= this.#pausedUntil) return;
    this.#pausedUntil = until;
    setTimeout(() => this.closed || this.onload(), 1000 * seconds + 50); // the next frame wants what is still missing
  }

  #keep(id, image) {
    this.#images.set(id, image);
    if (this.#images.size > MAX_KEPT) {
      const [oldest, released] = this.#images.entries().next().value;
      this.#images.delete(oldest);
      released?.close();
    }
    this.onload();
  }
}
