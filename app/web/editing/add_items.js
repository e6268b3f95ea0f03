// Adding images to a writable collection: a few uploads at a time, with their progress and a line for each that failed.

import * as api from "../api.js";
import * as collections from "../collections.js";
import { element, icon, stylesheet, toast } from "../dom.js";
import { refusal } from "../image_input.js";
import * as results from "../results.js";
import * as state from "../state.js";

const MAX_IN_FLIGHT = 4;
const MAX_SHOWN = 200; // ids in a URL
const STOPPING = [401, 403, 404, 405, 507]; // no other file would fare better

let view;
let run; // the files that are being added, or were last

/** Add dropped files; `entries` are those of the drop, of which folders are searched for files. */
export async function addDropped(files, entries) {
  if (!entries.some((entry) => entry?.isDirectory)) return addFiles(files);
  const paths = new Map(), unreadable = [];
  for (const entry of entries) if (entry) await walk(entry, paths, unreadable);
  return addFiles([...paths.keys()], paths, unreadable);
}

async function walk(entry, paths, unreadable) {
  const path = entry.fullPath.replace(/^\/+/, "");
  try {
    if (entry.isFile) return paths.set(await new Promise((resolve, reject) => entry.file(resolve, reject)), path);
    const reader = entry.createReader(), next = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    for (let found = await next(); found.length; found = await next()) {
      for (const inner of found) await walk(inner, paths, unreadable);
    }
  } catch {
    unreadable.push(path);
  }
  return undefined;
}

/** Add image files to the current collection. `paths` has the names of those that are not named by their own path. */
export async function addFiles(files, paths = new Map(), unreadable = []) {
  if (!files.length && !unreadable.length) return toast("There are no files in what was dropped.");
  await stylesheet("editing/editing.css");
  view ??= build();
  if (!run || run.ended) begin();
  const base = api.prefix(), taken = new Set(run.jobs.map(({ id }) => id));
  for (const path of unreadable) fail(accept({ id: path }), "can't be read. Check that it still exists.");
  for (const file of files) {
    const id = freeName(paths.get(file) || file.webkitRelativePath || file.name, taken), job = accept({ file, id, base });
    taken.add(id);
    const reason = refusal(file);
    if (reason) fail(job, reason);
    else run.queue.push(job);
  }
  return proceed(run);
}

function begin() {
  run = { jobs: [], queue: [], active: 0, done: 0, failed: 0, skipped: 0, added: [], conflicts: [], stop: new AbortController() };
  view.errors.replaceChildren();
  view.question.replaceChildren();
  view.panel.hidden = false;
  addEventListener("beforeunload", warn);
}

const warn = (event) => event.preventDefault();

function accept(job) {
  run.jobs.push(job);
  return job;
}

// Two files may have the same name, from different folders.
function freeName(name, taken) {
  let free = name;
  for (let number = 2; taken.has(free); number += 1) free = numbered(name, number);
  return free;
}

const numbered = (name, number) => name.replace(/(\.[^./]*)?$/, (ending) => `-${number}${ending}`);

function fail({ id }, message) {
  run.failed += 1;
  run.done += 1;
  const name = id.split("/").at(-1), said = message.startsWith(name) ? message.slice(name.length) : `: ${message}`;
  const text = message.startsWith("can't") ? ` ${message}` : said;
  view.errors.append(element("li", {}, element("strong", {}, id), text));
}

function proceed(current) {
  while (current.active < MAX_IN_FLIGHT && current.queue.length) upload(current, current.queue.shift());
  show();
  if (current.active || current.queue.length || current.ended) return;
  if (current.conflicts.length && !current.stop.signal.aborted) ask(current);
  else end(current);
}

async function upload(current, job) {
  current.active += 1;
  try {
    const { id } = await put(job, current.stop.signal);
    current.added.push(id);
    current.done += 1;
  } catch (error) {
    refused(current, job, error);
  }
  current.active -= 1;
  proceed(current);
}

function refused(current, job, error) {
  if (error.name === "AbortError") return;
  if (error.status === 412 && job.mode === "both") return current.queue.push({ ...job, number: (job.number ?? 2) + 1 });
  if (error.status === 412 && !job.mode) return current.conflicts.push(job);
  if (!STOPPING.includes(error.status)) return fail(job, error.message);
  current.problem ??= error.message;
  stop(current);
}

