// The search page: what the user does becomes a state, a state becomes an address and one request, an answer becomes
// the grid. It is a client of the public API and knows nothing that the API does not say.

import * as api from "./api.js";
import * as compare from "./compare.js";
import * as state from "./state.js";
import * as view from "./view.js";

const find = (id) => document.getElementById(id);
const OPENING_MS = 1000;
let current = new AbortController();
let shownSearch;

function search(next, { focus = false } = {}) {
  state.go(next);
  scrollTo(0, 0);
  return show(next, { focus });
}

async function show(now, { focus = false } = {}) {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  shownSearch = location.search;
  describe(now);
  showLiked(now.like, signal);
  busy(true);
  try {
    const answer = await fetchFor(now, signal);
    present(now, answer);
    if (focus) find("results").focus({ preventScroll: true });
  } catch (error) {
    if (error.name === "AbortError") return;
    fail(error, now);
  } finally {
    if (!signal.aborted) busy(false);
  }
}

// Before the answer: the box, the chip and the title already say what is being looked for.
function describe(now) {
  const start = !(now.q || now.like || now.image);
  document.body.dataset.view = start ? "start" : "results";
  document.title = now.q ? `${now.q} · Lookalike` : "Lookalike";
  find("query").value = now.q ?? "";
  find("limit").value = now.limit;
  find("private").hidden = !now.image;
  view.showProblem(null);
  const image = now.image && state.kept(now.image);
  find("query").placeholder = now.like || now.image ? "or describe" : "a cat on a sofa";
  view.showChip(image ? { url: image.url, name: "Your image" } : now.like ? { name: "Like this" } : null);
}

async function showLiked(id, signal) {
  if (!id) return;
  const known = shown.get(id) ?? (await api.item(id, signal).catch(() => null)); // the search itself tells what fails
  if (known && !signal.aborted) view.showChip({ url: known.thumbnail_url, name: view.nameOf(known) });
}

function fetchFor(now, signal) {
  if (now.q) return api.searchText(now.q, now.limit, signal);
  if (now.like) return api.searchItem(now.like, now.limit, signal);
  if (!now.image) return browse(now.limit, signal);
  const image = state.kept(now.image);
  if (image) return api.searchImage(image.blob, now.limit, signal);
  throw new api.Problem(0, {
    title: "The image is gone",
    detail: "An image is kept only while its tab is open and is not part of the address. Drop, paste or upload it again.",
  });
}

async function browse(limit, signal) {
  const { items: total } = await opened(signal);
  const offset = Math.floor(Math.random() * Math.max(1, total - limit + 1));
  return { ...(await api.items(offset, limit, signal)), total };
}

// The port answers before the collection is open: wait for it, and say so.
async function opened(signal) {
  for (;;) {
    try {
      const facts = await api.ready(signal);
      find("query").disabled = !facts.text;
      if (!facts.text) find("query").placeholder = "This encoder takes images only: drop, paste or upload one";
      return facts;
    } catch (error) {
      if (error.code !== "not_ready") throw error;
      view.showSummary(error.message);
      await new Promise((resolve) => setTimeout(resolve, OPENING_MS));
      signal.throwIfAborted();
    }
  }
}

const shown = new Map();

function present(now, answer) {
  const records = answer.results ?? answer.items;
  shown.clear();
  for (const record of records) shown.set(record.id, record);
  view.showGrid(records, now.limit, { pair: compare.toggle, info: view.showDetails }, compare.chosen);
  if (answer.items) return view.showSummary(welcome(records.length, answer));
  const count = records.length === 1 ? "1 image" : `${records.length} images`;
  view.showSummary(records.length ? `${count}, best first` : "No image found", answer.took_ms);
}

function welcome(count, { total, collection, encoder }) {
  if (!total) return `The collection ${collection} is empty: index some images first.`;
  const some = count < total ? `${count} of ${total.toLocaleString("en")} images` : `${total} images`;
  return `${some} in ${collection} · encoder ${encoder}`;
}

function fail(error, now) {
  find("grid").replaceChildren();
  shown.clear();
  view.showSummary("");
  view.showProblem(error instanceof api.Problem ? error : { title: "Something went wrong", message: String(error) });
  find("retry").onclick = () => show(now);
}

function busy(on) {
  find("progress").hidden = !on;
  find("grid").setAttribute("aria-busy", on);
}

function searchImage(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) {
    const message = `${file.name || "That"} is ${file.type}, not an image. JPEG, PNG, WebP, GIF, BMP and TIFF work.`;
    return view.showProblem({ title: "Not an image", message });
  }
  search({ image: state.keep(file), limit: state.read().limit }, { focus: true });
}

const firstImage = (transfer) =>
  [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? transfer?.files?.[0];

function listen() {
  find("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const q = find("query").value.trim();
    if (q) search({ q, limit: state.read().limit });
    else find("query").focus();
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
  addEventListener("popstate", () => location.search === shownSearch || show(state.read())); // the skip link is no step
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
  const over = (change) => {
    depth = Math.max(0, depth + change);
    find("drop").hidden = depth === 0;
  };
  const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => carriesFile(event) && over(1));
  addEventListener("dragleave", (event) => carriesFile(event) && over(-1));
  addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    over(-depth);
    searchImage(firstImage(event.dataTransfer));
  });
}

// A plain click stays on the page; with a modifier the link does what links do.
function follow(event, next, options) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  search(next, options);
}

function pick(input, use) {
  const [file] = input.files;
  input.value = ""; // the same file may be chosen again
  if (file) use(file);
}

// Arrow keys walk the images as they lie: left and right by order, up and down to the nearest one of the next row.
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
  const place = (element) => element.getBoundingClientRect();
  const here = place(link), middle = here.left + here.width / 2;
  const beyond = links.filter((other) => (place(other).top - here.top) * direction > 8);
  const row = beyond.length && Math.min(...beyond.map((other) => Math.abs(place(other).top - here.top)));
  return beyond
    .filter((other) => Math.abs(Math.abs(place(other).top - here.top) - row) < 8)
    .sort((a, b) => Math.abs(place(a).left + place(a).width / 2 - middle) - Math.abs(place(b).left + place(b).width / 2 - middle))[0];
}

listen();
show(state.read());
