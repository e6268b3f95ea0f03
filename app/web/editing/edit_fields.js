// The fields of the metadata form: texts of values, and values of texts, by the type of their column.

import { element } from "../dom.js";

const MEASURED = ["id", "source", "path", "width", "height", "format", "truncated"]; // writes can't set them
const NUMBERS = ["integer", "number"];
const TYPES = ["text", "boolean", "date", "datetime", "time", "duration", "uuid", "null", ...NUMBERS];
const NEW_TYPES = { text: "Text", number: "Number", boolean: "Yes or no", "list of text": "List" };

/** Return whether the form can change a column: not those that are measured, or of records. */
export function isEditable({ name, type }, fields) {
  const isPart = fields.some((other) => other.type === "record" && name.startsWith(`${other.name}.`));
  return !MEASURED.includes(name) && !name.startsWith("_") && !isPart && TYPES.includes(elementType(type));
}

const isList = (type) => type.startsWith("list of ");
const elementType = (type) => type.replace(/^list of /, "");

function textOf(value) {
  if (value === null || value === undefined) return "";
  return Array.isArray(value) ? value.map((each) => each ?? "").join("\n") : String(value);
}

/** Return the value of a text; null for an empty one. Raises an error with a message. */
function valueOf(text, type) {
  if (!text.trim()) return null;
  if (isList(type)) return text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => valueOf(line, elementType(type)));
  if (type === "boolean") return asBoolean(text);
  if (!NUMBERS.includes(type) && type !== "duration") return text;
  const number = Number(text);
  if (!Number.isFinite(number)) throw new Error(`${text} is not a number. Write it like 12.5.`);
  return Number.isInteger(number) && !Number.isSafeInteger(number) ? text.trim() : number; // JSON would lose digits
}

function asBoolean(text) {
  if (!["true", "false"].includes(text)) throw new Error(`${text} is neither true nor false.`);
  return text === "true";
}

function inputFor(type, text) {
  if (type === "boolean") return choice([["", ""], ["true", "Yes"], ["false", "No"]], text);
  if (type === "text" || isList(type)) {
    const area = element("textarea", { rows: Math.min(6, Math.max(isList(type) ? 2 : 1, text.split("\n").length)) });
    area.value = text;
    return area;
  }
  const kinds = { date: { type: "date" }, datetime: { placeholder: "2026-01-31T12:00:00" }, time: { placeholder: "12:00:00" } };
  const input = element("input", { type: "text", ...(NUMBERS.includes(type) ? { inputmode: "decimal" } : kinds[type]) });
  input.value = text;
  return input;
}

function choice(options, chosen) {
  return element("select", {}, ...options.map(([value, label]) => element("option", { value, selected: value === chosen }, label)));
}

let notes = 0;

// A message beside the input, which screen readers read with it.
function withMessage(made) {
  const note = element("span", { class: "edit-field-problem", id: `edit-problem-${(notes += 1)}` });
  made.show = (text) => {
    note.textContent = text;
    made.input.setAttribute("aria-invalid", Boolean(text));
    made.input.setAttribute("aria-describedby", note.id);
  };
  made.problem = (text) => {
    throw Object.assign(new Error(text), { field: made });
  };
  made.read = (text, type) => {
    try {
      return valueOf(text, type);
    } catch ({ message }) {
      return made.problem(message);
    }
  };
  return note;
}

/** Return the row of a column in the form. */
export function row({ name, type }, initial) {
  let before = textOf(initial);
  const input = inputFor(type, before), made = { name, input };
  const note = withMessage(made);
  input.id = `${note.id}-input`;
  made.line = element("div", { class: "edit-field" }, element("label", { class: "edit-name", for: input.id }, name), input, note);
  made.isChanged = () => input.value !== before;
  made.value = () => made.read(input.value, type);
  made.rebase = (value) => {
    const text = textOf(value);
    if (!made.isChanged()) input.value = text;
    else if (text !== before) made.show(`It is ${text || "empty"} now.`);
    before = text;
  };
  return made;
}

/** Return the fields for a new column: its name, its type and the value. */
export function newField() {
  const input = element("input", { type: "text", "aria-label": "Name of the new field", placeholder: "name", maxlength: 128 });
  const type = choice(Object.entries(NEW_TYPES), "text");
  type.setAttribute("aria-label", "Type of the new field");
  const made = { input }, note = withMessage(made), place = element("span", { class: "edit-new-value" });
  const showInput = () => {
    const value = inputFor(type.value, "");
    value.setAttribute("aria-label", "Value of the new field");
    place.replaceChildren(value);
  };
  type.addEventListener("change", showInput);
  showInput();
  made.name = () => input.value.trim();
  made.isFilled = () => place.firstChild.value.trim() !== "";
  made.value = () => (made.isFilled() ? made.read(place.firstChild.value, type.value) : made.problem(`Give ${made.name()} a value.`));
  made.fieldset = element("fieldset", { class: "edit-new" }, element("legend", {}, "New field"), input, type, place, note);
  return made;
}