// A file is read first: afterwards, a request that fails has failed by the network, and is sent again.
async function put({ file, id, base, mode, number = 2 }, signal) {
  const body = await file.arrayBuffer().catch(() => {
    throw new Error("can't be read. It may be a folder, or have been moved.");
  });
  const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  const headers = { "Content-Type": type, ...(mode === "replace" ? {} : { "If-None-Match": "*" }) };
  const name = mode === "both" ? numbered(id, number) : id;
  return api.request(`items/${name.split("/").map(encodeURIComponent).join("/")}`, { method: "PUT", body, headers, signal, base });
}

function stop(current) {
  current.queue = [];
  current.conflicts = [];
  current.stop.abort();
}

function ask(current) {
  const { length } = current.conflicts, [{ id }] = current.conflicts;
  const text = length === 1 ? `${id} exists already.` : `${length} names exist already, such as ${id}.`;
  const choose = (mode) => () => {
    const jobs = current.conflicts.map((job) => ({ ...job, mode }));
    current.conflicts = [];
    view.question.replaceChildren();
    if (mode === "skip") {
      current.skipped += jobs.length;
      current.done += jobs.length;
    } else current.queue.push(...jobs);
    view.panel.focus();
    proceed(current);
  };
  const answers = [["skip", "Skip"], ["replace", "Replace"], ["both", "Keep both"]];
  view.question.replaceChildren(
    element("p", {}, `${text} Replacing an image also replaces its metadata.`),
    element("div", { class: "add-buttons" },
      ...answers.map(([mode, label]) => element("button", { type: "button", class: "button", onclick: choose(mode) }, label))),
  );
}

function end(current) {
  current.ended = true;
  view.question.replaceChildren();
  removeEventListener("beforeunload", warn);
  show();
  const { added } = current, hasErrors = current.failed || current.problem;
  if (!hasErrors) view.panel.hidden = true;
  const ids = added.slice(0, MAX_SHOWN);
  const showAdded = () => state.change({ ...state.emptyState, collection: state.current().collection, filters: [{ field: "id", in: ids }] });
  if (added.length) toast(summaryOf(current), { label: "Show", run: showAdded });
  else if (!hasErrors) toast(summaryOf(current));
  if (!added.length) return;
  collections.load(); // their numbers of images
  const { parts, filters, lasso, view: shown } = state.current();
  if (!parts.length && !filters.length && !lasso && shown === "grid") results.reload();
}

function summaryOf({ added, jobs, failed, skipped, done, ended }) {
  const count = (number, word) => (number ? `, ${number.toLocaleString("en")} ${word}` : "");
  if (!ended) return `${done.toLocaleString("en")} of ${jobs.length.toLocaleString("en")}${count(failed, "failed")}`;
  const images = added.length === 1 ? "1 image added" : `${added.length.toLocaleString("en")} images added`;
  return `${images}${count(failed, "failed")}${count(skipped, "skipped")}${count(jobs.length - done, "not sent")}`;
}

function show() {
  view.count.textContent = summaryOf(run);
  view.progress.max = run.jobs.length;
  view.progress.value = run.done;
  view.problem.textContent = run.problem ?? "";
  view.cancel.hidden = Boolean(run.ended);
  view.close.hidden = !run.ended;
}

function build() {
  const button = (label, onclick) => element("button", { type: "button", class: "button", onclick }, label);
  const made = {
    count: element("p", { class: "add-count" }),
    progress: element("progress", { "aria-label": "Images added", value: 0 }),
    problem: element("p", { class: "add-problem", role: "alert" }),
    question: element("div", { class: "add-question", role: "alert" }),
    errors: element("ul", { class: "add-errors", "aria-label": "Files that were not added", tabindex: 0 }),
    cancel: button("Cancel", () => {
      stop(run);
      proceed(run);
    }),
    close: button("Close", () => (made.panel.hidden = true)),
  };
  const { count, progress, problem, question, errors, cancel, close } = made;
  made.panel = element("section", { class: "add-panel", "aria-labelledby": "add-title", tabindex: -1 },
    element("h2", { id: "add-title" }, icon("add"), "Add images"), count, progress, problem, question, errors,
    element("div", { class: "add-buttons" }, cancel, close));
  document.body.append(made.panel);
  return made;
}
