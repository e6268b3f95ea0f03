// The panel Sketch: a drawing that is a part of the query. Each stroke is an entry of the history; while one is drawn,
// the search follows. The canvas shows what is sent, and follows the state when that changes elsewhere.

import { element, icon, stylesheet } from "../dom.js";
import * as state from "../state.js";
import { COLORS, decode, draw, encode, withFilled } from "./strokes.js";

const WIDTHS = [["Fine", 0.012], ["Medium", 0.03], ["Wide", 0.07], ["Very wide", 0.14]];
const TOOLS = [
  ["Pen", "Draw lines"],
  ["Fill", "Draw an area, or tap into a shape or the background to fill it"],
  ["Eraser", "Paint in the colour of the paper"],
];
const WEIGHT = 0.5; // beside a text of weight 1: see benchmarks/history/sketch.md
const LIVE_MS = 400; // between searches while a stroke is drawn
const TAP = 0.02; // a shorter stroke of the fill tool is a tap
const ERASER_BUTTON = 5; // the other end of a stylus
const NARROW = "(max-width: 760px)";
const LABEL =
  "Your drawing. It needs a mouse, a finger or a stylus; with a keyboard, describe the image in the search box instead.";

const tool = { kind: "Pen", color: COLORS[0][1], width: WIDTHS[1][1] };
let canvas, context, buttons;
let strokes = [], past = [], future = [];
let written = ""; // the drawing as the state has it, as far as this module knows
let stroke = null; // the one being drawn
let pushed = false; // whether its entry of the history exists
let timer = null, frame = null;

/** Build the panel, once. */
export async function mount(container) {
  await stylesheet("sketch/sketch.css");
  canvas = element("canvas", { class: "sketch-canvas", role: "img", "aria-label": LABEL, tabindex: -1 });
  context = canvas.getContext("2d");
  buttons = {
    undo: button("Undo", "undo", undo), redo: button("Redo", "undo", redo), clear: button("Clear", "trash", clear),
  };
  buttons.redo.classList.add("sketch-redo");
  container.classList.add("sketch");
  container.append(
    canvas,
    choice("Tool", TOOLS.map(([name, title]) => ({ value: name, content: name, title })), "kind"),
    choice("Colour", COLORS.map(([name, value]) => ({ value, name, content: swatch(value) })), "color", anotherColor()),
    choice("Width", WIDTHS.map(([name, value]) => ({ value, name, content: dot(value) })), "width"),
    element("div", { class: "sketch-actions" }, ...Object.values(buttons)),
    element("p", { class: "sketch-note" }, "Areas of colour find more than outlines. Add a text to say what it is."),
  );
  container.addEventListener("keydown", onKey);
  listenToPointer();
  new ResizeObserver(paintSoon).observe(canvas);
  state.subscribe(follow);
  follow(state.current());
  showButtons();
}

function button(name, symbol, onclick) {
  return element("button", { type: "button", class: "button", onclick }, icon(symbol), name);
}

// Radio buttons: one of them is chosen, by arrow keys too.
function choice(legend, options, key, ...more) {
  const radios = options.map(({ value, name = value, title, content }) => {
    const input = element("input", {
      type: "radio", name: `sketch-${key}`, "aria-label": name,
      checked: tool[key] === value, onchange: () => choose(key, value),
    });
    return element("label", { class: "sketch-option", title: title ?? name }, input, content);
  });
  const heading = element("legend", { class: "visually-hidden" }, legend);
  return element("fieldset", { class: `sketch-choice sketch-${key}` }, heading, ...radios, ...more);
}

function choose(key, value) {
  tool[key] = value;
  if (key === "color" && tool.kind === "Eraser") canvas.parentElement.querySelector("[name=sketch-kind]").click();
}

function swatch(color) {
  const made = element("span", { class: "sketch-swatch" });
  made.style.backgroundColor = color;
  return made;
}

function dot(width) {
  const made = element("span", { class: "sketch-dot" });
  made.style.width = made.style.height = `${4 + width * 150}px`;
  return made;
}

function anotherColor() {
  const name = "Another colour";
  const attributes = { type: "color", "aria-label": name, title: name, value: "#c0a080" };
  const input = element("input", { ...attributes, oninput: pick, onclick: pick });
  function pick() {
    for (const radio of canvas.parentElement.querySelectorAll("[name=sketch-color]")) radio.checked = false;
    choose("color", input.value);
  }
  return input;
}

