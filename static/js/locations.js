/* The overview: its title says how many need somebody; its table is ordered anew at most once a
   minute, and never under the pointer, the focus or an open row. */
(() => {
  "use strict";
  const GAP = 60_000;
  const byId = (id) => document.getElementById(id);
  const watch = (node, names, then) => {
    if (node) new MutationObserver(then).observe(node, { attributes: true, attributeFilter: names });
  };

  const needs = byId("needs");
  const bare = document.title;
  const entitle = () => {
    const count = Number(needs.dataset.count);
    document.title = count ? `(${count}) Sendwatch` : bare;
  };
  watch(needs, ["data-count"], entitle);
  if (needs) entitle();

  const body = byId("locations");
  const pages = byId("locations-pages");
  const button = byId("locations-sort");
  let last = Date.now();
  const order = () => pages.dataset.order.split(" ").filter(byId);
  // All but the longest run of rows that stay in their order; and those that come or go.
  const moved = () => {
    const next = order();
    const now = [...body.rows].map((row) => next.indexOf(row.id)).filter((at) => at >= 0);
    const runs = [];
    now.forEach((at, i) => {
      runs[i] = 1 + Math.max(0, ...runs.filter((_, j) => now[j] < at));
    });
    return body.rows.length - Math.max(0, ...runs);
  };
  const sort = () => {
    const next = order();
    next.forEach((id, i) => {
      if (body.rows[i]?.id !== id) body.insertBefore(byId(id), body.rows[i] || null);
    });
    while (next.length && body.rows.length > next.length) body.rows[next.length].remove();
    last = Date.now();
    button.hidden = true;
  };
  const held = () => body.matches(":hover, :focus-within") || body.querySelector("[open]");
  const look = () => {
    const count = moved();
    if (count && Date.now() - last >= GAP && !held()) return sort();
    button.hidden = !count;
    button.textContent = `${count} location${count === 1 ? "" : "s"} moved: re-sort`;
  };
  if (body && pages && button) {
    watch(pages, ["data-order"], look);
    setInterval(look, 5_000);
    button.addEventListener("click", sort);
  }
})();
