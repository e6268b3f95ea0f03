// A scatter plot on a canvas: points, thumbnails in their place when few are in view, and a lasso.
// A frame is drawn only when something has changed.

import { drawPolygon, drawRing, drawThumbnail, placeThumbnails } from "./overlay.js";
import { blend, pixel, Raster, REACH } from "./raster.js";
import { Viewport } from "./viewport.js";

const MAX_PIXELS = 4_000_000;
const MAX_THUMBNAILS = 120; // points in view, at most, for thumbnails in their place
const PADDING = 28, PADDING_OF_THUMBNAILS = 72;
const MIN_RADIUS = 1.3, MAX_RADIUS = 6;
const COVERED = 0.1; // share of the canvas that the points cover before zooming
const DIMMED = 80; // of 256

const css = (colour) => `rgb(${colour.join()})`;

/** Draws points; `source` has `get(id)`, a thumbnail (null: none, undefined: not loaded), and `want(ids)`. */
export class Scatter {
  #pending = false;
  #placed = []; // boxes of the thumbnails on the canvas
  view = new Viewport();
  x = []; // none until setPoints
  y = [];
  hovered = -1;
  lasso = []; // in coordinates
  draft = []; // the lasso that is being drawn, in positions

  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    new ResizeObserver(() => this.#resize()).observe(canvas);
  }

  /** Show other points. */
  setPoints({ ids, x, y }, source) {
    Object.assign(this, { ids, source, marked: [], hovered: -1 });
    [this.x, this.y] = [x, y].map((values) => Float64Array.from(values));
    this.flags = new Uint8Array(ids.length); // 1: marked
    this.view.setPoints(this.x, this.y, ids.length > MAX_THUMBNAILS ? PADDING : PADDING_OF_THUMBNAILS);
  }

  /** Colour the points: a code for each, and a colour `[r, g, b]` for each code; `theme` has page, text and accent. */
  setColours(codes, colours, theme) {
    Object.assign(this, { codes, colours, theme });
    this.draw();
  }

  /** Draw the points at `indexes` larger, the first one with a ring, and the others dimmed; none is as before. */
  mark(indexes) {
    this.marked = indexes;
    this.flags.fill(0);
    for (const index of indexes) this.flags[index] = 1;
    this.draw();
  }

  /** Return the position of a point. */
  positionOf(index) {
    return this.view.toCanvas([this.x[index], this.y[index]]);
  }

  /** Return the index of the thumbnail at a position, or of the nearest point within `reach` pixels; -1 without one. */
  at(x, y, reach) {
    const over = this.#placed.find((box) => x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height);
    if (over) return over.index;
    const [mapX, mapY] = this.view.toMap([x, y]);
    let nearest = -1, least = (reach / this.view.scale) ** 2;
    for (let i = 0; i < this.x.length; i++) {
      const square = (this.x[i] - mapX) ** 2 + (this.y[i] - mapY) ** 2;
      if (square > least) continue;
      nearest = i;
      least = square;
    }
    return nearest;
  }

  /** Draw a frame soon: one for any number of changes. */
  draw() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      this.#frame();
    });
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    this.ratio = Math.min(devicePixelRatio, Math.sqrt(MAX_PIXELS / (width * height)));
    [this.canvas.width, this.canvas.height] = [width, height].map((size) => Math.round(size * this.ratio));
    this.raster = new Raster(this.canvas.width, this.canvas.height);
    this.view.resize(width, height);
    this.#frame(); // at once: a canvas of a new size is blank
  }

  #frame() {
    if (!this.raster || !this.theme) return;
    const start = performance.now(), seen = this.#inView();
    this.#place(seen.length > MAX_THUMBNAILS ? [] : [...seen]);
    this.#drawPoints(seen);
    this.#drawOverlay();
    performance.clearMeasures("map-frame"); // observers have the last one; a list of all would grow without end
    performance.measure("map-frame", { start });
  }

  #inView() {
    const { x, y, view } = this, reach = REACH / this.ratio, seen = new Int32Array(x.length);
    const [left, top] = view.toMap([-reach, -reach]), [right, bottom] = view.toMap([view.width + reach, view.height + reach]);
    let count = 0;
    for (let i = 0; i < x.length; i++) if (x[i] > left && x[i] < right && y[i] > top && y[i] < bottom) seen[count++] = i;
    return seen.subarray(0, count);
  }

  // Results come first: they keep their thumbnails where points are close to each other.
  #place(seen) {
    const order = seen.sort((a, b) => this.flags[b] - this.flags[a]);
    const placed = placeThumbnails(order, (i) => this.positionOf(i), (i) => this.source.get(this.ids[i]), this.view);
    this.source.want(placed.filter(({ image }) => !image).map(({ index }) => this.ids[index]));
    this.#placed = placed.filter(({ image }) => image);
  }

  get #radius() {
    const { width, height, scale, fitting } = this.view;
    const radius = Math.sqrt(((COVERED * width * height) / this.x.length / Math.PI) * Math.max(1, scale / fitting));
    return Math.min(MAX_RADIUS, Math.max(MIN_RADIUS, radius));
  }

  #drawPoints(seen) {
    const { raster, ratio, flags, codes } = this, page = pixel(this.theme.page);
    const colours = Int32Array.from(this.colours, pixel), small = this.#radius * ratio, large = 1.5 * small + ratio;
    const others = this.marked.length ? colours.map((colour) => blend(page, colour, DIMMED)) : colours;
    raster.pixels.fill(page);
    this.#stamp(seen, 0, (i) => others[codes[i]], small);
    const marked = this.marked.length ? seen.filter((i) => flags[i]) : [];
    this.#stamp(marked, 1, () => page, large + 1.5 * ratio);
    this.#stamp(marked, 1, (i) => colours[codes[i]], large);
    raster.put(this.context);
  }

  #stamp(indexes, flag, colourOf, radius) {
    const { raster, x, y, flags, ratio } = this, sprite = raster.sprite(radius);
    const scale = this.view.scale * ratio, dx = this.view.x * ratio, dy = this.view.y * ratio;
    for (let k = 0; k < indexes.length; k++) {
      const i = indexes[k];
      if (flags[i] === flag) raster.stamp(x[i] * scale + dx, y[i] * scale + dy, colourOf(i), sprite);
    }
  }

  #drawOverlay() {
    const { context, ratio, marked, hovered, view } = this;
    const [page, text, accent] = ["page", "text", "accent"].map((name) => css(this.theme[name]));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (const box of this.#placed.toReversed()) { // the first on top
      const large = this.flags[box.index] > 0, colour = css(this.colours[this.codes[box.index]]);
      drawThumbnail(context, box, { page, colour, large, dim: marked.length > 0 && !large });
    }
    if (marked.length) this.#ring(marked[0], text);
    if (hovered >= 0) this.#ring(hovered, accent);
    drawPolygon(context, this.lasso.map((point) => view.toCanvas(point)), accent);
    drawPolygon(context, this.draft, accent, [6, 4]);
    context.resetTransform();
  }

  #ring(index, colour) {
    const box = this.#placed.find((each) => each.index === index);
    drawRing(this.context, this.positionOf(index), 1.5 * this.#radius + 4, box, colour);
  }
}
