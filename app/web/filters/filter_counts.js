// The requests that count a panel's columns: each under the conditions of the others.

import * as api from "../api.js";
import { indexOf, without } from "./conditions.js";
import * as query from "../query.js";
import { MAX_SEARCHED } from "./value_control.js";

/** Return the description of all columns, over the whole collection. */
export const describe = (signal) => api.fields(signal);

/** Return the facets of columns by name, each with the number of items that pass the conditions of the others, and the
 * number that pass all. A group is `{ field, tests }`; `searched` are the columns of which many values are needed. */
export async function counts(groups, current, searched, described, signal) {
  const lasso = current.lasso ? [await query.lassoCondition(current, signal)] : [];
  const request = ({ fields, filters, limit }) => {
    const must = [...filters, ...lasso];
    if (!must.length && !limit) return described;
    return api.facets({ fields, ...(must.length && { filter: { must } }), ...(limit && { limit }) }, signal);
  };
  const requests = planned(groups, current.filters, searched);
  const responses = await Promise.all(requests.map(request));
  const found = new Map();
  requests.forEach(({ fields }, i) => {
    for (const facet of responses[i].fields) {
      if (fields.includes(facet.name)) found.set(facet.name, { facet, passing: responses[i].count });
    }
  });
  return { found, count: responses[0].count };
}

/** Return the requests: the first one for all columns without a condition, then one for each of the others. */
function planned(groups, filters, searched) {
  const shared = { fields: [], filters }, alone = [];
  for (const { field, tests } of groups) {
    const own = indexOf(filters, field, tests), limit = searched.has(field) ? MAX_SEARCHED : undefined;
    if (own < 0 && !limit) shared.fields.push(field);
    else alone.push({ fields: [field], filters: without(filters, own), limit });
  }
  return [shared, ...alone];
}
