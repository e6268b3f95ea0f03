// The cosines of some images, each with each: requested once for each image, and kept while images come and go.

import * as api from "../api.js";

const SENT_PIXELS = [1600, 1024, 640]; // longer side of the copy of a large file; encoders see fewer pixels
const SHARE_OF_BODY = 0.6; // base64 adds a third
const known = new WeakMap(); // input -> Map of another input -> { cosine, probability }

/** Return what is known of a pair: `{ cosine, probability }`. */
export const pairOf = (a, b) => known.get(a)?.get(b);

/**
 * Request what is not known of the pairs of some inputs, each `{ id }` or `{ blob }`.
 *
 * The error of an input that can't be compared has it as `input`.
 */
export async function loadPairs(inputs, signal) {
  const rows = inputs.filter((a) => inputs.some((b) => !pairOf(a, b)));
  if (!rows.length) return;
  const columns = rows.length === inputs.length ? rows : inputs;
  const files = [rows, columns === rows ? [] : columns].flat().filter(({ blob }) => blob).length;
  const maxBytes = (Number(document.body.dataset.maxBytes) * SHARE_OF_BODY) / files;
  const a = await sides(rows, maxBytes), b = columns === rows ? undefined : await sides(columns, maxBytes);
  const { cosine, probability } = await api.matrix({ a, b }, signal).catch((error) => {
    throw withInput(error, { a: rows, b: columns });
  });
  rows.forEach((row, i) => columns.forEach((column, j) => {
    note(row, column, { cosine: cosine[i][j], probability: probability[i][j] });
    note(column, row, { cosine: cosine[i][j], probability: probability[i][j] });
  }));
}

// The service names an input by its position: "a.3: the file is empty".
function withInput(error, lists) {
  const [found, list, position] = /^([ab])\.(\d+): /.exec(error.message) ?? [];
  if (!found) return error;
  error.input = lists[list][position];
  error.message = error.message.slice(found.length);
  return error;
}

function note(a, b, pair) {
  if (!known.has(a)) known.set(a, new WeakMap());
  known.get(a).set(b, pair);
}

const sides = (inputs, maxBytes) => Promise.all(inputs.map((input) => side(input, maxBytes)));

async function side({ id, blob }, maxBytes) {
  return blob ? { image: await base64(await reduced(blob, maxBytes)) } : { id };
}

// Several photographs in one request may be over the limit of its body: a large one is sent as a smaller copy.
async function reduced(blob, maxBytes) {
  let sent = blob;
  try {
    for (const pixels of SENT_PIXELS) if (sent.size > maxBytes) sent = await scaled(blob, pixels);
  } catch { // of a format that the browser can't decode
  }
  return sent;
}

async function scaled(blob, pixels) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, pixels / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.ceil(bitmap.width * scale), Math.ceil(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error(`${blob.name || "The image"} can't be read. Was it moved or deleted?`));
    reader.readAsDataURL(blob);
  });
}
