// Filter of a column of numbers, dates or times: a histogram, a slider with two thumbs, and two inputs.

import { element } from "../dom.js";
import { histogram } from "./histogram.js";
import { scaleOf } from "./scales.js";

const SIDES = ["from", "to"];
const TYPING_MS = 500, DRAGGING_MS = 150;

/** Return the control of a column; `choose(condition, done)` is called as a range changes, `done` at a gesture's end. */
export function rangeControl(field, choose) {
  const scale = scaleOf(field), hasSlider = Number.isFinite(scale.steps) && scale.steps > 1;
  let bounds = [undefined, undefined], facet = field, sliding = false, timer;

  const thumbs = SIDES.map((side, i) => element("input", {
    type: "range", min: 0, max: hasSlider ? scale.steps : 1, "aria-label": `${field.name} ${side}`,
    oninput: () => slide(i), onpointerdown: endSliding, onblur: endSliding,
  }));
  const inputs = SIDES.map((side, i) => element("input", {
    ...scale.input, "aria-label": `${field.name} ${side}, ${scale.unit || "value"}`, placeholder: scale.ends[i],
    oninput: () => type(i, false), onchange: () => type(i, true),
  }));
  const bars = histogram((edge) => scale.place(scale.edge(edge)), brush);
  const span = scale.input.type === "number" ? "" : scale.ends.join(" to "); // other inputs have no placeholder
  const hint = element("p", { class: "hint" }, `${span} ${scale.unit}`.trim());
  const chart = hasSlider && element("div", { class: "chart" },
    field.histogram && bars.element, element("div", { class: "slider" }, ...thumbs));
  const row = element("div", { class: "bounds" }, inputs[0], element("span", { "aria-hidden": "true" }, "–"), inputs[1]);

  const places = () => bounds.map((bound, i) => (bound === undefined ? i : clamp(scale.place(bound, i), i)));

  function emit(done, wait = 0) {
    clearTimeout(timer);
    const send = () => {
      const { gte, ...upper } = scale.range(...bounds);
      const range = Object.fromEntries(Object.entries({ gte, ...upper }).filter(([, bound]) => bound !== undefined));
      choose(Object.keys(range).length ? { field: field.name, range } : null, done);
    };
    if (wait && !done) timer = setTimeout(send, wait);
    else send();
  }

  // At its own end a thumb sets no bound, so that infinite numbers pass, too.
  const boundAt = (position, side) => (position === (side ? scale.steps : 0) ? undefined : scale.bound(position, side));

  // Arrow keys in a row are one gesture, as a drag is, though the slider reports a change after each.
  function slide(side) {
    const [low, high] = thumbs.map((thumb) => Number(thumb.value));
    const position = side ? Math.max(low + 1, high) : Math.min(low, high - 1); // a thumb stops before the other one
    bounds[side] = boundAt(position, side);
    sliding = true;
    draw();
    emit(false, DRAGGING_MS);
  }

  function endSliding() {
    if (sliding) emit(true);
    sliding = false;
  }

  function brush([from, to], done) {
    const low = Math.min(scale.steps - 1, Math.round(from * scale.steps));
    bounds = [boundAt(low, 0), boundAt(Math.max(low + 1, Math.round(to * scale.steps)), 1)];
    draw();
    emit(done, DRAGGING_MS);
  }

  function type(side, done) {
    clearTimeout(timer);
    if (inputs[side].validity.badInput) return;
    const { value } = inputs[side];
    bounds[side] = value ? scale.fromInput(value, side) : undefined;
    const texts = inputs.map((input) => input.value), [low, high] = texts.map((text) => scale.fromInput(text, 0));
    const crossed = texts.every(Boolean) && scale.place(low) > scale.place(high);
    if (crossed && !done) return; // "8" on the way to "800"
    if (crossed) bounds = [scale.fromInput(texts[1], 0), scale.fromInput(texts[0], 1)];
    draw(done ? null : inputs[side]);
    emit(done, TYPING_MS);
  }

  function draw(typing = null) {
    const [low, high] = places();
    bounds.forEach((bound, i) => {
      thumbs[i].value = Math.round([low, high][i] * scale.steps);
      thumbs[i].setAttribute("aria-valuetext", bound === undefined ? scale.ends[i] : scale.text(bound, i));
      if (inputs[i] !== typing) inputs[i].value = bound === undefined ? "" : scale.toInput(bound, i);
    });
    thumbs[0].classList.toggle("front", low > 0.5); // where both are at the right end, the lower one can be dragged
    chart && chart.style.setProperty("--low", low);
    chart && chart.style.setProperty("--high", high);
    bars.draw(facet.histogram ?? undefined, low, high);
  }

  draw();
  return {
    tests: ["range"],
    elements: [chart, row, hint.textContent && hint],
    /** Show the range of the URL, unless it is being changed right now. */
    show(condition) {
      const range = condition?.range ?? {}, shown = [scale.lower(range), scale.upper(range)];
      if (shown.every((bound, i) => bound === bounds[i])) return;
      clearTimeout(timer);
      sliding = false;
      bounds = shown;
      draw(inputs.find((input) => input === document.activeElement && input.value));
    },
    count(counted) {
      facet = counted;
      draw(inputs.find((input) => input === document.activeElement));
    },
  };
}

const clamp = (place, fallback) => Number.isNaN(place) ? fallback : Math.min(1, Math.max(0, place));
