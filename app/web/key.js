// The API key, if the service requires one: entered once, kept until the tab is closed, sent with each request.
// An image element can't send it, so images are then fetched by script and shown as blobs.

const STORAGE_KEY = "lookalike-key";
const find = (id) => document.getElementById(id);

const stored = () => sessionStorage.getItem(STORAGE_KEY);

/** Return the headers for a request. */
export const headers = () => (stored() ? { Authorization: `Bearer ${stored()}` } : {});

let pending;
let answer = { time: 0, entered: false };

/**
 * Prompt for a key after `problem` reported that it is missing or wrong; resolves to whether one was entered.
 * Requests that were `sent` (in ms) before the dialog closed share its answer.
 */
export function prompt(problem, sent) {
  if (sent < answer.time) return Promise.resolve(answer.entered);
  pending ??= new Promise((resolve) => {
    const dialog = find("key");
    find("key-detail").textContent = problem.code === "key_missing" ? "" : problem.message;
    find("key-input").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      const entered = dialog.returnValue === "entered" ? find("key-input").value.trim() : "";
      if (entered) sessionStorage.setItem(STORAGE_KEY, entered);
      pending = undefined;
      answer = { time: performance.now(), entered: Boolean(entered) };
      resolve(Boolean(entered));
    }, { once: true });
    dialog.showModal();
  });
  return pending;
}

/** Show a URL, of the service or of a blob, in an image element. */
export async function show(image, url) {
  if (!stored() || url.startsWith("blob:")) {
    image.src = url;
    return;
  }
  const response = await fetch(url, { headers: headers() }).catch(() => null);
  if (!response?.ok) return image.dispatchEvent(new Event("error"));
  image.src = URL.createObjectURL(await response.blob());
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
}
