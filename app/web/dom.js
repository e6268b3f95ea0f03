// Helpers to build and find elements.

const TOAST_MS = 8000;

export const find = (id) => document.getElementById(id);

/**
 * Create an element. Functions become listeners (`onclick`); `true` is an empty attribute; false and null are left out.
 * Children are nodes or texts.
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** Return an icon: the symbol `icon-NAME` of the page. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg"), use = document.createElementNS(SVG, "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

const sheets = new Map();

/** Load a stylesheet of app/web; resolves when it applies. */
export function stylesheet(name) {
  if (!sheets.has(name)) {
    sheets.set(name, new Promise((resolve) => {
      const href = new URL(name, import.meta.url);
      document.head.append(element("link", { rel: "stylesheet", href, onload: resolve, onerror: resolve }));
    }));
  }
  return sheets.get(name);
}

/**
 * Show a message for 8 s, with a button for `run` if it has a `label`. Return a function that closes it.
 * `onclose` is called when the message closes without that button.
 */
export function toast(text, { label, run, onclose } = {}) {
  const end = (then) => {
    clearTimeout(timer);
    shown.remove();
    then?.();
  };
  const close = () => shown.isConnected && end(onclose);
  const shown = element("div", { class: "toast" }, element("span", {}, text),
    label && element("button", { type: "button", class: "button", onclick: () => end(run) }, label),
    element("button", { type: "button", class: "icon-button", "aria-label": "Close this message", onclick: close }, icon("close")));
  find("toasts").append(shown);
  const timer = setTimeout(close, TOAST_MS);
  return close;
}
