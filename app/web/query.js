// From the state to requests: the parts of the query, the filter, and the options of a search.

import * as api from "./api.js";
import { kept } from "./state.js";

/** How many results a group shows. */
export const GROUP_SIZE = 6;

/** Return whether the state is a query, rather than a list of items. */
export const isQuery = ({ parts }) => parts.length > 0;

/** Return the filter of a state, null for none. Conditions on the map's lasso become ids. */
export async function filterOf(state, signal) {
  const must = [...state.filters];
  if (state.lasso) must.push(await lassoCondition(state, signal));
  return must.length ? { must } : null;
}

/** Return the condition that an item lies in the lasso on the map. */
export async function lassoCondition({ lasso }, signal) {
  const { MAX_IDS, inside } = await import("./map/lasso.js");
  const ids = inside(await api.map("", signal), lasso);
  if (ids.length <= MAX_IDS) return { field: "id", in: ids };
  const detail = `There are ${ids.length.toLocaleString("en")} images in the lasso; a filter takes at most 10,000. Draw a smaller one.`;
  throw new api.Problem(0, { title: "The lasso is too large", detail });
}

/** Return a page of a search's results. */
export async function search(state, page, signal) {
  const [filter, parts] = await Promise.all([filterOf(state, signal), Promise.all(state.parts.map(partOf))]);
  const options = { ...page, deduplicate: !state.duplicates };
  if (filter) options.filter = filter;
  if (state.group) Object.assign(options, { group_by: state.group, group_size: GROUP_SIZE });
  const [first] = parts;
  if (parts.length === 1 && first.blob && first.weight === 1) return api.searchImage(first.blob, options, signal);
  return api.search({ query: await Promise.all(parts.map(withoutBlob)), ...options }, signal);
}

async function partOf({ kind, value, weight }) {
  if (kind === "text") return { text: value, weight };
  if (kind === "item") return { id: value, weight };
  return { blob: await blobOf(kind, value), weight };
}

/** Return the image of a part: an uploaded file or a drawing. */
export async function blobOf(kind, value) {
  if (kind === "sketch") return (await import("./sketch/strokes.js")).toBlob(value);
  const image = kept(value);
  if (image) return image.blob;
  throw new api.Problem(0, {
    title: "The image is no longer available",
    detail: "An image is kept only while its tab is open and is not part of the URL. Remove it, or drop, paste or upload it again.",
  });
}

async function withoutBlob({ blob, ...part }) {
  return blob ? { image: await dataUri(blob), ...part } : part;
}

/** Return a file as a data URI. */
export function dataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(`data:image/png;base64,${reader.result.slice(reader.result.indexOf(",") + 1)}`);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
