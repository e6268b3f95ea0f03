// The tools beside and in place of the results: Sketch and Filters are panels, Map is a view. Each is loaded on first use.

import { element, find, icon } from "./dom.js";
import * as state from "./state.js";
import { layOut } from "./summary.js";

const TITLES = { sketch: "Sketch", filters: "Filters" };
const LOADERS = { sketch: () => import("./sketch/sketch.js"), filters: () => import("./filters/filters.js") };
const mounted = new Map();

const button = (name) => find(`tool-${name}`);

/** Open a panel, or close it if it is open. */
export async function toggle(name) {
  const opening = button(name).getAttribute("aria-expanded") !== "true";
  for (const other of Object.keys(TITLES)) setOpen(other, opening && other === name);
  if (!opening || mounted.has(name)) return layOut();
  const body = element("div", { class: "panel-body" });
  const close = element("button", { type: "button", class: "icon-button", "aria-label": `Close ${TITLES[name]}`, onclick: () => closePanel(name) }, icon("close"));
  const panel = element("aside", { class: "panel", id: `panel-${name}`, "aria-label": TITLES[name] },
    element("div", { class: "panel-head" }, element("h2", {}, TITLES[name]), close), body);
  mounted.set(name, panel);
  find("panels").append(panel);
  layOut();
  return (await LOADERS[name]()).mount(body);
}

function closePanel(name) {
  setOpen(name, false);
  layOut();
  button(name).focus();
}

function setOpen(name, open) {
  button(name).setAttribute("aria-expanded", open);
  const panel = mounted.get(name);
  if (panel) panel.hidden = !open;
}

let map;

/** Show or hide the map, as the state says. */
export async function showMap() {
  const on = state.current().view === "map";
  button("map").setAttribute("aria-pressed", on);
  find("map").hidden = !on;
  if (!on) return map?.then((module) => module.hide());
  map ??= import("./map/map.js").then(async (module) => {
    await module.mount(find("map"));
    return module;
  });
  const module = await map;
  if (state.current().view === "map") module.show();
}
