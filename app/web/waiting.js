// Waiting before a request is sent again, with a line that says why, and a button to send it now.

import { element, find } from "./dom.js";

let waiters = [];

/** Show `reason` and count down; resolves after `seconds`, on "Try now", or when the network returns. */
export function wait(reason, seconds, signal) {
  return new Promise((resolve, reject) => {
    const waiter = { reason, until: performance.now() + seconds * 1000, resolve };
    waiters.push(waiter);
    signal?.addEventListener("abort", () => {
      waiters = waiters.filter((other) => other !== waiter);
      show();
      reject(signal.reason);
    }, { once: true });
    show();
  });
}

function finish(ended) {
  waiters = waiters.filter((waiter) => !ended.includes(waiter));
  show();
  ended.forEach(({ resolve }) => resolve());
}

const finishAll = () => finish(waiters);
const seconds = ({ until }) => Math.max(1, Math.ceil((until - performance.now()) / 1000));

function show() {
  const line = find("waiting"), first = waiters[0];
  line.hidden = !first;
  if (!first) return;
  const [text, time] = line.children;
  if (text.textContent !== first.reason) text.textContent = first.reason; // announced once, not each second
  time.textContent = `Trying again in ${seconds(first)} s.`;
}

setInterval(() => {
  if (!waiters.length) return;
  const now = performance.now();
  finish(waiters.filter(({ until }) => until <= now));
}, 250);

addEventListener("online", finishAll);
find("waiting").append(
  element("span", { role: "status" }), element("span"), element("button", { type: "button", class: "button", onclick: finishAll }, "Try now"),
);
