// The polygon of the lasso: coordinates of the map, in the URL as "x,y x,y ...". No DOM: the search uses it too.

/** The most ids that a filter of the API takes. */
export const MAX_IDS = 10_000;

const MAX_POINTS = 60;
const DIGITS = 5; // a pixel at a hundredfold zoom

/** Return the text of a polygon `[[x, y], ...]`, with at most 60 of its points. */
export const encode = (points) =>
  simplify(points).map((point) => point.map((value) => Number(value.toFixed(DIGITS))).join()).join(" ");

/** Return the polygon of a text; `[]` if it is none. */
export function decode(text) {
  const points = text.trim().split(/\s+/).map((pair) => pair.split(",").map(Number));
  return points.length > 2 && points.every((point) => point.length === 2 && point.every(Number.isFinite)) ? points : [];
}

/** Return the ids of a map `{ ids, x, y }` in a lasso, given as its text (even-odd rule). */
export function inside({ ids, x, y }, text) {
  const polygon = decode(text);
  return ids.filter((_, i) => contains(polygon, x[i], y[i]));
}

function contains(polygon, x, y) {
  let odd = false, [bx, by] = polygon.at(-1) ?? [];
  for (const [ax, ay] of polygon) {
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
    [bx, by] = [ax, ay];
  }
  return odd;
}

// Visvalingam's algorithm: leave out the point that changes the area least.
function simplify(points) {
  const kept = [...points];
  while (kept.length > MAX_POINTS) {
    const areas = kept.map((point, i) => area(kept.at(i - 1), point, kept[(i + 1) % kept.length]));
    kept.splice(areas.indexOf(Math.min(...areas)), 1);
  }
  return kept;
}

const area = ([ax, ay], [bx, by], [cx, cy]) => Math.abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay));