// Drawing

function listenToPointer() {
  canvas.addEventListener("pointerdown", (event) => {
    if (![0, ERASER_BUTTON].includes(event.button) || !event.isPrimary || stroke) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true }); // so that Ctrl+Z reaches the panel
    begin(event);
  });
  canvas.addEventListener("pointermove", (event) => stroke?.pointer === event.pointerId && extend(event));
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => stroke?.pointer === event.pointerId && finish());
  }
}

function pointOf(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function begin(event) {
  const eraser = tool.kind === "Eraser" || event.button === ERASER_BUTTON, fill = !eraser && tool.kind === "Fill";
  const width = fill ? WIDTHS[0][1] : tool.width;
  stroke = { color: tool.color, width, eraser, fill, points: [pointOf(event)], pointer: event.pointerId };
  pushed = false;
  paintSoon();
}

function extend(event) {
  const events = event.getCoalescedEvents?.() ?? [];
  stroke.points.push(...(events.length ? events : [event]).map(pointOf));
  paintSoon();
  timer ??= setTimeout(() => {
    timer = null;
    const first = !written; // it moves the canvas, as the start page becomes a page of results: not under the pen
    if (stroke && !first && !isTap(stroke)) write(encode([...strokes, stroke]));
  }, LIVE_MS);
}

function isTap({ fill, points: [first, ...others] }) {
  return fill && others.every(([x, y]) => Math.hypot(x - first[0], y - first[1]) < TAP);
}

function finish() {
  const { pointer, ...drawn } = stroke;
  stroke = null;
  if (isTap(drawn)) return set(withFilled(strokes, drawn.points[0], drawn.color));
  if (drawn.fill) drawn.points.push(drawn.points[0]);
  return set([...strokes, drawn]);
}

// What is shown is what is sent: the strokes are those of the text.
function set(next) {
  past.push(strokes);
  future = [];
  show(next);
}

function show(next) {
  const text = encode(next);
  strokes = decode(text);
  write(text);
  pushed = false;
  paintSoon();
  showButtons();
}

function undo() {
  if (stroke || !strokes.length && !past.length) return;
  future.push(strokes);
  show(past.pop() ?? strokes.slice(0, -1)); // a drawing of the URL has no past: its strokes go one by one
}

function redo() {
  if (stroke || !future.length) return;
  past.push(strokes);
  show(future.pop());
}

const clear = () => !stroke && strokes.length && set([]);

function showButtons() {
  buttons.undo.disabled = !strokes.length && !past.length;
  buttons.redo.disabled = !future.length;
  buttons.clear.disabled = !strokes.length;
}

function onKey(event) {
  const key = event.key.toLowerCase();
  if (!(event.ctrlKey || event.metaKey) || event.altKey || !["z", "y"].includes(key)) return;
  event.preventDefault();
  if (key === "y" || event.shiftKey) redo();
  else undo();
}

// The state

function write(text) {
  clearTimeout(timer);
  timer = null;
  if (text === written) return;
  const { parts } = state.current(), top = canvas.getBoundingClientRect().top;
  const at = parts.findIndex(({ kind }) => kind === "sketch");
  const weight = parts[at]?.weight ?? WEIGHT, part = { kind: "sketch", value: text, weight };
  written = text;
  const next = !text ? parts.toSpliced(at, 1) : at < 0 ? [...parts, part] : parts.with(at, part);
  state.change({ parts: next, item: "" }, { replace: pushed });
  pushed = true;
  if (matchMedia(NARROW).matches) scrollBy(0, canvas.getBoundingClientRect().top - top); // it stays under the finger
}

function follow({ parts }) {
  const text = parts.find(({ kind }) => kind === "sketch")?.value ?? "";
  if (text === written) return;
  written = text;
  strokes = decode(text);
  [past, future, stroke] = [[], [], null];
  paintSoon();
  showButtons();
}

// Pixels

function paintSoon() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    paint();
  });
}

function paint() {
  const side = Math.round(canvas.clientWidth * (devicePixelRatio || 1));
  if (!side) return; // the panel is closed
  if (canvas.width !== side) canvas.width = canvas.height = side;
  draw(context, stroke ? [...strokes, stroke] : strokes, side);
}
