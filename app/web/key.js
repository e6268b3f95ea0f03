// The API key, where the service wants one: asked for once, kept for as long as the tab lives, sent with everything.
// An image's element can't send it: images are fetched and shown from memory then.

const NAME = "lookalike-key";
const find = (id) => document.getElementById(id);

const stored = () => sessionStorage.getItem(NAME);

/** Headers for a request. */
export const headers = () => (stored() ? { Authorization: `Bearer ${stored()}` } : {});

let asking;

/** Asks for a key, after `problem` said that it is missing or wrong; resolves to whether one was given. */
export function ask(problem) {
  asking ??= new Promise((resolve) => {
    const dialog = find("key");
    find("key-detail").textContent = problem.code === "key_missing" ? "" : problem.message;
    find("key-input").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "given" ? find("key-input").value.trim() : "";
      if (given) sessionStorage.setItem(NAME, given);
      asking = undefined;
      resolve(Boolean(given));
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** Points an image's element at a URL of the service or of memory. */
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
