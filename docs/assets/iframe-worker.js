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
      this.#scope = frame.contentWindow;
      this.#scope.postMessage = (data) => this.#receive(data);
      const load = (source) =>
        new Promise((resolve, reject) => {
          const script = frame.contentDocument.createElement("script");
          script.src = new URL(source, location.href);
          script.onload = resolve;
          script.onerror = reject;
          frame.contentDocument.body.append(script);
        });
      this.#scope.importScripts = (...sources) =>
        sources.reduce((before, source) => before.then(() => load(source)), Promise.resolve());
      this.#ready = load(url);
    }

    postMessage(data) {
      this.#ready.then(() => this.#scope.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.#scope.frameElement.remove();
    }

    #receive(data) {
      const event = new MessageEvent("message", { data });
      this.onmessage?.(event);
      this.dispatchEvent(event);
    }
  };
}
