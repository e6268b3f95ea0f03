// The map of the collection: similar images are close to each other. Results of the query stand out; a lasso is a filter.

import * as api from "../api.js";
import { element, stylesheet, toast } from "../dom.js";
import * as gestures from "./gestures.js";
import { nameOf } from "../grid.js";
import * as key from "../key.js";
import * as lasso from "./lasso.js";
import { colourReader, colouring, isColourable } from "./map_colours.js";
import * as controls from "./map_controls.js";
import * as results from "../results.js";
import { Scatter } from "./scatter.js";
import * as state from "../state.js";
import { Thumbnails, thumbnailUrl } from "./thumbnails.js";

const HIT_PX = 10, CENTRE_PX = 120; // how far the mouse and the keyboard, from the centre, find an image
const MIN_STEP_PX = 3;

let container, parts, scatter, map, thumbnails, asked; // asked: the collection of the last request
let indexOf = new Map();
let pending = new AbortController();
let staleFor; // the version of results for which the map was loaded again
let field = "", fields = [];
let drawing = false;

/** Build the map in an empty section. */
export async function mount(section) {
  container = section;
  await stylesheet("map/map.css");
  parts = controls.build({
    field: chooseField, lasso: () => setDrawing(!drawing), inView: filterToView, clear: () => state.change({ lasso: "" }),
    zoom: handlers.zoom, fit: handlers.fit, retry: load,
  });
  container.append(parts.problem, parts.bar, parts.stage);
  scatter = new Scatter(parts.canvas);
  gestures.listen(parts.canvas, handlers);
  results.subscribe(showResults);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => map && showColours());
  addEventListener("resize", setTop);
  container.addEventListener("keydown", stopDrawing);
}

/** Show the map for the current state; load it first if it is of another collection. */
export function show() {
  setTop();
  if (asked !== state.current().collection) return load();
  if (map) showState();
  return undefined;
}

/** Stop what only a visible map needs. */
export function hide() {
  setDrawing(false);
  hover(-1);
}

// The map ends at the bottom of the window.
const setTop = () => container.style.setProperty("--map-top", `${Math.round(container.getBoundingClientRect().top + scrollY)}px`);

async function load() {
  pending.abort();
  pending = new AbortController();
  const { signal } = pending;
  if (asked !== state.current().collection) field = "";
  asked = state.current().collection;
  controls.showProblem(parts, null);
  parts.status.textContent = "Loading the map …";
  try {
    const [loaded, { fields: all }] = await Promise.all([api.map(field, signal), api.fields(signal)]);
    fields = all.filter(isColourable).map(({ name }) => name);
    accept(loaded);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    map = undefined;
    controls.showProblem(parts, error);
  }
}

function accept(loaded) {
  const isOther = map?.collection !== loaded.collection || map.created !== loaded.created;
  const isChanged = isOther || map.version !== loaded.version; // by a write: the map stays as it is
  map = loaded;
  if (isChanged) {
    thumbnails?.close();
    thumbnails = new Thumbnails(map.version, () => scatter.draw());
    indexOf = new Map(map.ids.map((id, index) => [id, index]));
    scatter.setPoints(map, thumbnails);
  }
  if (isOther) scatter.view.fit();
  parts.canvas.setAttribute("aria-label", `Map of ${images(map.ids.length)}`);
  controls.showFields(parts, fields, field);
  showColours();
  showState();
}

async function chooseField(name) {
  field = name;
  pending.abort();
  pending = new AbortController();
  const { signal } = pending;
  try {
    accept(name ? await api.map(name, signal) : { ...map, field: null });
  } catch (error) {
    if (error.name !== "AbortError" && !signal.aborted) controls.showProblem(parts, error);
  }
}

function showColours() {
  const colour = colourReader(container), colours = colouring(map.field, map.ids.length, colour);
  scatter.setColours(colours.codes, colours.colours, { page: colour("--surface"), text: colour("--text"), accent: colour("--accent") });
  controls.showLegend(parts, map.field?.name, colours);
}

function showState() {
  const polygon = lasso.decode(state.current().lasso);
  scatter.lasso = polygon;
  parts.clear.hidden = !polygon.length;
  showResults();
}

