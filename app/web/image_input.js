// Images from outside the page: chosen, dropped, pasted, or taken by a camera. Each becomes a part of the query.

import { find, toast } from "./dom.js";
import * as state from "./state.js";
import { showProblem } from "./summary.js";

const MAX_FILES = 8;
const MIB = 1024 ** 2;

// Browsers don't know the type of every format that the service reads.
const mayBeImage = ({ name, type }) =>
  !type || type.startsWith("image/") || find("file").accept.split(",").includes(name.slice(name.lastIndexOf(".")).toLowerCase());

/** Return why the service would refuse a file; empty if it may take it. */
export function refusal(file) {
  const maxBytes = Number(document.body.dataset.maxBytes);
  if (!mayBeImage(file)) {
    return `${file.name || "That"} is ${file.type}, not an image. Choose one such as a JPEG, PNG, WebP, HEIC or AVIF file.`;
  }
  if (file.size === 0) return `${file.name || "The image"} is empty. Choose another file.`;
  if (file.size > maxBytes) {
    return `${file.name || "The image"} has ${(file.size / MIB).toFixed(1)} MB, over the limit of ${(maxBytes / MIB).toFixed(1)} MB. Choose a smaller copy.`;
  }
  return "";
}

/** Add image files to the query. */
export function searchImages(files) {
  const reasons = files.map(refusal), accepted = files.filter((_, index) => !reasons[index]);
  const [reason] = reasons.filter(Boolean);
  if (reason && !accepted.length) return showProblem({ title: "No image to search by", message: reason });
  if (reason) toast(reason);
  if (!accepted.length) return undefined;
  const { parts } = state.current(), room = MAX_FILES - parts.filter(({ kind }) => kind === "image").length;
  if (accepted.length > room) toast(`${files.length} images: a query takes at most ${MAX_FILES} of them. The first ${Math.max(0, room)} are used.`);
  const added = accepted.slice(0, Math.max(0, room)).map((file) => ({ kind: "image", value: state.keep(file), weight: 1 }));
  return added.length && state.change({ parts: [...parts, ...added], item: "" });
}

function pick(input) {
  const files = [...input.files];
  input.value = ""; // so that choosing the same file again fires `change`
  searchImages(files);
}

/** Listen for files; `isWritable` returns whether files may be added to the collection, too. */
export function listen(isWritable) {
  for (const id of ["file", "camera"]) find(id).addEventListener("change", ({ target }) => pick(target));
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    searchImages(files);
  });
  listenForDrops(isWritable);
}

function listenForDrops(isWritable) {
  let depth = 0;
  const enter = (change) => {
    depth = Math.max(0, depth + change);
    find("drop").hidden = depth === 0;
    find("drop-add").hidden = !isWritable();
  };
  const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => carriesFile(event) && enter(1));
  addEventListener("dragleave", (event) => carriesFile(event) && enter(-1));
  addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
  addEventListener("drop", async (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    const files = [...event.dataTransfer.files], adds = event.target.closest?.("#drop-add");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()); // can't be read after an await
    enter(-depth);
    if (adds) (await import("./editing/add_items.js")).addDropped(files, entries);
    else searchImages(files);
  });
}
