// Mouse, touch, stylus and keyboard on the map: what they do is up to the handlers.

const CLICK_PX = 5;
const STEP_PX = 60;
const KEY_ZOOM = 1.5;

/**
 * Listen to an element. The handlers: pan(dx, dy), zoom(factor, x, y), fit(), hover(x, y), leave(), click(x, y), open()
 * on Enter, and moved() after other keys. While drawing() is true, a drag calls draw(x, y), and drawn(finished) at its end.
 */
export function listen(target, on) {
  const pointers = new Map(); // id -> the last position; two of them pinch
  let start = null, drawing = false; // start: where a pointer went down, until it moves

  const position = ({ clientX, clientY }) => {
    const { left, top } = target.getBoundingClientRect();
    return [clientX - left, clientY - top];
  };
  const endDrawing = (finished) => {
    if (drawing) on.drawn(finished);
    drawing = false;
  };

  const handlers = {
    pointerdown(event) {
      if (event.button > 0) return;
      const at = position(event);
      target.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, at);
      endDrawing(false); // by a second finger: it becomes a pinch
      start = pointers.size === 1 ? at : null;
      drawing = pointers.size === 1 && on.drawing();
      if (drawing) on.draw(...at);
      on.leave();
    },
    pointermove(event) {
      const at = position(event), before = pointers.get(event.pointerId);
      if (!before) return event.pointerType === "mouse" && on.hover(...at);
      if (start && distance(start, at) > CLICK_PX) start = null;
      if (drawing) return on.draw(...at);
      if (start) return undefined;
      pointers.set(event.pointerId, at);
      const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
      return other ? pinch(before, at, other) : on.pan(at[0] - before[0], at[1] - before[1]);
    },
    pointerup(event) {
      if (!pointers.delete(event.pointerId)) return;
      const clicked = !drawing && start;
      endDrawing(true);
      if (clicked) on.click(...clicked);
      start = null;
    },
    pointercancel(event) {
      pointers.delete(event.pointerId);
      endDrawing(false);
      start = null;
    },
    pointerleave: on.leave,
    wheel(event) {
      event.preventDefault();
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
      const speed = event.ctrlKey ? 0.01 : 0.002; // a pinch on a touchpad is a wheel with Ctrl, in small steps
      on.zoom(Math.exp(-Math.max(-300, Math.min(300, pixels)) * speed), ...position(event));
    },
    keydown(event) {
      const run = event.ctrlKey || event.metaKey || event.altKey ? null : keys(on)[event.key];
      if (!run) return;
      event.preventDefault();
      run();
      if (event.key !== "Enter") on.moved();
    },
  };

  function pinch(before, at, other) {
    on.pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
    on.zoom(distance(at, other) / Math.max(1, distance(before, other)), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
  }

  for (const [name, handler] of Object.entries(handlers)) target.addEventListener(name, handler, { passive: false });
}

const keys = (on) => ({
  ArrowLeft: () => on.pan(STEP_PX, 0),
  ArrowRight: () => on.pan(-STEP_PX, 0),
  ArrowUp: () => on.pan(0, STEP_PX),
  ArrowDown: () => on.pan(0, -STEP_PX),
  "+": () => on.zoom(KEY_ZOOM),
  "=": () => on.zoom(KEY_ZOOM),
  "-": () => on.zoom(1 / KEY_ZOOM),
  0: on.fit,
  Enter: on.open,
});

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
