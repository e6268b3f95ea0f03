// How a column of the collection can be filtered: by its values, a range, the start of a text, or whether it has one.

const MAX_LISTED_INTEGERS = 20;
const MAX_GROUP_SPAN = 10_000;
const OWN_COLUMNS = ["format", "source", "width", "height", "truncated"]; // less telling than a source's own columns
const ORDER = ["values", "time", "number", "prefix", "exists"];
const TIMES = ["date", "datetime", "time"];
const NUMBERS = ["integer", "number", "duration"];

/** Return the type of a column's values, or of the elements of its lists. */
export const elementType = (field) => field.type.split("list of ").at(-1);

/** Return "values", "number", "time", "prefix" or "exists"; null for a column that tells nothing apart. */
export function kindOf(field, total) {
  if (!field.count) return null;
  return choice(field, total) ?? (field.count < total ? "exists" : null);
}

function choice(field, total) {
  const type = elementType(field);
  if (field.values && !(NUMBERS.includes(type) && field.distinct > MAX_LISTED_INTEGERS)) {
    if (field.distinct === 1 && field.count === total) return null;
    if (!isDistinct(field)) return "values";
    return type === "text" ? "prefix" : null; // the service has no prefix of a UUID
  }
  if (field.minimum === null || (field.minimum === field.maximum && field.count === total)) return null;
  return TIMES.includes(type) ? "time" : NUMBERS.includes(type) ? "number" : null;
}

/** Return whether hardly any two items share a value, as of ids, paths and captions. */
function isDistinct({ name, type, values, distinct, count }) {
  if (name === "id") return true;
  const mostly = !type.startsWith("list of") && distinct > values.length && distinct > count / 2;
  return distinct > 1 && (values[0]?.count === 1 || mostly);
}

// Lists of which most values occur once, such as several captions of each item.
const isMostlyDistinct = ({ values, distinct, count }) => Boolean(values) && distinct > count;

/** Return [field, kind] of the columns that can be filtered by, the most useful ones first. */
export function arranged(fields, total) {
  const rank = ([field, kind]) =>
    (isMostlyDistinct(field) ? ORDER.length : ORDER.indexOf(kind)) * 2 + OWN_COLUMNS.includes(field.name);
  return fields
    .map((field) => [field, kindOf(field, total)])
    .filter(([, kind]) => kind)
    .sort((a, b) => rank(a) - rank(b)); // `sort` is stable: columns of a kind keep their order
}

/** Return whether results can be grouped by a column: single values, at most half as many as items have one. */
export function groupsWell({ name, type, values, distinct, count, minimum, maximum }) {
  if (name === "id") return false;
  if (values && !type.includes("list of")) return distinct > 1 && distinct <= count / 2;
  const span = type === "integer" ? maximum - minimum : 0;
  return span > 0 && span < MAX_GROUP_SPAN && span + 1 <= count / 2;
}
