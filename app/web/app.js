// The search page. An action of the user sets the state, which determines the URL and one request; the response fills
// the grid. The page uses only the public API.

import * as api from "./api.js";
import * as compare from "./compare.js";
import * as state from "./state.js";
import * as view from "./view.js";

const find = (id) => document.getElementById(id);
const READY_POLL_MS = 1000;
let pending = new AbortController();
let shownSearch;

function search(next, { focus = false } = {}) {
  state.navigate(next);
  scrollTo(0, 0);
  return show(next, { focus });
}

async function show(current, { focus = false } = {}) {
  pending.abort();
  pending = new AbortController();
  const { signal } = pending;
  shownSearch = location.search;
  describe(current);
  showLikeChip(current.like, signal);
  busy(true);
  try {
    const response = await requestFor(current, signal);
    showResponse(current, response);
    if (focus) find("results").focus({ preventScroll: true });
  } catch (error) {
    if (error.name === "AbortError") return;
    fail(error, current);
  } finally {
    if (!signal.aborted) busy(false);
  }
}

// The search box, the chip and the title show the query before the response arrives.
function describe(current) {
  const start = !(current.q || current.like || current.image);
  document.body.dataset.view = start ? "start" : "results";
  document.title = current.q ? `${current.q} · Lookalike` : "Lookalike";
  find("query").value = current.q ?? "";
  find("limit").value = current.limit;
  find("private").hidden = !current.image;
  view.showProblem(null);
  const image = current.image && state.kept(current.image);
  find("query").placeholder = current.like || current.image ? "or describe" : "a cat on a sofa";
  view.showChip(image ? { url: image.url, name: image.blob.name || "Your image" } : current.like ? { name: "Like this" } : null);
}

async function showLikeChip(id, signal) {
  if (!id) return;
  const record = shown.get(id) ?? (await api.item(id, signal).catch(() => null)); // the search itself reports errors
  if (record && !signal.aborted) view.showChip({ url: record.thumbnail_url, name: view.nameOf(record) });
}

function requestFor(current, signal) {
  if (current.q) return api.searchText(current.q, current.limit, signal);
  if (current.like) return api.searchItem(current.like, current.limit, signal);
  if (!current.image) return browse(current.limit, signal);
  const image = state.kept(current.image);
  if (image) return api.searchImage(image.blob, current.limit, signal);
  throw new api.Problem(0, {
    title: "The image is no longer available",
    detail: "An image is kept only while its tab is open and is not part of the URL. Drop, paste or upload it again.",
  });
}

async function browse(limit, signal) {
  const { items: total, collection } = await untilReady(signal);
  describeEncoder(collection, signal);
  const offset = Math.floor(Math.random() * Math.max(1, total - limit + 1));
  return { ...(await api.items(offset, limit, signal)), total };
}

async function describeEncoder(collection, signal) {
  const facts = await api.collection(collection, signal).catch(() => null); // listing the images reports errors
  if (facts && !signal.aborted) view.showEncoder(facts);
}

// The service accepts requests before the collection is open: wait for it and show why.
async function untilReady(signal) {
  for (;;) {
    try {
      const facts = await api.ready(signal);
      find("query").disabled = !facts.text;
      if (!facts.text) find("query").placeholder = "This encoder supports images only: drop, paste or upload one";
      return facts;
    } catch (error) {
      if (error.code !== "not_ready") throw error;
      view.showSummary(error.message);
      await new Promise((resolve) => setTimeout(resolve, READY_POLL_MS));
      signal.throwIfAborted();
    }
  }
}

const shown = new Map();

function showResponse(current, response) {
  const records = response.results ?? response.items;
  shown.clear();
  for (const record of records) shown.set(record.id, record);
  view.showGrid(records, current.limit, { pair: compare.toggle, info: view.showDetails }, compare.chosen);
  view.showNoMatch(response.no_match && records.length);
  if (response.items) return view.showSummary(collectionSummary(records.length, response));
  const count = records.length === 1 ? "1 image" : `${records.length} images`;
  view.showSummary(records.length ? `${count}, best first` : "No images found", response.took_ms);
}