// Without a query or a filter the results are any images, and none stands out.
function showResults() {
  if (!map || state.current().view !== "map") return;
  if (isStale()) return void load();
  const { parts: query, filters, lasso: polygon } = state.current();
  const isSearch = query.length > 0 || filters.length > 0;
  const ids = isSearch ? results.results().map(({ id }) => id) : polygon ? lasso.inside(map, polygon) : [];
  const marked = ids.map((id) => indexOf.get(id)).filter((index) => index !== undefined);
  scatter.mark(marked);
  parts.status.textContent = status(marked.length, isSearch && !results.isComplete());
}

function isStale() {
  const version = results.version();
  if (!version || version === map.version || version === staleFor) return false;
  staleFor = version;
  return true;
}

const images = (count) => (count === 1 ? "1 image" : `${count.toLocaleString("en")} images`);

function status(marked, isPart) {
  const texts = [images(map.ids.length)];
  if (map.unmapped) texts.push(`${map.unmapped.toLocaleString("en")} not on the map: compute it again with lookalike map`);
  if (marked) texts.push(`${isPart ? "the first " : ""}${marked.toLocaleString("en")} ${marked === 1 ? "result" : "results"} highlighted`);
  return texts.join(" · ");
}

function change(run) {
  hover(-1);
  run();
  scatter.draw();
}

const handlers = {
  pan: (dx, dy) => change(() => scatter.view.pan(dx, dy)),
  zoom: (factor, x, y) => change(() => scatter.view.zoom(factor, x, y)),
  fit: () => change(() => scatter.view.fit()),
  hover: (x, y) => hover(scatter.at(x, y, HIT_PX)),
  leave: () => hover(-1),
  click: (x, y) => openItem(scatter.at(x, y, HIT_PX)),
  moved: () => hover(atCentre()),
  open: () => openItem(atCentre()),
  drawing: () => drawing && Boolean(map),
  draw: drawTo,
  drawn: endDrawing,
};

const atCentre = () => scatter.at(scatter.view.width / 2, scatter.view.height / 2, CENTRE_PX);

function openItem(index) {
  if (map && index >= 0) state.change({ item: map.ids[index] });
}

function hover(index) {
  if (index === scatter.hovered || !map) return;
  scatter.hovered = index;
  parts.canvas.classList.toggle("over", index >= 0);
  scatter.draw();
  if (index < 0) controls.showTooltip(parts);
  else showTooltip(index);
}

function showTooltip(index) {
  const id = map.ids[index], record = results.recordOf(id), value = map.field?.values[index];
  const image = element("img", { alt: "", onerror: () => (image.hidden = true) });
  key.show(image, thumbnailUrl(id, map.version));
  const lines = [record ? nameOf(record) : id.split("/").at(-1) || id];
  if (map.field) lines.push(`${map.field.name}: ${value ?? "no value"}`);
  controls.showTooltip(parts, scatter.positionOf(index), image, lines);
}

function setDrawing(on) {
  drawing = on;
  parts.lasso.setAttribute("aria-pressed", on);
  parts.canvas.classList.toggle("drawing", on);
  scatter.draft = [];
  scatter.draw();
}

function stopDrawing(event) {
  if (event.key !== "Escape" || !drawing) return;
  event.stopPropagation(); // it would clear the selection too
  setDrawing(false);
}

function drawTo(x, y) {
  const last = scatter.draft.at(-1);
  if (last && Math.hypot(x - last[0], y - last[1]) < MIN_STEP_PX) return;
  scatter.draft.push([x, y]);
  scatter.draw();
}

function endDrawing(finished) {
  const drawn = scatter.draft.map((position) => scatter.view.toMap(position));
  scatter.draft = [];
  scatter.draw();
  if (finished && drawn.length > 2 && filterTo(drawn)) setDrawing(false);
}

const filterToView = () => map && filterTo(scatter.view.corners());

// Return whether the polygon became a filter.
function filterTo(polygon) {
  const text = lasso.encode(polygon), count = lasso.inside(map, text).length;
  const problem = !count ? "There are no images in this part of the map. Choose a part that has some."
    : count > lasso.MAX_IDS ? `There are ${images(count)} in this part of the map; a filter takes at most 10,000. Choose a smaller part.` : "";
  if (problem) toast(problem);
  else state.change({ lasso: text });
  return !problem;
}
