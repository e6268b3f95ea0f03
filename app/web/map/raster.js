// Points written straight into pixels. Without a GPU that is several times as fast as paths or small images.

/** The largest radius, and how far outside of the canvas a point can be and still be drawn, in device pixels. */
export const REACH = 32;
const MARGIN = 2 * REACH; // around the canvas, so that points at its edges need no clipping

/** Return a colour `[red, green, blue]` as a pixel. */
export const pixel = ([red, green, blue]) => (255 << 24) | (blue << 16) | (green << 8) | red;

/** Mix two pixels; `share` is that of the second, of 256. */
export function blend(below, above, share) {
  const mixed = (mask) => ((Math.imul(below & mask, 256 - share) + Math.imul(above & mask, share)) >>> 8) & mask;
  return 0xff000000 | mixed(0xff00ff) | mixed(0xff00);
}

/** The pixels of a canvas, of a size in device pixels. */
export class Raster {
  constructor(width, height) {
    this.stride = width + 2 * MARGIN;
    this.image = new ImageData(this.stride, height + 2 * MARGIN);
    this.pixels = new Int32Array(this.image.data.buffer);
  }

  /** Return what a point of a radius covers: offsets of whole pixels, and of those at its edge with their shares. */
  sprite(radius) {
    const solid = [], edge = [], shares = [], reach = Math.min(REACH, Math.ceil(radius));
    for (let y = -reach; y <= reach; y++) {
      for (let x = -reach; x <= reach; x++) {
        const share = Math.round(256 * Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(x, y))));
        if (share === 256) solid.push(y * this.stride + x);
        else if (share > 0) edge.push(y * this.stride + x), shares.push(share);
      }
    }
    return { solid, edge, shares };
  }

  /** Draw a sprite at a position no farther than `REACH` from the canvas. */
  stamp(x, y, colour, { solid, edge, shares }) {
    const { pixels } = this, at = (Math.round(y) + MARGIN) * this.stride + Math.round(x) + MARGIN;
    for (let k = 0; k < solid.length; k++) pixels[at + solid[k]] = colour;
    for (let k = 0; k < edge.length; k++) pixels[at + edge[k]] = blend(pixels[at + edge[k]], colour, shares[k]);
  }

  put(context) {
    context.putImageData(this.image, -MARGIN, -MARGIN);
  }
}
