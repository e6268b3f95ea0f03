// The buttons of the detail view: what can be done with its image.

import { element, icon } from "../dom.js";
import { LESS, withItem } from "../grid.js";
import * as key from "../key.js";
import * as selection from "../selection.js";
import * as state from "../state.js";

const REVOKE_MS = 60_000;

/** Return the buttons for an item; `say` shows a message to the user. */
export function itemActions(record, say) {
  const { id, original_url: original } = record;
  return [
    button("like", "More like this", () => addPart(id, 1)),
    button("unlike", "Less like this", () => addPart(id, LESS)),
    compareButton(record, say),
    original && originalLink(original, say),
    button(null, "Copy id", () => copy(id, "The id is in the clipboard.", say)),
    button(null, "Copy link", () => copy(linkTo(id), "The link is in the clipboard.", say)),
  ].filter(Boolean);
}

function button(name, label, onclick) {
  return element("button", { type: "button", class: "button", onclick }, name && icon(name), label);
}

const addPart = (id, weight) => state.change({ parts: withItem(id, weight), item: "" });

function compareButton(record, say) {
  const isSelected = () => selection.selected().has(record.id);
  const made = button("compare", "Compare", () => {
    selection.toggle(record);
    made.setAttribute("aria-pressed", isSelected());
    if (!isSelected()) return say("No longer selected.");
    const { size } = selection.selected();
    say(size > 1 ? `${size} images selected. Close this view to compare them.` : "Selected. Select a second image.");
  });
  made.setAttribute("aria-pressed", isSelected());
  return made;
}

function linkTo(item) {
  const address = state.url({ ...state.emptyState, collection: state.current().collection, item });
  return new URL(address, document.baseURI.split(/[?#]/)[0]).href;
}

async function copy(text, message, say) {
  try {
    await navigator.clipboard.writeText(text);
    say(message);
  } catch { // no permission, or the page is served without TLS
    say(`The browser refuses to copy. Select the text: ${text}`);
  }
}

function originalLink(url, say) {
  const onclick = (event) => {
    if (!Object.keys(key.headers()).length) return;
    event.preventDefault(); // a link can't send the API key
    openWithKey(url, say);
  };
  return element("a", { class: "button", href: url, target: "_blank", rel: "noopener", onclick }, "Open original");
}

async function openWithKey(url, say) {
  const tab = window.open("", "_blank"); // at once: after the request it would count as a pop-up
  const response = await fetch(url, { headers: key.headers() }).catch(() => null);
  if (!response?.ok) {
    tab?.close();
    const reason = response ? `the service responded with status ${response.status}` : "the service can't be reached";
    return say(`The original can't be opened: ${reason}.`);
  }
  const address = URL.createObjectURL(await response.blob());
  setTimeout(() => URL.revokeObjectURL(address), REVOKE_MS);
  if (tab) tab.location = address;
  else say("The browser blocked the new tab. Allow pop-ups for this page.");
}
