// An order of images in which similar ones are neighbours.

/**
 * Return the positions 0..count-1, grouped by similarity: average-linkage clustering, whose clusters are joined at
 * their most similar ends. `similarity(i, j)` is the cosine of two images.
 */
export function groupedOrder(count, similarity) {
  const links = Array.from({ length: count }, (_, i) => Array.from({ length: count }, (_, j) => similarity(i, j)));
  const orders = Array.from({ length: count }, (_, i) => [i]);
  let active = orders.map((_, i) => i);
  while (active.length > 1) {
    const [a, b] = closest(active, links);
    const sizes = [orders[a].length, orders[b].length];
    for (const other of active) {
      const mean = (links[a][other] * sizes[0] + links[b][other] * sizes[1]) / (sizes[0] + sizes[1]);
      links[a][other] = links[other][a] = mean;
    }
    orders[a] = joined(orders[a], orders[b], similarity);
    active = active.filter((cluster) => cluster !== b);
  }
  return count ? orders[active[0]] : [];
}

function closest(active, links) {
  let best = [active[0], active[1]];
  for (const a of active) for (const b of active) if (a < b && links[a][b] > links[best[0]][best[1]]) best = [a, b];
  return best;
}

function joined(a, b, similarity) {
  const orders = [[a, b], [a, b.toReversed()], [a.toReversed(), b], [a.toReversed(), b.toReversed()]];
  const seam = ([left, right]) => similarity(left.at(-1), right[0]);
  return orders.reduce((best, order) => (seam(order) > seam(best) ? order : best)).flat();
}
