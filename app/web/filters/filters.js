// The panel of filters: a group for each column that items can be filtered by, and what results are grouped by.

import { numberText, replace } from "./conditions.js";
import { element, stylesheet } from "../dom.js";
import { fieldGroup } from "./field_controls.js";
import { arranged, groupsWell } from "./field_kinds.js";
import { counts, describe } from "./filter_counts.js";
import * as state from "../state.js";

const OPEN_AT_FIRST = 5;
const SETTLING_MS = 60;

/** Fill the panel, and follow the state from now on. */
export async function mount(container) {
  await stylesheet("filters/filters.css");
  const panel = new Panel(container);
  let collection = state.current().collection;
  state.subscribe((current) => {
    if (current.collection !== collection) panel.forget();
    collection = current.collection;
    panel.refresh();
  });
  new ResizeObserver(() => panel.shown()).observe(container);
  panel.refresh();
}

class Panel {
  #container;
  #groups = [];
  #described = null; // the columns over the whole collection
  #searched = new Set(); // columns of which many values are needed
  #counted = new Set(); // columns that are counted for the current state, or are about to be
  #pending = new AbortController();
  #timer;
  #typing = null; // the column that is being changed: one gesture is one entry of the history
  #visible = true;
  #status = element("p", { class: "count-line", role: "status" });
  #clear = element("button", { class: "button", type: "button", onclick: () => state.change({ filters: [], lasso: "" }) }, "Clear filters");
  #problem = element("div", { class: "problem", role: "alert", hidden: true });
  #fields = element("div", { class: "fields" });
  #group = element("select", { onchange: () => state.change({ group: this.#group.value }) });
  #groupNote = element("span", { class: "group-note" }, "needs a query");
  #duplicates = element("input", { type: "checkbox", onchange: () => state.change({ duplicates: this.#duplicates.checked }) });

  constructor(container) {
    this.#container = container;
    container.classList.add("filters");
    container.replaceChildren(
      element("div", { class: "filters-top" }, this.#status, this.#clear),
      this.#problem,
      this.#fields,
      element("div", { class: "arrangement" },
        element("label", {}, "Group by ", this.#group, this.#groupNote),
        element("label", {}, this.#duplicates, "Show near-duplicates")),
    );
  }

  /** Start anew: another collection has other columns. */
  forget() {
    this.#described = null;
    this.#groups = [];
    this.#searched.clear();
    this.#fields.replaceChildren();
  }

  /** Look at the collection again when the panel is opened: it may have been changed. */
  shown() {
    const visible = this.#container.getClientRects().length > 0;
    if (visible && !this.#visible) {
      this.#described = null;
      this.refresh();
    }
    this.#visible = visible;
  }

  /** Show the state, and count anew. An earlier request that is under way is cancelled. */
  refresh() {
    this.#showState();
    clearTimeout(this.#timer);
    this.#pending.abort();
    this.#counted.clear();
    if (!this.#visible) return;
    this.#pending = new AbortController();
    this.#container.setAttribute("aria-busy", "true");
    this.#timer = setTimeout(() => this.#count(this.#pending.signal), SETTLING_MS);
  }

  async #count(signal) {
    try {
      if (!this.#described) this.#build(await describe(signal));
      const open = this.#groups.filter((group) => group.isOpen());
      this.#counted = new Set(open.map((group) => group.field));
      const { found, count } = await counts(open, state.current(), this.#searched, this.#described, signal);
      if (signal.aborted) return;
      for (const group of open) {
        const counted = found.get(group.field);
        if (counted) group.count(counted.facet, counted.passing);
      }
      this.#show(count);
    } catch (error) {
      if (signal.aborted) return;
      this.#fail(error);
    }
    this.#container.setAttribute("aria-busy", "false");
  }

  #build(described) {
    const { fields, total } = described, columns = arranged(fields, total);
    const open = new Map(this.#groups.map((group) => [group.field, group.isOpen()]));
    this.#described = described;
    this.#groups = columns.map(([field, kind], i) =>
      fieldGroup(field, kind, total, open.get(field.name) ?? i < OPEN_AT_FIRST, {
        change: (condition, tests, done) => this.#change(field.name, condition, tests, done),
        open: () => this.#counted.has(field.name) || this.refresh(),
        more: () => this.#more(field.name),
      }));
    this.#fields.replaceChildren(...this.#groups.map((group) => group.element));
    this.#showGroups(fields);
    this.#showState();
  }

  #change(field, condition, tests, done) {
    const filters = replace(state.current().filters, field, condition, tests), wasTyping = this.#typing === field;
    this.#typing = null;
    state.change({ filters }, { replace: wasTyping });
    this.#typing = done ? null : field;
  }

  #more(field) {
    if (this.#searched.has(field)) return;
    this.#searched.add(field);
    this.refresh();
  }

  #showGroups(fields) {
    const names = fields.filter(groupsWell).map(({ name }) => name);
    this.#group.replaceChildren(
      element("option", { value: "" }, "nothing"),
      ...names.map((name) => element("option", { value: name }, name)));
  }

  #showState() {
    const { parts, filters, lasso, group, duplicates } = state.current();
    this.#typing = null; // the back button ends a gesture
    for (const each of this.#groups) each.show(filters);
    if (group && ![...this.#group.options].some(({ value }) => value === group)) {
      this.#group.append(element("option", { value: group }, group)); // of a URL written by hand
    }
    this.#group.value = group;
    this.#group.disabled = !parts.length && !group;
    this.#groupNote.hidden = parts.length > 0;
    this.#duplicates.checked = duplicates;
    this.#clear.hidden = !filters.length && !lasso;
  }

  #show(count) {
    const { total } = this.#described;
    this.#problem.hidden = true;
    this.#status.textContent = count === total
      ? `${numberText(total)} images` : `${numberText(count)} of ${numberText(total)} images`;
  }

  #fail(error) {
    this.#described = null; // a column may have vanished with a new version of the collection
    this.#status.textContent = "";
    this.#problem.replaceChildren(
      element("strong", {}, error.title ?? "Something went wrong"),
      element("p", {}, error.message),
      element("button", { class: "button", type: "button", onclick: () => this.refresh() }, "Try again"));
    this.#problem.hidden = false;
  }
}
