// Rendering of records and messages. Apart from loading images, it sends no requests, and it does not read the URL.

import * as key from "./key.js";
import { url as stateUrl } from "./state.js";

const find = (id) => document.getElementById(id);
const MIN_RATIO = 0.75, MAX_RATIO = 2.4;

/** Return an image's display name: its caption, title or file name. */
export const nameOf = (record) =>
  String(record.metadata.caption || record.metadata.title || record.id.split("/").at(-1) || record.id);

/** Fill the grid. `on` has the handlers pair(record) and info(record); `chosen(record)` is whether it is being compared. */
export function showGrid(records, limit, on, chosen) {
  find("grid").replaceChildren(...records.map((record) => card(record, limit, on, chosen)));
}

function card(record, limit, on, chosen) {
  const element = find("card").content.cloneNode(true).firstElementChild;
  const part = (name) => element.querySelector(name);
  const name = nameOf(record);
  const href = stateUrl({ like: record.id, limit });
  element.dataset.id = record.id;
  element.style.setProperty("--ratio", ratio(record.metadata));
  part(".image").href = part(".like").href = href;
  part(".image").setAttribute("aria-label", `More like: ${name}`);
  part(".like").setAttribute("aria-label", `More like this: ${name}`);
  showImage(part("img"), record.thumbnail_url, name);
  part(".caption").textContent = part(".caption").title = name;
  showScore(element, record);
  part(".pair").setAttribute("aria-label", `Compare: ${name}`);
  part(".pair").setAttribute("aria-pressed", chosen(record));
  part(".pair").addEventListener("click", () => on.pair(record));
  part(".info").setAttribute("aria-label", `Details: ${name}`);
  part(".info").addEventListener("click", () => on.info(record));
  return element;
}

function ratio({ width, height }) {
  return width > 0 && height > 0 ? Math.min(MAX_RATIO, Math.max(MIN_RATIO, width / height)) : 1;
}

/** Show an image, or its name if there is none. */
export function showImage(image, url, name) {
  image.alt = name;
  image.onerror = () => image.classList.add("missing");
  image.classList.toggle("missing", !url);
  if (url) key.show(image, url);
  else image.removeAttribute("src");
}

// The bar and the number are the probability. Without one there is no bar: a score alone does not say whether it is high.
function showScore(element, { score, probability = null }) {
  const line = element.querySelector(".score"), number = line.querySelector(".number");
  if (score === undefined) return line.remove();
  line.title = `Cosine similarity ${score.toFixed(4)}`;
  number.textContent = score.toFixed(3);
  if (probability === null) return line.querySelector(".track").remove();
  line.title = `Probability of a match ${percent(probability)}. ${line.title}`;
  number.textContent = percent(probability);
  line.querySelector(".fill").style.width = `${probability * 100}%`;
}

const percent = (share) => `${Math.round(share * 100)} %`;

/** Show above the grid that even the best images hardly match, or that they do. */
export function showNoMatch(on) {
  find("no-match").textContent = on ? "Nothing in this collection matches well. These are the closest images." : "";
}

/** Show the line above the grid, and the time of each stage. */
export function showSummary(text, took) {
  find("status").textContent = text;
  const stages = Object.entries(took ?? {}).filter(([stage, ms]) => stage !== "total" && ms > 0);
  find("timings").textContent = took
    ? `${took.total.toFixed(1)} ms` + (stages.length ? ` (${stages.map(([s, ms]) => `${s} ${ms.toFixed(1)}`).join(", ")})` : "")
    : "";
}

/** Show under the search box what the encoder understands and finds, where it is known. */
export function showEncoder({ encoder, languages, limits }) {
  const line = find("encoder"), names = new Intl.DisplayNames("en", { type: "language" });
  line.hidden = !(languages?.length || limits);
  if (line.hidden) return;
  line.textContent = `Encoder ${encoder}: ${[languages.length && spoken(languages, names), limits].filter(Boolean).join(" ")}`;
  line.title = languages.map((code) => names.of(code)).join(", ");
}

function spoken(languages, names) {
  const first = names.of(languages.includes("en") ? "en" : languages[0]), others = languages.length - 1;
  return others ? `${first} and ${others} other ${others === 1 ? "language" : "languages"}.` : `${first}.`;
}

/** Show an error with the service's title and message; null hides it. */
export function showProblem(problem) {
  find("problem").hidden = !problem;
  if (!problem) return;
  find("problem-title").textContent = problem.title;
  find("problem-detail").textContent = problem.message;
}

/** Show the query image in the search box; null hides it. An image that the browser can't show is its name alone. */
export function showChip(image) {
  find("chip").hidden = !image;
  const preview = find("chip-image");
  preview.hidden = !image?.url;
  preview.onerror = () => (preview.hidden = true);
  if (image?.url) key.show(preview, image.url);
  else preview.removeAttribute("src");
  find("chip-text").textContent = image?.name ?? "";
}

/** Show all metadata of an item. */
export function showDetails(record) {
  find("details-title").textContent = nameOf(record);
  showImage(find("details-image"), record.thumbnail_url, nameOf(record));
  const score = record.score === undefined ? [] : [["score", record.score.toFixed(6)]];
  if (Number.isFinite(record.probability)) score.push(["probability", record.probability]);
  const rows = [["id", record.id], ...score, ...Object.entries(record.metadata)].flatMap(([name, value]) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = typeof value === "object" ? JSON.stringify(value) : String(value);
    return [term, text];
  });
  find("details-list").replaceChildren(...rows);
  find("details").showModal();
}