function collectionSummary(count, { total, collection, encoder }) {
  if (!total) return `The collection ${collection} is empty; index images first.`;
  const images = count < total ? `${count} of ${total.toLocaleString("en")} images` : `${total} images`;
  return `${images} in ${collection} · encoder ${encoder}`;
}

function fail(error, current) {
  find("grid").replaceChildren();
  shown.clear();
  view.showNoMatch(false);
  view.showSummary("");
  view.showProblem(error instanceof api.Problem ? error : { title: "Something went wrong", message: String(error) });
  find("retry").onclick = () => show(current);
}

function busy(on) {
  find("progress").hidden = !on;
  find("grid").setAttribute("aria-busy", on);
}

function searchImage(file) {
  if (!file) return;
  if (!mayBeImage(file)) {
    const message = `${file.name || "That"} is ${file.type}, not an image. Choose one such as a JPEG, PNG, WebP, HEIC or AVIF file.`;
    return view.showProblem({ title: "Not an image", message });
  }
  search({ image: state.keep(file), limit: state.read().limit }, { focus: true });
}

// Browsers don't know the type of every format that the service reads.
const mayBeImage = ({ name, type }) =>
  !type || type.startsWith("image/") || find("file").accept.split(",").includes(name.slice(name.lastIndexOf(".")).toLowerCase());

const firstImage = (transfer) => [...(transfer?.files ?? [])].find(mayBeImage) ?? transfer?.files?.[0];

function listen() {
  find("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const q = find("query").value.trim();
    if (q) search({ q, limit: state.read().limit });
    else find("query").focus();
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // under a root path, the page's base is another URL than its own
    find("results").focus();
  });
  find("home").addEventListener("click", (event) => follow(event, { limit: state.DEFAULT_LIMIT }));
  find("chip-remove").addEventListener("click", () => {
    search({ limit: state.read().limit });
    find("query").focus();
  });
  find("limit").addEventListener("change", () => search({ ...state.read(), limit: Number(find("limit").value) }));
  find("grid").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (link) follow(event, state.read(new URL(link.href).search), { focus: true });
  });
  find("grid").addEventListener("keydown", arrows);
  find("file").addEventListener("change", ({ target }) => pick(target, searchImage));
  find("compare-file").addEventListener("change", ({ target }) => pick(target, compare.add));
  find("compare-clear").addEventListener("click", compare.clear);
  addEventListener("popstate", () => location.search === shownSearch || show(state.read())); // the skip link changes only the fragment
  addEventListener("paste", (event) => {
    const file = firstImage(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    searchImage(file);
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    find("query").select();
  });
  listenForDrops();
}

function listenForDrops() {
  let depth = 0;
  const enter = (change) => {
    depth = Math.max(0, depth + change);
    find("drop").hidden = depth === 0;
  };
  const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => carriesFile(event) && enter(1));
  addEventListener("dragleave", (event) => carriesFile(event) && enter(-1));
  addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    enter(-depth);
    searchImage(firstImage(event.dataTransfer));
  });
}

// A plain click searches on this page; with a modifier key the link opens as usual.
function follow(event, next, options) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  search(next, options);
}

function pick(input, use) {
  const [file] = input.files;
  input.value = ""; // so that choosing the same file again fires `change`
  if (file) use(file);
}

// Arrow keys move the focus: left and right in order, up and down to the nearest image of the next row.
function arrows(event) {
  const link = event.target.closest?.(".image");
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!link || !step) return;
  const links = [...document.querySelectorAll(".image")];
  const target = step[0] ? links[links.indexOf(link) + step[0]] : nearestInNextRow(link, links, step[1]);
  if (!target) return;
  event.preventDefault();
  target.focus();
}

function nearestInNextRow(link, links, direction) {
  const box = (element) => element.getBoundingClientRect();
  const from = box(link), center = from.left + from.width / 2;
  const beyond = links.filter((other) => (box(other).top - from.top) * direction > 8);
  const row = beyond.length && Math.min(...beyond.map((other) => Math.abs(box(other).top - from.top)));
  return beyond
    .filter((other) => Math.abs(Math.abs(box(other).top - from.top) - row) < 8)
    .sort((a, b) => Math.abs(box(a).left + box(a).width / 2 - center) - Math.abs(box(b).left + box(b).width / 2 - center))[0];
}

listen();
show(state.read());
