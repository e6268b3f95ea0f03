// A drawing as data: strokes to URL-safe text and back, and to pixels.
// A stroke: { color, width, eraser, fill, points }; color "#rrggbb", width a share of the canvas, points [x, y] in 0..1.

/** The pens. Drawings in URLs hold positions in this list: append only. */
export const COLORS = [
  ["Black", "#1a1a1a"], ["Grey", "#8c8c8c"], ["White", "#ffffff"], ["Brown", "#7a4a21"], ["Skin", "#f0c8a0"],
  ["Red", "#e02020"], ["Orange", "#f58a1f"], ["Yellow", "#ffd92e"], ["Light green", "#7ed348"], ["Green", "#1f8a34"],
  ["Light blue", "#7cc8f5"], ["Blue", "#1f55d6"], ["Purple", "#8a3fc4"], ["Pink", "#f58ac0"],
];
/** Longest text of a drawing, in characters. */
export const MAX_LENGTH = 6000;
const GROUND = "#e8e8e8"; // the paper; white finds less, and white can be drawn on grey
const SIDE = 336; // pixels of the image that is sent: encoders read 224 to 336
const GRID = 511, MARGIN = 128; // a stroke may leave the canvas by a quarter
const VERSION = 1, CUSTOM = 30, ERASER = 31, FILL = 32, MAX_WIDTH = 255;
const TOLERANCE = 0.75, COARSEST = 24; // steps of the grid that a line may be off: invisible, rough
const FEW = 60; // points of a stroke that is not thinned out
const CORNER = Math.cos(Math.PI / 3); // sharper turns stay corners

const bounded = (value, low, high) => Math.min(high, Math.max(low, Math.round(value) || 0));
const onGrid = ([x, y]) => [bounded(x * GRID, -MARGIN, GRID + MARGIN), bounded(y * GRID, -MARGIN, GRID + MARGIN)];

/** Return a drawing's text, at most MAX_LENGTH long; "" for no strokes. A long one loses detail, then small strokes. */
export function encode(strokes) {
  const drawn = strokes.filter(({ points }) => points.length);
  let kept = drawn.map((stroke) => ({ ...stroke, points: distinct(stroke.points.map(onGrid)) }));
  let text = "", tolerance = TOLERANCE;
  while (kept.length && (text = toText(kept, tolerance)).length > MAX_LENGTH) {
    if (tolerance < COARSEST) tolerance *= 1.5;
    else if (kept.some(({ points }) => points.length > FEW)) kept = kept.map(thinned);
    else kept = withoutSmallest(kept, Math.ceil(kept.length / 20));
  }
  return text;
}

const distinct = (points) => points.filter(([x, y], i) => !i || x !== points[i - 1][0] || y !== points[i - 1][1]);

function thinned(stroke) {
  return stroke.points.length > FEW ? { ...stroke, points: stroke.points.filter((_, i) => i % 2 === 0) } : stroke;
}

function withoutSmallest(strokes, count) {
  const dropped = new Set([...strokes].sort((a, b) => extent(a) - extent(b)).slice(0, count));
  return strokes.filter((stroke) => !dropped.has(stroke));
}

function extent({ points, width }) {
  const [first] = points;
  return points.reduce((most, [x, y]) => Math.max(most, Math.hypot(x - first[0], y - first[1])), width * GRID);
}

function toText(strokes, tolerance) {
  const bytes = [VERSION];
  for (const stroke of strokes) write(bytes, stroke, simplified(stroke.points, tolerance));
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function write(bytes, { color, width, eraser, fill }, points) {
  const known = COLORS.findIndex(([, value]) => value === color);
  const style = eraser ? ERASER : known < 0 ? CUSTOM : known;
  bytes.push(style | (fill ? FILL : 0), bounded(width * GRID, 1, MAX_WIDTH));
  if (style === CUSTOM) for (const at of [1, 3, 5]) bytes.push(parseInt(String(color).slice(at, at + 2), 16) || 0);
  writeNumber(bytes, points.length);
  let last = [0, 0];
  for (const point of points) {
    for (const axis of [0, 1]) writeNumber(bytes, zigzag(point[axis] - last[axis]));
    last = point;
  }
}

const zigzag = (value) => (value < 0 ? -2 * value - 1 : 2 * value);
const unzigzag = (value) => (value % 2 ? -(value + 1) / 2 : value / 2);

function writeNumber(bytes, value) {
  for (; value > 127; value >>= 7) bytes.push((value & 127) | 128);
  bytes.push(value);
}

// Ramer-Douglas-Peucker, with a stack instead of recursion: a scribble may have thousands of points.
function simplified(points, tolerance) {
  const keep = new Set([0, points.length - 1]);
  const ranges = [[0, points.length - 1]];
  while (ranges.length) {
    const [first, last] = ranges.pop();
    let farthest = 0, distance = tolerance;
    for (let i = first + 1; i < last; i++) {
      const far = distanceTo(points[i], points[first], points[last]);
      if (far > distance) [farthest, distance] = [i, far];
    }
    if (!farthest) continue;
    keep.add(farthest);
    ranges.push([first, farthest], [farthest, last]);
  }
  return points.filter((_, i) => keep.has(i));
}

function distanceTo([x, y], [ax, ay], [bx, by]) {
  const dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy;
  const along = length ? Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / length)) : 0;
  return Math.hypot(x - ax - along * dx, y - ay - along * dy);
}

