// The part of a plane that a canvas shows. Positions are CSS pixels of the canvas, coordinates those of the plane.

const MAX_ZOOM = 4000, MIN_ZOOM = 0.4; // times the scale at which all points fit

/** A view of points that pans and zooms: position = coordinates * scale + (x, y). */
export class Viewport {
  width = 0;
  height = 0;
  scale = 1;
  x = 0;
  y = 0;
  #box = { x: 0.5, y: 0.5, width: 1, height: 1 }; // of the points: its centre and size
  #padding = 0;

  /** Set the points that `fit` shows, with this many pixels around them. */
  setPoints(x, y, padding) {
    this.#box = boxOf(x, y);
    this.#padding = padding;
  }

  /** Set the size of the canvas; the centre stays where it is. */
  resize(width, height) {
    const first = !this.width;
    this.pan((width - this.width) / 2, (height - this.height) / 2);
    this.width = width;
    this.height = height;
    if (first) this.fit();
  }

  /** The scale at which all points fit. */
  get fitting() {
    const { width, height } = this.#box, room = 2 * this.#padding;
    return Math.max(1, Math.min((this.width - room) / width, (this.height - room) / height));
  }

  /** Show all points. */
  fit() {
    this.scale = this.fitting;
    this.x = this.width / 2 - this.#box.x * this.scale;
    this.y = this.height / 2 - this.#box.y * this.scale;
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
  }

  /** Zoom about a position, the centre by default. */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const scale = Math.min(MAX_ZOOM * this.fitting, Math.max(MIN_ZOOM * this.fitting, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
  }

  /** Return the coordinates of a position. */
  toMap([x, y]) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  /** Return the position of coordinates. */
  toCanvas([x, y]) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  /** Return the corners of the view, in coordinates. */
  corners() {
    const { width, height } = this;
    return [[0, 0], [width, 0], [width, height], [0, height]].map((corner) => this.toMap(corner));
  }
}

function boxOf(x, y) {
  const [left, right] = range(x), [top, bottom] = range(y);
  const least = Math.max(right - left, bottom - top) / 1000 || 1; // one point, and equal points, have a size too
  return { x: (left + right) / 2, y: (top + bottom) / 2, width: Math.max(least, right - left), height: Math.max(least, bottom - top) };
}

/** Return the least and the greatest finite number; `[0, 0]` without any. Math.min(...) can't take so many. */
export function range(numbers) {
  let low = Infinity, high = -Infinity;
  for (const number of numbers) {
    if (number < low && number > -Infinity) low = number;
    if (number > high && number < Infinity) high = number;
  }
  return low <= high ? [low, high] : [0, 0];
}
