// Browsers start no workers for pages that are opened from disk. There, this class runs a worker's script in a hidden
// frame, so that the search works without a server.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #ready;
    #scope;

    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.append(frame);
      const load = (source) =>
        new Promise((resolve, reject) => {
          const script = frame.contentDocument.createElement("script");
          script.src = new URL(source, location.href);
          script.onload = resolve;
          script.onerror = reject;
          frame.contentDocument.body.append(script);
        });
      this.#scope = frame.contentWindow;
      this.#scope.postMessage = (data) => deliver(data, window, this);
      this.#scope.importScripts = (...sources) =>
        sources.reduce((before, source) => before.then(() => load(source)), Promise.resolve());
      this.#ready = load(url);
    }

    postMessage(data) {
      this.#ready.then(() => deliver(data, this.#scope, this.#scope));
    }

    terminate() {
      this.#scope.frameElement.remove();
    }
  };

  // As between a page and a worker: after the call, and as a copy made of the receiver's own types.
  const deliver = (data, realm, target) =>
    setTimeout(() => {
      const event = new realm.MessageEvent("message", { data: realm.structuredClone(data) });
      if (target !== realm) target.onmessage?.(event);
      target.dispatchEvent(event);
    });
}
