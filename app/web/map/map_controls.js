// What surrounds the canvas of the map: buttons, the choice of a field, its legend, the tooltip and messages.

import { element, icon } from "../dom.js";

const KEYS = "Arrow keys move, plus and minus zoom, 0 shows everything, Enter opens the image at the centre.";

/** Build the map's elements; `on` has field(name), lasso(), inView(), clear(), zoom(factor), fit() and retry(). */
export function build(on) {
  const button = (attributes, ...children) => element("button", { type: "button", class: "button", ...attributes }, ...children);
  const zoom = (label, onclick, text) => button({ "aria-label": label, title: label, onclick }, text);
  const parts = {
    status: element("p", { class: "map-status", role: "status" }),
    field: element("select", { onchange: ({ target }) => on.field(target.value) }),
    lasso: button({ "aria-pressed": "false", onclick: on.lasso }, "Lasso"),
    clear: button({ onclick: on.clear, hidden: true }, icon("close"), "Remove lasso"),
    canvas: element("canvas", { tabindex: "0", role: "application", "aria-describedby": "map-keys" }),
    legend: element("div", { class: "map-legend", tabindex: "0", role: "group", "aria-label": "Legend", hidden: true }),
    tooltip: element("div", { class: "map-tooltip", "aria-live": "polite", hidden: true }),
    problem: element("div", { class: "problem", role: "alert", hidden: true }),
    retry: button({ onclick: on.retry }, "Try again"),
  };
  parts.bar = element("div", { class: "map-bar" }, element("label", {}, "Colour by ", parts.field), parts.lasso,
    button({ onclick: on.inView }, "Filter to what is in view"), parts.clear, parts.status);
  parts.stage = element("div", { class: "map-stage" }, parts.legend, parts.canvas,
    element("div", { class: "map-zoom" }, zoom("Zoom in", () => on.zoom(1.6), "+"), zoom("Zoom out", () => on.zoom(1 / 1.6), "−"),
      zoom("Show everything", on.fit, "Fit")),
    parts.tooltip, element("p", { id: "map-keys", class: "visually-hidden" }, KEYS));
  return parts;
}

/** Offer fields to colour by. */
export function showFields({ field }, names, chosen) {
  field.replaceChildren(element("option", { value: "" }, "nothing"), ...names.map((name) => element("option", {}, name)));
  field.value = chosen;
}

/** Show what the colours mean. */
export function showLegend({ legend }, name, { colours, entries, ends = [] }) {
  const items = entries.map(({ label, count, code }) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = `rgb(${colours[code].join()})`;
    return element("li", {}, swatch, element("span", { class: "map-value", title: label }, label), element("span", { class: "number" }, count.toLocaleString("en")));
  });
  legend.hidden = !name;
  legend.replaceChildren(element("strong", {}, name ?? ""), element("div", { class: "map-scale", hidden: !ends.length }),
    element("div", { class: "map-ends" }, ...ends.map((end) => element("span", {}, end))), element("ul", {}, ...items));
}

/** Show an error in place of the map; null shows the map. */
export function showProblem({ problem, stage, bar, retry }, error) {
  problem.hidden = !error;
  stage.hidden = bar.hidden = Boolean(error);
  if (error) problem.replaceChildren(element("strong", {}, error.code === "no_map" ? "No map yet" : error.title ?? "The map can't be shown"), element("p", {}, error.message), retry);
}

/** Show the tooltip beside a position, with an image element and lines of text; without them, hide it. */
export function showTooltip({ tooltip, stage, canvas }, [x, y] = [], image, lines) {
  tooltip.hidden = !lines;
  if (!lines) return;
  tooltip.replaceChildren(image, ...lines.map((line) => element("span", {}, line)));
  const { offsetWidth: width, offsetHeight: height } = tooltip, below = y + canvas.offsetTop + 12;
  const left = x + 16 + width > stage.clientWidth ? x - 16 - width : x + 16;
  tooltip.style.left = `${Math.max(8, left)}px`;
  tooltip.style.top = `${Math.max(8, Math.min(below, stage.clientHeight - height - 8))}px`;
}
