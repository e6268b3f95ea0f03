// The search page. Actions change the state, which is the URL; each part of the page shows the state that it gets.
// The page uses only the public API. Panels, the map and dialogs are loaded on first use.

import * as collections from "./collections.js";
import { find } from "./dom.js";
import * as filterChips from "./filter_chips.js";
import * as imageInput from "./image_input.js";
import * as keyboard from "./keyboard.js";
import * as panels from "./panels.js";
import * as queryBar from "./query_bar.js";
import * as results from "./results.js";
import * as selection from "./selection.js";
import * as state from "./state.js";
import * as summary from "./summary.js";
import { LESS, withItem } from "./grid.js";

function showState(current, previous, inHistory) {
  summary.layOut();
  if (inHistory) queryBar.reset();
  queryBar.show(current);
  filterChips.show(current);
  if (current.collection !== previous?.collection) {
    selection.clear();
    collections.show();
    prepareEditing();
  }
  if (!previous || !results.sameResults(current, previous)) results.show({ focus: Boolean(previous) && isFocusInGrid() });
  panels.showMap();
  showDetails(current.item, previous?.item ?? "");
}

const isFocusInGrid = () => find("grid").contains(document.activeElement);

async function showDetails(item, previous) {
  if (item === previous) return;
  const details = await import("./details/details.js");
  if (state.current().item !== item) return; // it changed while the module was loaded
  if (item) details.show(item);
  else details.hide();
}

// A service that starts lists its collections without facts until they are open, which the first results show.
async function loadCollections() {
  await collections.load();
  await prepareEditing();
}

async function prepareEditing() {
  if (collections.facts()?.writable) (await import("./editing/edit_items.js")).listen();
}

function listen() {
  find("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const { href } = location;
    queryBar.submit();
    if (location.href === href && state.current().parts.length) results.reload(); // the same query: search again
  });
  find("another").addEventListener("click", queryBar.addAnother);
  document.addEventListener("pointerdown", ({ target }) => queryBar.closeWeights(target));
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // under a root path, the page's base is another URL than its own
    find("results").focus();
  });
  find("home").addEventListener("click", (event) => follow(event, { ...state.emptyState, collection: state.current().collection }));
  find("grid").addEventListener("click", clickInGrid);
  for (const name of ["sketch", "filters"]) find(`tool-${name}`).addEventListener("click", () => panels.toggle(name));
  find("tool-map").addEventListener("click", () => state.change({ view: state.current().view === "map" ? "grid" : "map" }));
  find("retry").addEventListener("click", () => results.show());
  find("problem-home").addEventListener("click", () => state.change(state.emptyState));
  find("collapsed").addEventListener("click", ({ target }) => target.matches("button") && state.change({ duplicates: true }));
  find("download").addEventListener("click", () => selection.download(results.results()));
  find("more-button").addEventListener("click", () => (find("more").dataset.end === "changed" ? results.reload() : results.more()));
  // The last entry counts: a busy browser reports several at once.
  const ends = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && loadMore(), { rootMargin: "900px" });
  ends.observe(find("more"));
  results.subscribe(() => { // a short page leaves the end in view, which the observer would not report again
    ends.unobserve(find("more"));
    ends.observe(find("more"));
  });
  listenToSelection();
  keyboard.listen();
  collections.listen();
  imageInput.listen(() => collections.facts()?.writable ?? false);
  find("add-files").addEventListener("change", async ({ target }) => {
    const files = [...target.files];
    target.value = "";
    (await import("./editing/add_items.js")).addFiles(files);
  });
}

const loadMore = () => find("more").dataset.end === "more" && state.current().view === "grid" && results.more();

function listenToSelection() {
  const records = () => [...selection.selected().values()];
  const addParts = (weight) => {
    const added = records().slice(0, 8).map(({ id }) => ({ kind: "item", value: id, weight }));
    const others = state.current().parts.filter(({ value }) => !selection.selected().has(value));
    selection.clear();
    state.change({ parts: [...others, ...added] });
  };
  find("selection-compare").addEventListener("click", async () => (await import("./compare/compare.js")).open(records()));
  find("selection-more").addEventListener("click", () => addParts(1));
  find("selection-less").addEventListener("click", () => addParts(LESS));
  find("selection-download").addEventListener("click", () => selection.download(records()));
  find("selection-clear").addEventListener("click", () => {
    selection.clear();
    find("results").focus({ preventScroll: true }); // the button is hidden now
  });
}

function clickInGrid(event) {
  const link = event.target.closest("a"), id = event.target.closest(".card")?.dataset.id;
  if (event.target.matches("input")) return event.shiftKey ? keyboard.selectTo(id) : keyboard.toggle(id);
  if (!link) return undefined;
  if (event.shiftKey && id) {
    event.preventDefault();
    return keyboard.selectTo(id);
  }
  return follow(event, changesOf(link, id));
}

// The state may have changed since the link was made.
function changesOf(link, id) {
  if (link.matches(".image")) return { item: id };
  if (link.matches(".like")) return { parts: withItem(id, 1) };
  if (link.matches(".unlike")) return { parts: withItem(id, LESS) };
  return state.read(new URL(link.href).search);
}

// A plain click changes this page; with a modifier key the link opens as usual.
function follow(event, next) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  queryBar.reset();
  state.change(next);
}

listen();
state.subscribe(showState);
showState(state.current());
loadCollections();
results.subscribe(() => collections.facts()?.items === null && results.results().length && loadCollections());
