// The lines around the results: how many there are, how long it took, that nothing matches, and errors.

import { element, find } from "./dom.js";
import { GROUP_SIZE } from "./query.js";
import * as state from "./state.js";

const INVALID = [400, 413, 415, 422]; // the same request would fail again

/** Set the layout: the start page, unless there is a query, a filter, the map or an open panel. */
export function layOut() {
  const { parts, filters, lasso, view } = state.current();
  const start = !parts.length && !filters.length && !lasso && !document.querySelector(".panel:not([hidden])");
  document.body.dataset.view = view === "map" ? "map" : start ? "start" : "results";
}

/** Set the title from the state. */
export function describe({ parts }) {
  const texts = parts.filter(({ kind }) => kind === "text").map(({ value, weight }) => (weight < 0 ? `not ${value}` : value));
  document.title = texts.length ? `${texts.join(", ")} · Lookalike` : "Lookalike";
  find("private").hidden = !parts.some(({ kind }) => kind === "image");
  showProblem(null);
}

/** Show that a search is running, or that it has ended. */
export function busy(on) {
  find("progress").hidden = !on;
  find("grid").setAttribute("aria-busy", on);
}

/** Show the summary of a list of results. */
export function show({ records, done, response }) {
  showProblem(null);
  find("no-match").textContent =
    response.no_match && records.length ? "Nothing in this collection matches well. These are the closest images." : "";
  find("status").textContent = response.items ? collectionSummary(response, records) : resultsSummary(records, done);
  showCollapsed(records);
  showTimings(response.took_ms);
  find("download").hidden = !records.length;
  showMore(done ? "done" : "more");
}

function resultsSummary({ length }, done) {
  if (!length) return "No images found";
  const count = length === 1 ? "1 image" : `${length.toLocaleString("en")} images`;
  const atMost = state.current().group ? `, at most ${GROUP_SIZE} of each group` : "";
  return `${count}${done ? "" : " so far"}, best first${atMost}`;
}

function showCollapsed(records) {
  const count = records.reduce((sum, { duplicates = 0 }) => sum + duplicates, 0);
  find("collapsed").hidden = !count;
  find("collapsed").firstElementChild.textContent = `${count.toLocaleString("en")} near-duplicate${count === 1 ? "" : "s"} hidden.`;
}

function collectionSummary({ total, collection, encoder }, records) {
  const { filters, lasso } = state.current();
  if (filters.length || lasso) return total ? `${images(total)} in ${collection} pass the filters` : "No image passes the filters";
  if (!total) return `The collection ${collection} is empty; index images first.`;
  return `${images(records.length === total ? records.length : total)} in ${collection} · encoder ${encoder}`;
}

const images = (count) => (count === 1 ? "1 image" : `${count.toLocaleString("en")} images`);

function showTimings(took) {
  const stages = Object.entries(took ?? {}).filter(([stage, ms]) => stage !== "total" && ms > 0);
  const detail = stages.map(([stage, ms]) => `${stage} ${ms.toFixed(1)}`).join(", ");
  find("timings").textContent = took ? `${took.total.toFixed(1)} ms${detail && ` (${detail})`}` : "";
}

const ENDS = {
  more: ["", "Load more"], loading: ["Loading …", ""], done: ["", ""],
  changed: ["The collection has changed since this search.", "Show the new results"], failed: ["", "Try again"],
};

/** Show below the results how they go on: "more", "loading", "done", "changed" or "failed". */
export function showMore(end, message = "") {
  const [text, label] = ENDS[end];
  find("more").dataset.end = end;
  find("more-text").textContent = message || text;
  find("more-button").textContent = label;
  find("more-button").hidden = !label;
}

/** Show an error with the service's title and message; null hides it. */
export function showProblem(problem) {
  find("problem").hidden = !problem;
  if (!problem) return;
  const isInvalid = INVALID.includes(problem.status);
  find("problem-title").textContent = isInvalid ? "This can't be searched for" : problem.title ?? "Something went wrong";
  find("problem-detail").textContent = problem.message;
  find("retry").hidden = isInvalid;
  find("problem-home").hidden = problem.code !== "unknown_collection";
  for (const id of ["status", "timings", "no-match"]) find(id).textContent = "";
  find("download").hidden = find("collapsed").hidden = true;
  showMore("done");
}

/** Show a line about the encoder of a collection, where it is known what it understands and finds. */
export function showEncoder({ encoder, languages, limits } = {}) {
  const line = find("encoder"), names = new Intl.DisplayNames("en", { type: "language" });
  line.hidden = !(languages?.length || limits);
  if (line.hidden) return;
  line.replaceChildren(element("span", {}, `Encoder ${encoder}: ${[languages.length && spoken(languages, names), limits].filter(Boolean).join(" ")}`));
  line.title = `${line.textContent} ${languages.map((code) => names.of(code)).join(", ")}`.trim();
}

function spoken(languages, names) {
  const first = names.of(languages.includes("en") ? "en" : languages[0]), others = languages.length - 1;
  return others ? `${first} and ${others} other ${others === 1 ? "language" : "languages"}.` : `${first}.`;
}