/** Return the strokes of a text; none if it is damaged or too long. */
export function decode(text) {
  try {
    if (typeof text !== "string" || !text || text.length > MAX_LENGTH) return [];
    const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return read({ bytes: Uint8Array.from(binary, (character) => character.charCodeAt(0)), at: 0 });
  } catch {
    return [];
  }
}

function read(input) {
  if (nextByte(input) !== VERSION) throw new RangeError("unknown version");
  const strokes = [];
  while (input.at < input.bytes.length) strokes.push(readStroke(input));
  return strokes;
}

function readStroke(input) {
  const flags = nextByte(input), width = nextByte(input) / GRID, style = flags & 31;
  const eraser = style === ERASER, fill = Boolean(flags & FILL);
  const color = eraser ? GROUND : style === CUSTOM ? customColor(input) : COLORS[style][1];
  const count = nextNumber(input);
  if (count < 1) throw new RangeError("a stroke without points");
  const points = [];
  for (let i = 0, x = 0, y = 0; i < count; i++) {
    x += unzigzag(nextNumber(input));
    y += unzigzag(nextNumber(input));
    if (Math.min(x, y) < -MARGIN || Math.max(x, y) > GRID + MARGIN) throw new RangeError("a point far outside");
    points.push([x / GRID, y / GRID]);
  }
  return { color, width, eraser, fill, points };
}

const customColor = (input) => `#${[0, 1, 2].map(() => nextByte(input).toString(16).padStart(2, "0")).join("")}`;

function nextByte(input) {
  if (input.at >= input.bytes.length) throw new RangeError("the text ends early");
  return input.bytes[input.at++];
}

function nextNumber(input) {
  let value = 0;
  for (let shift = 0; shift < 28; shift += 7) {
    const byte = nextByte(input);
    value |= (byte & 127) << shift;
    if (byte < 128) return value;
  }
  throw new RangeError("a number too large");
}

/** Draw strokes on a canvas context, a square of `size` pixels, in place of what it shows. */
export function draw(context, strokes, size, ground = GROUND) {
  context.fillStyle = ground;
  context.fillRect(0, 0, size, size);
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) drawStroke(context, stroke, size, stroke.eraser ? ground : stroke.color);
}

function drawStroke(context, { width, fill, points }, size, color) {
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = Math.max(1, width * size);
  context.beginPath();
  trace(context, points.map(([x, y]) => [x * size, y * size]));
  if (fill) context.fill();
  context.stroke();
}

// A curve through the points: a point's tangent is parallel to the line between its neighbours, none at a corner.
function trace(context, points) {
  const tangents = points.map((_, i) => tangent(points, i));
  context.moveTo(...points[0]);
  if (points.length === 1) context.lineTo(points[0][0] + 0.01, points[0][1]); // a dot
  for (let i = 1; i < points.length; i++) {
    const [a, b] = [points[i - 1], points[i]], reach = Math.hypot(b[0] - a[0], b[1] - a[1]) / 3;
    const [[ax, ay], [bx, by]] = [tangents[i - 1], tangents[i]];
    context.bezierCurveTo(a[0] + ax * reach, a[1] + ay * reach, b[0] - bx * reach, b[1] - by * reach, ...b);
  }
}

function tangent(points, i) {
  if (i === 0 || i === points.length - 1) return [0, 0];
  const before = direction(points[i - 1], points[i]), after = direction(points[i], points[i + 1]);
  const straight = before[0] * after[0] + before[1] * after[1] > CORNER;
  return straight ? direction(points[i - 1], points[i + 1]) : [0, 0];
}

function direction([ax, ay], [bx, by]) {
  const length = Math.hypot(bx - ax, by - ay) || 1;
  return [(bx - ax) / length, (by - ay) / length];
}

/** Return the strokes with the topmost shape around a point filled, or the whole ground if there is none. */
export function withFilled(strokes, point, color) {
  const at = strokes.findLastIndex(({ eraser, points }) => !eraser && isClosed(points) && encloses(points, point));
  const ground = { color, width: 0.01, eraser: false, fill: true, points: [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]] };
  if (at < 0) return [ground, ...strokes];
  const shape = strokes[at];
  if (shape.fill) return strokes.with(at, { ...shape, color });
  return strokes.toSpliced(at, 0, { ...shape, color, fill: true, points: [...shape.points, shape.points[0]] });
}

// A hand leaves a gap: up to a quarter of the shape.
function isClosed(points) {
  const [first, last] = [points[0], points.at(-1)];
  const reach = Math.max(...points.map(([x, y]) => Math.hypot(x - first[0], y - first[1])));
  return Math.hypot(last[0] - first[0], last[1] - first[1]) < reach / 4;
}

// The even-odd rule.
function encloses(points, [x, y]) {
  return points.reduce((inside, [bx, by], i) => {
    const [ax, ay] = points.at(i - 1);
    return ay > y !== by > y && x < ax + ((y - ay) / (by - ay)) * (bx - ax) ? !inside : inside;
  }, false);
}

/** Return the PNG of an encoded drawing, as it is sent to the service. */
export async function toBlob(encoded, side = SIDE, ground = GROUND) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  draw(canvas.getContext("2d"), decode(encoded), side, ground);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
