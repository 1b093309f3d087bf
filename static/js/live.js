/* What moves on a page: patches from the socket, the state of the connection, the feed's pause.
   Everything works without this file; with it nothing needs a reload. */
(() => {
  "use strict";
  const root = document.documentElement;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const byId = (id) => document.getElementById(id);
  const skew = Date.parse(document.body.dataset.now || "") - Date.now() || 0;
  const now = () => Date.now() + skew;

  /* --- Swaps: elements stay, only what differs changes, so focus, hover, selection, open
         disclosures and half-made clicks survive a frame. ------------------------------------ */
  const flash = (node) => {
    const box = node.parentElement?.closest("[data-flash]");
    if (box && !calm.matches) {
      box.animate([{ color: "var(--accent)" }, {}], { duration: 1200, easing: "ease-out" });
    }
  };
  const patch = (old, fresh) => {
    if (old.nodeName !== fresh.nodeName) return void old.replaceWith(fresh);
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) {
        old.nodeValue = fresh.nodeValue;
        if (old.nodeType === Node.TEXT_NODE && old.nodeValue.trim()) flash(old);
      }
      return;
    }
    if (old.classList.contains("cross")) return; // the reader's own
    for (const { name } of [...old.attributes]) {
      if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const before = [...old.childNodes];
    const after = [...fresh.childNodes];
    after.forEach((child, i) => (before[i] ? patch(before[i], child) : old.append(child)));
    before.slice(after.length).forEach((child) => child.remove());
  };
  const swaps = {
    patch(target, fragment) {
      patch(target, fragment.firstElementChild);
    },
    rows(target, fragment) {
      for (const row of fragment.querySelectorAll("tr[id]")) {
        const old = byId(row.id);
        if (old) patch(old, row);
        else target.append(row);
      }
      while (target.rows.length > target.dataset.keep) target.rows[0].remove();
    },
    feed(target, fragment) {
      waiting.push(...fragment.querySelectorAll("li[id]"));
      if (paused()) showFeedState();
      else flush();
    },
  };
  htmx.defineExtension("patch", {
    isInlineSwap: (style) => style in swaps,
    handleSwap(style, target, fragment) {
      if (!(style in swaps)) return false;
      swaps[style](target, fragment);
      return [];
    },
  });

  /* --- Feed --- */
  const KEPT = 200;
  const FAILED = ".k-bounced, .k-deferred, .k-suppressed, .k-rejected, .k-complained";
  const feed = byId("feed");
  const button = byId("feed-pause");
  const pill = byId("feed-new");
  let waiting = [];
  let held = false;
  let hovered = false;
  const inFocus = () => feed.contains(document.activeElement) && document.activeElement !== feed;
  const paused = () => {
    if (held) return "Paused";
    if (document.hidden) return "Paused: tab hidden";
    if (feed.scrollTop > 4) return "Paused: scrolled";
    if (inFocus()) return "Paused: row in focus";
    return hovered ? "Paused: pointer here" : "";
  };
  const cursor = (row) => Number(row.dataset.cursor);
  const fresh = () => {
    const seen = new Set();
    return waiting
      .filter((row) => !byId(row.id) && !seen.has(row.id) && seen.add(row.id))
      .sort((a, b) => cursor(b) - cursor(a))
      .slice(0, KEPT);
  };
  const flush = () => {
    for (const row of fresh()) {
      const next = [...feed.children].find((other) => cursor(other) < cursor(row));
      feed.insertBefore(row, next || null);
    }
    waiting = [];
    // Failures stay longest: they are few, and what one looks for.
    const spare = [...feed.children].filter((row) => !row.matches(FAILED));
    while (feed.children.length > KEPT) (spare.pop() || feed.lastElementChild).remove();
    byId("feed-empty")?.toggleAttribute("hidden", feed.children.length > 0);
    tick();
    showFeedState();
  };
  const showFeedState = () => {
    const reason = paused();
    waiting = reason ? fresh() : waiting;
    const count = (kind) => waiting.filter((row) => row.matches(".k-" + kind)).length;
    const parts = [`${waiting.length}${waiting.length >= KEPT ? "+" : ""} new`];
    if (count("complained")) parts.push(`${count("complained")} complained`);
    if (count("bounced")) parts.push(`${count("bounced")} bounced`);
    byId("feed-state").textContent = reason;
    button.textContent = held ? "Resume" : "Pause";
    button.setAttribute("aria-pressed", String(held));
    pill.hidden = !reason || !waiting.length;
    pill.textContent = parts.join(" · ");
    pill.classList.toggle("bad", parts.length > 1);
  };
  const feedChanged = () => (paused() ? showFeedState() : flush());
  const hold = (value) => {
    held = value;
    feedChanged();
  };
  if (feed) {
    button.hidden = false;
    button.addEventListener("click", () => hold(!held));
    pill.addEventListener("click", () => {
      held = false;
      hovered = false;
      feed.scrollTop = 0;
      flush();
    });
    feed.addEventListener("pointerenter", (event) => {
      hovered = event.pointerType === "mouse";
      showFeedState();
    });
    feed.addEventListener("pointerleave", () => {
      hovered = false;
      feedChanged();
    });
    feed.addEventListener("scroll", feedChanged, { passive: true });
    feed.addEventListener("focusin", showFeedState);
    feed.addEventListener("focusout", () => setTimeout(feedChanged));
    document.addEventListener("visibilitychange", feedChanged);
  }
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "p" && feed) hold(!held);
    const field = document.querySelector(".filters .field");
    if (event.key === "/" && field) {
      event.preventDefault();
      field.focus();
    }
  });

  /* --- Times --- */
  const ago = (then) => {
    const s = Math.max(0, Math.round((now() - then) / 1000));
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
    return `${Math.floor(s / 86400)} d ago`;
  };
  const tick = () => {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const text = ago(Date.parse(time.dateTime));
      if (time.textContent !== text) time.textContent = text;
    }
  };
  setInterval(tick, 1000);

  /* --- Connection --- */
  const live = byId("live");
  if (live) {
    htmx.config.wsReconnectDelay = (tries) =>
      Math.min(1_000 * 2 ** tries, 8_000) * (0.5 + Math.random() / 2);
    const POLL = 10_000;
    const PATIENCE = 2_000;
    let polling = 0;
    let losing = 0;
    let over = false;
    const say = (state, text) => {
      root.dataset.live = state;
      byId("live-word").textContent = text;
    };
    const clock = () => new Date(now()).toLocaleTimeString([], { hour12: false });
    const refresh = () => {
      if (!over) htmx.ajax("GET", location.href, { source: live, target: live, swap: "none" });
    };
    const lost = () => {
      losing = 0;
      if (polling || over) return;
      say("lost", "Live updates lost, retrying");
      polling = setInterval(refresh, POLL);
      refresh();
    };
    const losingIt = () => {
      if (!losing && !polling && !over) losing = setTimeout(lost, PATIENCE);
    };
    document.addEventListener("htmx:wsOpen", () => {
      const wasLost = polling;
      clearTimeout(losing);
      clearInterval(polling);
      losing = polling = 0;
      say("live", wasLost ? "Caught up" : "Live");
      if (wasLost) setTimeout(() => polling || over || say("live", "Live"), 4_000);
    });
    document.addEventListener("htmx:wsClose", (event) => {
      const { event: close, socketWrapper } = event.detail;
      losingIt();
      // The extension comes back by itself after the first four; the last two say it is no use.
      if (![1006, 1011, 1012, 1013, 4400, 4404].includes(close.code)) {
        setTimeout(() => socketWrapper.reconnect(), 1_000 + 2_000 * Math.random());
      }
    });
    document.addEventListener("htmx:wsError", losingIt);
    addEventListener("offline", lost);
    document.addEventListener("htmx:afterRequest", ({ detail }) => {
      if (detail.elt !== live || !detail.successful) return;
      if (new URL(detail.xhr.responseURL).pathname !== location.pathname) {
        over = true;
        clearInterval(polling);
        say("lost", "Signed out. Reload the page to log in");
      } else if (polling) say("lost", `Live updates lost, retrying. As of ${clock()}`);
    });
  }

  /* --- Small things --- */
  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (!copy) return;
    await navigator.clipboard.writeText(copy.dataset.copy);
    copy.textContent = "Copied";
  });
  const plot = byId("minutes-plot");
  const readOut = (event) => {
    const box = plot.querySelector("svg.bars").getBoundingClientRect();
    const rows = byId("minutes-rows").rows;
    const i = Math.floor(((event.clientX - box.left) / box.width) * rows.length);
    const inside = event.type === "pointermove" && i >= 0 && i < rows.length;
    byId("minutes-caption").hidden = inside;
    byId("minutes-read").hidden = !inside;
    for (const line of plot.querySelectorAll(".cross")) {
      line.classList.toggle("off", !inside);
      line.setAttribute("x1", i + 0.5);
      line.setAttribute("x2", i + 0.5);
    }
    if (inside) {
      const [at, ...counts] = [...rows[i].cells].map((cell) => cell.textContent.trim());
      const names = ["delivered", "deferred", "bounced", "complained"];
      byId("minutes-read").textContent = `${at}: ${counts.map((n, j) => `${n} ${names[j]}`).join(", ")}`;
    }
  };
  plot?.addEventListener("pointermove", readOut);
  plot?.addEventListener("pointerleave", readOut);
})();
