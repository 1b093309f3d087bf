/* Keyboard and pointer: rows, ranges, help, colours, reading and zooming charts. */
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const clamp = (i, least, most) => Math.min(Math.max(i, least), most);
  const focused = () => document.activeElement;

  /* The address, changed. */
  const ask = (changes, ...without) => {
    const url = new URL(location);
    for (const name of [...without, "page", "before"]) url.searchParams.delete(name);
    for (const name in changes) url.searchParams.set(name, changes[name]);
    location.assign(url);
  };
  const range = (name) => document.querySelector(".filters") && ask({ range: name }, "from", "to");

  /* Rows: the first link of each, or the one that opens it. */
  const ROWS = ":is(tbody tr, ol > li, ul > li)";
  const move = (step) => {
    const own = document.querySelector(`[aria-keyshortcuts=${step > 0 ? "j" : "k"}]`);
    if (own) return own.click();
    const open = [...document.querySelectorAll("main a.open")];
    const rows = [...document.querySelectorAll(`main ${ROWS}:has(a)`)]
      .filter((row) => !row.closest(".filters, figure") && row.getClientRects().length)
      .map((row) => row.querySelector("a"));
    const all = open.length ? open : rows;
    const row = focused().closest(ROWS);
    const at = row ? all.findIndex((link) => row.contains(link)) : -1;
    const next = at < 0 ? all.at(step > 0 ? 0 : -1) : all[at + step];
    if (next) next.focus();
    else document.querySelector(`a[rel=${step > 0 ? "next" : "prev"}]`)?.click();
  };

  const help = byId("help");
  const keys = {
    "/": () => byId("search")?.focus(),
    "?": () => help.showModal(),
    p: () => byId("feed-pause")?.click(),
    j: () => move(1),
    k: () => move(-1),
    d: () => range("24h"),
    w: () => range("7d"),
    m: () => range("30d"),
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (key === "Escape") {
      hide();
      if (focused() === target) target.blur();
    }
    if (target.matches("input:not([type=checkbox]), select, textarea") || !(key in keys)) return;
    event.preventDefault();
    keys[key]();
  });
  byId("help-open").onclick = keys["?"];

  /* Colours: a cookie, by which the server paints the next page. */
  const { dataset } = document.documentElement;
  const SCHEMES = ["system", "light", "dark"];
  const scheme = byId("scheme");
  const say = () => (scheme.textContent = `Colours: ${dataset.scheme}`);
  scheme.onclick = () => {
    dataset.scheme = SCHEMES[(SCHEMES.indexOf(dataset.scheme) + 1) % 3];
    document.cookie = `scheme=${dataset.scheme};path=/;max-age=31536000;samesite=lax`;
    say();
  };
  say();
  byId("hands").hidden = false;

  /* Charts: <figure class="chart"> with data-from and data-step (seconds) on it or in it; each row
     of its table is a step. Point or use the arrows to read, drag to zoom. */
  const band = document.createElement("div");
  const read = document.createElement("output");
  band.className = "chart-band";
  read.className = "chart-read";
  document.body.append(band, read);
  let chart = null; // the one that is read, at this step
  let at = 0;
  let began = -1; // the step where dragging began
  const hide = () => {
    band.hidden = read.hidden = true;
    chart = null;
    began = -1;
  };
  hide();
  const rowsOf = (figure) => [...figure.querySelectorAll("tbody tr")];
  const texts = (cells) => [...cells].map((cell) => cell.textContent.trim());
  const boxOf = (figure) => {
    const plots = [...figure.querySelectorAll("svg.bars")].map((p) => p.getBoundingClientRect());
    return { ...plots[0].toJSON(), height: plots.at(-1).bottom - plots[0].top };
  };
  const show = (figure, step) => {
    const rows = rowsOf(figure);
    if (!rows.length) return;
    chart = figure;
    at = clamp(step, 0, rows.length - 1);
    const { left, width, top, height } = boxOf(figure);
    const first = began < 0 ? at : Math.min(began, at);
    const begins = scrollX + left + (width * first) / rows.length;
    const names = texts(figure.querySelectorAll("thead th"));
    const [when, ...counts] = texts(rows[at].cells);
    read.textContent = `${when}: ${counts.map((n, i) => `${n} ${names[i + 1].toLowerCase()}`).join(", ")}`;
    band.hidden = read.hidden = false;
    const put = (node, x, y) => Object.assign(node.style, { left: `${x}px`, top: `${y}px` });
    put(band, begins, top + scrollY);
    band.style.width = `${(width * (Math.max(began, at) - first + 1)) / rows.length}px`;
    band.style.height = `${height}px`;
    const room = document.body.clientWidth - read.offsetWidth - 4;
    put(read, clamp(begins - read.offsetWidth / 2, 4, room), top + scrollY - read.offsetHeight - 4);
  };
  const figureOf = ({ target }) => target.closest?.("figure.chart:has(svg.bars)");
  const stepAt = (figure, { clientX, clientY }) => {
    const { left, width, top, height } = boxOf(figure);
    const x = (clientX - left) / width;
    const inside = x >= 0 && x < 1 && clientY >= top && clientY < top + height;
    return inside || began >= 0 ? Math.floor(x * rowsOf(figure).length) : -1;
  };
  document.addEventListener("pointermove", (event) => {
    const figure = began < 0 ? figureOf(event) : chart;
    const step = figure ? stepAt(figure, event) : -1;
    if (step >= 0 || began >= 0) show(figure, step);
    else if (chart && chart !== focused()) hide();
  });
  document.addEventListener("pointerdown", (event) => {
    const figure = figureOf(event);
    const step = figure && event.pointerType === "mouse" ? stepAt(figure, event) : -1;
    if (step < 0 || event.button) return;
    event.preventDefault();
    began = step;
    show(figure, step);
  });
  document.addEventListener("pointerup", () => {
    const [first, last] = [began, at].sort((a, b) => a - b);
    began = -1;
    if (first < 0 || first === last) return;
    const { from, step } = (chart.querySelector("[data-from]") || chart).dataset;
    const moment = (i) => new Date(Date.parse(from) + i * step * 1000).toISOString();
    ask({ from: moment(first), to: moment(last + 1) }, "range");
  });
  document.addEventListener("keydown", (event) => {
    const figure = figureOf(event);
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || figure !== event.target) return;
    event.preventDefault();
    show(figure, chart === figure ? at + step : step > 0 ? 0 : Infinity);
  });
  document.addEventListener("focusout", hide);
})();
