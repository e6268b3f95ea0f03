// The metadata of an item as a list of names and values. A link in them is text alone: it may lead anywhere.

import { element } from "../dom.js";

const MAX_CHARACTERS = 600;
const ISO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d/;

/** Return a <dl> of the id and all columns of an item. */
export function metadataList(record) {
  const rows = [["id", record.id], ...Object.entries(record.metadata)];
  const shown = rows.filter(([, value]) => value !== null && value !== undefined);
  return element("dl", { class: "metadata" }, ...shown.flatMap(([name, value]) => [
    element("dt", {}, name), element("dd", {}, valueOf(value)),
  ]));
}

function valueOf(value) {
  if (typeof value === "string") return textOf(value);
  if (Array.isArray(value)) return listOf(value);
  if (typeof value === "object" && value !== null) return objectOf(value);
  return String(value);
}

function textOf(text) {
  if (ISO_TIME.test(text)) return element("time", { datetime: text }, text.replace("T", " "));
  if (text.length <= MAX_CHARACTERS) return text;
  const short = element("span", {}, `${text.slice(0, MAX_CHARACTERS)} … `);
  const onclick = () => short.replaceWith(text);
  short.append(element("button", { type: "button", class: "more", onclick }, "Show all"));
  return short;
}

function listOf(values) {
  if (!values.length) return "none";
  const isPlain = values.every((value) => typeof value !== "object" || value === null);
  if (isPlain) return textOf(values.join(", "));
  return element("ul", {}, ...values.map((value) => element("li", {}, valueOf(value))));
}

function objectOf(object) {
  return element("dl", {}, ...Object.entries(object).flatMap(([name, value]) => [
    element("dt", {}, name), element("dd", {}, valueOf(value)),
  ]));
}
