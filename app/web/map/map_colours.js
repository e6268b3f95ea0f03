// Colours of points by the values of a field. The colours themselves are those of map.css, for light and for dark.

import { range } from "./viewport.js";

const MAX_VALUES = 10;
const STEPS = 32;
const MAX_DISTINCT = 100, FEW = 12;
const DATES = ["date", "datetime"], SCALES = ["integer", "number", ...DATES], TEXTS = ["text", "boolean", "list of text"]; // of a list, the first element

/** Return whether points can be coloured by a field: a scale, or values that repeat. */
export function isColourable({ type, count, distinct }) {
  if (SCALES.includes(type)) return count > 0;
  return TEXTS.includes(type) && distinct > 0 && (distinct <= FEW || (distinct <= MAX_DISTINCT && 2 * distinct <= count));
}

/**
 * Return `{ codes, colours, entries, ends }` for a field `{ type, values }`, or none: a code for each point, a colour
 * for each code, and a legend: `entries` are `{ label, count, code }`, `ends` the labels of a scale.
 * `colour(name)` is `[r, g, b]` of a custom property.
 */
export function colouring(field, size, colour) {
  if (!field) return { codes: new Uint8Array(size), colours: [colour("--accent")], entries: [] };
  const made = TEXTS.includes(field.type) ? categories(field.values, colour) : scale(field, colour);
  const none = made.colours.push(colour("--map-none")) - 1, missing = made.codes.filter((code) => code === -1).length;
  if (missing) made.entries.push({ label: "no value", count: missing, code: none });
  return { ...made, codes: Uint8Array.from(made.codes, (code) => (code < 0 ? none : code)) };
}

function categories(values, colour) {
  const counts = new Map();
  for (const value of values) if (value !== null) counts.set(value, (counts.get(value) ?? 0) + 1);
  const ranked = [...counts].sort((a, b) => b[1] - a[1]), others = ranked.splice(MAX_VALUES);
  const entries = ranked.map(([value, count], code) => ({ label: String(value), count, code }));
  const rest = others.reduce((sum, [, count]) => sum + count, 0), code = new Map(ranked.map(([value], rank) => [value, rank]));
  if (rest) entries.push({ label: `${others.length} other values`, count: rest, code: MAX_VALUES });
  const colours = Array.from({ length: MAX_VALUES }, (_, rank) => colour(`--map-${rank}`));
  return {
    codes: values.map((value) => (value === null ? -1 : code.get(value) ?? MAX_VALUES)),
    colours: [...colours, colour("--map-other")],
    entries,
  };
}

function scale({ type, values }, colour) {
  const isDate = DATES.includes(type), label = (number) =>
    isDate ? new Date(number).toISOString().slice(0, 10) : number.toLocaleString("en", { maximumSignificantDigits: 6 });
  const numbers = values.map((value) => (value === null ? NaN : isDate ? Date.parse(value) : Number(value)));
  const [low, high] = range(numbers), step = (number) => Math.round(((number - low) / (high - low || 1)) * (STEPS - 1));
  const stops = ["--map-low", "--map-middle", "--map-high"].map(colour);
  return {
    codes: numbers.map((number) => (Number.isFinite(number) ? step(number) : -1)),
    colours: Array.from({ length: STEPS }, (_, at) => between(stops, (at / (STEPS - 1)) * (stops.length - 1))),
    entries: [],
    ends: [label(low), label(high)],
  };
}

function between(stops, at) {
  const from = Math.min(stops.length - 2, Math.floor(at));
  return stops[from].map((part, i) => Math.round(part + (stops[from + 1][i] - part) * (at - from)));
}

/** Return a function that reads colours of an element's custom properties as `[r, g, b]`. */
export function colourReader(element) {
  const style = getComputedStyle(element), context = document.createElement("canvas").getContext("2d");
  return (name) => {
    context.fillStyle = style.getPropertyValue(name).trim(); // the browser turns any notation into #rrggbb
    return [1, 3, 5].map((at) => parseInt(context.fillStyle.slice(at, at + 2), 16));
  };
}
