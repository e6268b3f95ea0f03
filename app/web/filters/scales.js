// Scales of sliders: positions 0..steps <-> bounds of a range <-> texts of inputs.
//
// A bound is a number; of numbers also a text, if a number would lose digits; of dates and times milliseconds. The
// upper bound of dates is the end of the last day: the range's `lt`, while its input shows the day before.

import { DAY_MS, numberText } from "./conditions.js";
import { elementType } from "./field_kinds.js";

const MAX_STEPS = 500;
const MINUTE = 60_000;
const LAST_MOMENT = Date.parse("9999-12-31T23:59:59.999Z");

/** Return the scale of a column of numbers, dates or times. */
export function scaleOf(field) {
  const type = elementType(field);
  if (type === "time") return timeOfDayScale(field);
  return type === "date" || type === "datetime" ? timelineScale(field, type) : numberScale(field, type);
}

/** Return the milliseconds of an ISO date or time stamp; one without an offset is in UTC. */
export function milliseconds(text) {
  text = text.replace(/([+-]\d\d:\d\d):\d\d$/, "$1"); // offsets before time zones have seconds, which browsers don't read
  const known = /[T ].*(Z|[+-]\d\d:?\d\d)$/.test(text) || !/[T ]/.test(text);
  return Date.parse(known ? text : `${text}Z`);
}

function numberScale(field, type) {
  const edges = field.histogram?.edges.map(Number) ?? [Number(field.minimum), Number(field.maximum)];
  const low = edges[0], high = edges.at(-1);
  const step = roundStep((high - low) / MAX_STEPS, type === "integer");
  const first = Math.round(low / step); // edges are multiples of the step, but not exactly, as 0.1 + 0.2 is not 0.3
  const end = type === "integer" && step === 1 ? 1 : 0; // the upper bound 3 includes the whole bin from 3 to 4
  const whole = (number) => (Number.isSafeInteger(number) ? number : BigInt(number).toString());
  return {
    input: { type: "number", step: "any" },
    steps: Math.ceil((high - low) / step),
    place: (bound, side = 0) => (Number(bound) + side * end - low) / (high - low),
    bound(position, side) {
      const number = (first + position) * step - side * end;
      return type === "integer" ? whole(Math.round(number)) : Number(number.toPrecision(12));
    },
    edge: Number,
    lower: (range) => range.gte ?? range.gt,
    upper: (range) => range.lte ?? range.lt,
    range: (gte, lte) => ({ gte, lte }),
    toInput: (bound) => String(bound),
    fromInput: exactNumber,
    text: numberText,
    unit: type === "duration" ? "seconds" : "",
    ends: [field.minimum, field.maximum].map((value) => String(value === 0 ? 0 : value)), // not "-0"
  };
}

// 1, 2 or 5 times a power of ten, as the edges of histograms are.
function roundStep(width, whole) {
  const power = 10 ** Math.floor(Math.log10(width)), digit = width / power;
  const step = power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
  return whole ? Math.max(1, step) : step;
}

function exactNumber(text) {
  const digits = text.replace(/e.*$/i, "").replace(/\D/g, "").replace(/^0+/, "");
  return digits.length > 15 ? text : Number(text);
}

function timelineScale(field, type) {
  const [first, last] = [field.histogram.edges[0], field.histogram.edges.at(-1)].map(milliseconds);
  const unit = type === "date" || last - first >= 3 * DAY_MS ? DAY_MS : last - first >= 180 * MINUTE ? MINUTE : 1000;
  const low = Math.floor(first / unit) * unit, units = Math.ceil((last - low) / unit);
  const step = Math.ceil(units / (2 * MAX_STEPS)) * unit;
  const length = { [DAY_MS]: 10, [MINUTE]: 16, 1000: 19 }[unit];
  const iso = (time) => new Date(Math.min(time || 0, LAST_MOMENT)).toISOString().slice(0, unit === DAY_MS ? 10 : 19);
  const written = (time) => time === undefined ? undefined : iso(time) + (unit === DAY_MS ? "" : "Z");
  const toInput = (time, side) => iso(side ? time - unit : time).slice(0, length);
  return {
    input: { type: unit === DAY_MS ? "date" : "datetime-local", step: unit === 1000 ? 1 : null },
    steps: Math.ceil((last - low) / step),
    place: (time) => (time - low) / (last - low),
    bound: (position) => low + position * step,
    edge: milliseconds,
    lower: (range) => moment(range.gte ?? range.gt),
    upper: (range) => range.lt !== undefined ? moment(range.lt) : dayAfter(range.lte),
    range: (gte, lt) => lt > LAST_MOMENT ? { gte: written(gte) } : { gte: written(gte), lt: written(lt) },
    toInput,
    fromInput: (text, side) => milliseconds(unit === DAY_MS ? text : `${text}Z`) + (side ? unit : 0),
    text: (time, side) => toInput(time, side).replace("T", " "),
    unit: unit === DAY_MS ? "" : "UTC",
    ends: [field.minimum, field.maximum].map((value) => toInput(milliseconds(value), 0).replace("T", " ")),
  };
}

/** Return the milliseconds of a bound; undefined if there is none, or none that is a time. */
function moment(value) {
  const time = milliseconds(String(value));
  return Number.isNaN(time) ? undefined : time;
}

function dayAfter(value) {
  const time = moment(value);
  return time !== undefined && !String(value).includes("T") ? time + DAY_MS : time;
}

function timeOfDayScale(field) {
  const step = 5 * MINUTE;
  const written = (time) => (time === undefined ? undefined : new Date(time).toISOString().slice(11, 19));
  const read = (text) => moment(`1970-01-01T${text}Z`);
  return {
    input: { type: "time", step: 1 },
    steps: DAY_MS / step,
    place: (time) => time / DAY_MS,
    bound: (position) => Math.min(position * step, DAY_MS - 1000),
    lower: (range) => read(range.gte ?? range.gt),
    upper: (range) => read(range.lte ?? range.lt),
    range: (gte, lte) => ({ gte: written(gte), lte: written(lte) }),
    toInput: written,
    fromInput: read,
    text: (time) => written(time).slice(0, 5),
    unit: "",
    ends: [field.minimum, field.maximum].map((value) => value.slice(0, 8)),
  };
}
