// Conditions of a filter: texts for them, and edits of lists of them. No DOM.

const TESTS = ["equals", "in", "range", "prefix", "exists"];
const DAY = /^\d{4}-\d\d-\d\d$/;
const MOMENT = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?(.*)$/;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const MAX_NAMED_VALUES = 3;
const MAX_CHARACTERS = 40;
export const DAY_MS = 86_400_000;

// Four digits stay together: a year is 2026, not 2,026.
const decimal = new Intl.NumberFormat("en", { useGrouping: "min2", maximumFractionDigits: 12 });
const scientific = new Intl.NumberFormat("en", { notation: "scientific", maximumSignificantDigits: 6 });

/** Return the test of a flat condition, such as "range"; undefined for nested and invalid ones. */
export function testOf(condition) {
  if (!condition || typeof condition.field !== "string") return undefined;
  const [test, ...others] = Object.keys(condition).filter((key) => key !== "field");
  return others.length || !TESTS.includes(test) || condition[test] == null ? undefined : test;
}

/** Return a condition in words, such as "width 300 to 800". */
export function label(condition) {
  const { field } = condition ?? {}, test = testOf(condition), value = condition?.[test];
  if (test === "exists" && typeof value === "boolean") return `${value ? "any" : "no"} ${field}`;
  if (test === "prefix" && typeof value === "string") return `${field} starts with “${shortened(value)}”`;
  if (test === "equals" && typeof value !== "object") return `${field} ${valueText(value)}`;
  if (test === "in" && Array.isArray(value) && value.length) return `${field} ${alternatives(value)}`;
  if (test === "range" && typeof value === "object") {
    const text = rangeText(value);
    if (text) return `${field} ${text}`;
  }
  return shortened(JSON.stringify(condition) ?? "", 2 * MAX_CHARACTERS);
}

/** Return a value of a column as text, shortened. */
export function valueText(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return numberText(value);
  const text = String(value);
  return text.trim() ? shortened(text) : "(empty)";
}

/** Return a number, or the text of one that has more digits than JavaScript's numbers, for reading. */
export function numberText(value) {
  const number = Math.abs(Number(value)); // `format` takes texts, too, and keeps their digits
  const extreme = number && (number < 1e-6 || number >= 1e21);
  return (extreme ? scientific : decimal).format(Number(value) === 0 ? 0 : value);
}

/** Return the first condition of a field that has one of these tests, as its index in the list, or -1. */
export const indexOf = (filters, field, tests = TESTS) =>
  filters.findIndex((condition) => condition?.field === field && tests.includes(testOf(condition)));

/** Return the conditions without the one at an index. */
export const without = (filters, index) => filters.filter((_, i) => i !== index);

/** Return the conditions with the field's one replaced: by another in its place, or by none if it is null.
 * Only a condition with one of `tests` is replaced; others of the field stay. */
export function replace(filters, field, condition, tests = TESTS) {
  const index = indexOf(filters, field, tests);
  if (!condition) return without(filters, index);
  return index < 0 ? [...filters, condition] : filters.with(index, condition);
}

function shortened(text, length = MAX_CHARACTERS) {
  const characters = [...text]; // not to cut an emoji in half
  return characters.length > length ? `${characters.slice(0, length - 1).join("")}…` : text;
}

function alternatives(values) {
  const named = values.slice(0, values.length > MAX_NAMED_VALUES + 1 ? MAX_NAMED_VALUES : values.length).map(valueText);
  const others = values.length - named.length;
  const last = others ? `${others} more` : named.pop();
  return named.length ? `${named.join(", ")} or ${last}` : last;
}

function rangeText(range) {
  let { gt, gte, lt, lte } = range;
  if (Object.keys(range).some((key) => !["gt", "gte", "lt", "lte"].includes(key))) return "";
  if (lte === undefined && DAY.test(lt)) [lt, lte] = [undefined, dayBefore(lt)]; // the last day that passes
  const isTime = [gt, lt].some((bound) => typeof bound === "string" && bound.includes("-", 1) && !NUMBER.test(bound));
  if (gte !== undefined && lte !== undefined && gt === undefined && lt === undefined) {
    return gte === lte ? boundText(gte) : `${boundText(gte)} to ${boundText(lte)}`;
  }
  const words = { gte: "from", gt: isTime ? "after" : "above", lte: "up to", lt: isTime ? "before" : "below" };
  return Object.entries({ gte, gt, lte, lt })
    .filter(([, bound]) => bound !== undefined)
    .map(([test, bound]) => `${words[test]} ${boundText(bound)}`)
    .join(", ");
}

function boundText(bound) {
  if (typeof bound === "number" || NUMBER.test(bound)) return numberText(bound);
  const [, day, time, seconds = "", zone] = MOMENT.exec(bound) ?? [];
  if (!day) return shortened(String(bound));
  return `${day} ${time}${/[1-9]/.test(seconds) ? seconds : ""}${/^(Z|\+00:?00|)$/.test(zone) ? "" : zone}`;
}

function dayBefore(day) {
  const time = Date.parse(day);
  return Number.isNaN(time) ? day : new Date(time - DAY_MS).toISOString().slice(0, 10);
}
