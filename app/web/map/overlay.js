// What the map draws above its points: thumbnails, rings and the lasso.

const SIDES = [108, 76, 52, 36]; // longest side of a thumbnail, in CSS pixels
const ROOM = 0.6; // of the mean distance between points in view
const MAX_OVERLAP = 0.15; // of a side, with a thumbnail placed before
const DIMMED = 0.35;

/**
 * Return boxes `{ index, image, x, y, width, height }` for thumbnails in place of points, in the order of `indexes`.
 * One that would cover another stays a point. `image` is undefined while it loads.
 */
export function placeThumbnails(indexes, positionOf, imageOf, { width, height }) {
  const room = ROOM * Math.sqrt((width * height) / indexes.length);
  const side = SIDES.find((each) => each <= room) ?? SIDES.at(-1), placed = [];
  for (const index of indexes) {
    const image = imageOf(index);
    if (image === null) continue;
    const box = { index, image, ...boxFor(image ?? { width: side, height: side }, side, positionOf(index)) };
    if (!placed.some((other) => overlap(box, other, side * MAX_OVERLAP))) placed.push(box);
  }
  return placed;
}

function boxFor(image, side, [x, y]) {
  const scale = side / Math.max(image.width, image.height), width = image.width * scale, height = image.height * scale;
  return { x: x - width / 2, y: y - height / 2, width, height };
}

const overlap = (a, b, allowed) =>
  a.x + allowed < b.x + b.width && b.x + allowed < a.x + a.width &&
  a.y + allowed < b.y + b.height && b.y + allowed < a.y + a.height;

/** Draw a thumbnail, with a frame in the colour of its point. */
export function drawThumbnail(context, { image, x, y, width, height }, { page, colour, large, dim }) {
  const frame = large ? 4 : 2;
  context.fillStyle = page; // covers the point
  context.fillRect(x, y, width, height);
  context.globalAlpha = dim ? DIMMED : 1;
  context.drawImage(image, x, y, width, height);
  context.strokeStyle = colour;
  context.lineWidth = frame;
  context.strokeRect(x - frame / 2, y - frame / 2, width + frame, height + frame);
  context.globalAlpha = 1;
}

/** Draw a ring around a point, or around its thumbnail's box. */
export function drawRing(context, [x, y], radius, box, colour) {
  context.beginPath();
  if (box) context.roundRect(box.x - 6, box.y - 6, box.width + 12, box.height + 12, 5);
  else context.arc(x, y, radius, 0, 2 * Math.PI);
  context.strokeStyle = colour;
  context.lineWidth = 2.5;
  context.stroke();
}

/** Draw a polygon; one that is still being drawn has dashes. */
export function drawPolygon(context, points, colour, dashes = []) {
  if (points.length < 2) return;
  context.beginPath();
  for (const point of points) context.lineTo(...point);
  if (!dashes.length) context.closePath();
  context.fillStyle = context.strokeStyle = colour;
  context.globalAlpha = 0.12;
  context.fill();
  context.globalAlpha = 1;
  context.lineWidth = 2;
  context.setLineDash(dashes);
  context.stroke();
  context.setLineDash([]);
}
