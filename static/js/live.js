/* What moves on a page: patches from the socket, the state of the connection, the feed's pause.
   Everything works without this file. */
(() => {
  "use strict";
  const root = document.documentElement;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const byId = (id) => document.getElementById(id);
  const skew = Date.parse(document.body.dataset.now || "") - Date.now() || 0;
  const now = () => Date.now() + skew;

  const some = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  const told = { events: 0, complaints: 0 }; // since the last sentence
  let caughtUp = () => {};

  /* --- Swaps: elements stay, only what differs changes: focus, hover, selection, open
         disclosures and half-made clicks survive a frame. --- */
  const flash = (node) => {
    const box = node.parentElement?.closest("[data-flash]");
    if (box && !calm.matches) box.animate([{ color: "var(--accent)" }, {}], 1200);
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
  // Where somebody types or is about to press a button nothing moves: the region waits.
  const held = new Map();
  const isHeld = (target) =>
    target.querySelector(":is(input, select, textarea, button):focus-visible") !== null;
  document.addEventListener("focusout", () =>
    setTimeout(() => {
      for (const [target, fragment] of held) swaps.patch(target, fragment);
    }),
  );
  const swaps = {
    patch(target, fragment) {
      if (isHeld(target)) return void held.set(target, fragment);
      held.delete(target);
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
    cursor(target, fragment) {
      const { cursor, missed } = fragment.firstElementChild.dataset;
      target.dataset.cursor = cursor;
      caughtUp(missed);
    },
    feed(target, fragment) {
      take([...fragment.querySelectorAll("li[id]")]);
      leftOut += Number(fragment.firstElementChild.dataset.leftOut || 0);
      feedChanged();
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
  const NOUNS = { complained: "complaint", bounced: "bounce", deferred: "deferral" };
  const FAILED = ".k-bounced, .k-deferred, .k-suppressed, .k-rejected, .k-complained";
  const feed = byId("feed");
  const button = byId("feed-pause");
  const pill = byId("feed-new");
  let waiting = [];
  let leftOut = 0;
  let stopped = false;
  let hovered = false;
  const inFocus = () => feed.contains(document.activeElement) && document.activeElement !== feed;
  const isSelected = () => !getSelection().isCollapsed && feed.contains(getSelection().anchorNode);
  const paused = () => {
    if (stopped) return "Paused";
    if (document.hidden) return "Paused: tab hidden";
    if (feed.querySelector("[open]")) return "Paused: row open";
    if (isSelected()) return "Paused: text selected";
    if (feed.scrollTop > 4) return "Paused: scrolled";
    if (inFocus()) return "Paused: row in focus";
    return hovered ? "Paused: pointer here" : "";
  };
  const cursor = (row) => Number(row.dataset.cursor);
  const count = (rows, kind) => rows.filter((row) => row.matches(".k-" + kind)).length;
  // Of those that wait the newest are kept, and all that failed; the others are counted.
  const take = (rows) => {
    const known = new Set(waiting.map((row) => row.id));
    const news = rows.filter((row) => !byId(row.id) && !known.has(row.id));
    waiting = [...news, ...waiting].sort((a, b) => cursor(b) - cursor(a));
    const bad = waiting.filter((row) => row.matches(FAILED)).length;
    let good = Math.max(0, KEPT - bad);
    const before = waiting.length;
    waiting = waiting.filter((row) => row.matches(FAILED) || good-- > 0).slice(0, 5 * KEPT);
    leftOut += before - waiting.length;
    told.events += news.length;
    told.complaints += count(news, "complained");
  };
  const flush = () => {
    for (const row of waiting) {
      const next = [...feed.children].find((other) => cursor(other) < cursor(row));
      feed.insertBefore(row, next || null);
    }
    waiting = [];
    byId("feed-left-out").textContent = leftOut ? `${some(leftOut, "event")} not shown` : "";
    leftOut = 0;
    // Failures stay longest: they are few, and what one looks for.
    const spare = [...feed.children].filter((row) => !row.matches(FAILED));
    while (feed.children.length > KEPT) (spare.pop() || feed.lastElementChild).remove();
    byId("feed-empty")?.toggleAttribute("hidden", feed.children.length > 0);
    tick();
    showFeedState();
  };
  const showFeedState = () => {
    const reason = paused();
    const worst = Object.keys(NOUNS).find((kind) => count(waiting, kind));
    const news = `${(waiting.length + leftOut).toLocaleString("en")} new`;
    byId("feed-state").textContent = reason;
    button.textContent = stopped ? "Resume" : "Pause";
    button.ariaPressed = stopped;
    pill.hidden = !reason || !waiting.length;
    pill.textContent = worst ? `${news}, ${some(count(waiting, worst), NOUNS[worst])}` : news;
    pill.className = `pill ${worst || ""}`;
  };
  const feedChanged = () => (paused() ? showFeedState() : flush());
  if (feed) {
    button.hidden = false;
    button.addEventListener("click", () => {
      stopped = !stopped;
      feedChanged();
    });
    pill.addEventListener("click", () => {
      stopped = hovered = false;
      feed.scrollTop = 0;
      for (const row of feed.querySelectorAll("[open]")) row.open = false;
      getSelection().empty();
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
    feed.addEventListener("toggle", feedChanged, true);
    document.addEventListener("selectionchange", feedChanged);
    document.addEventListener("visibilitychange", feedChanged);
  }

  /* --- For those who listen: a sentence every ten seconds at most, none while paused --- */
  const announce = (text) => (byId("summary").textContent = text);
  setInterval(() => {
    const { events, complaints } = told;
    told.events = told.complaints = 0;
    if (!events || paused()) return;
    announce(`New: ${some(events, "event")}, ${some(complaints, "complaint")}`);
  }, 10_000);

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
    htmx.config.wsReconnectDelay = (tries) => {
      const delay = Math.min(1_000 * 2 ** tries, 8_000) * (0.5 + Math.random() / 2);
      retryAt = Date.now() + delay;
      return delay;
    };
    // What the page has seen: a socket begins there, and says how much it missed.
    htmx.createWebSocket = (url) => new WebSocket(`${url}&after=${live.dataset.cursor}`);
    const POLL = 10_000;
    const PATIENCE = 3_000;
    let polling = 0;
    let losing = 0;
    let retryAt = 0;
    let wasLost = false;
    let asOf = "";
    let over = false;
    const say = (state, text) => {
      root.dataset.live = state;
      byId("live-word").textContent = text;
    };
    const sayLost = () => {
      const left = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
      say("lost", `Live updates lost, retrying (${left} s)${asOf}`);
    };
    setInterval(() => polling && sayLost(), 1_000);
    caughtUp = (missed) => {
      if (!wasLost) return;
      wasLost = false;
      const said = missed ? `Caught up ${some(Number(missed), "event")}` : "Caught up";
      say("live", said);
      announce(said);
      setTimeout(() => polling || over || say("live", "Live"), 4_000);
    };
    const refresh = () => {
      if (!over) htmx.ajax("GET", location.href, { source: live, target: live, swap: "none" });
    };
    const lost = () => {
      losing = 0;
      if (polling || over) return;
      wasLost = true;
      polling = setInterval(refresh, POLL);
      sayLost();
      announce("Live updates lost, retrying");
      refresh();
    };
    const losingIt = () => {
      if (!losing && !polling && !over) losing = setTimeout(lost, PATIENCE);
    };
    document.addEventListener("htmx:wsOpen", () => {
      clearTimeout(losing);
      clearInterval(polling);
      losing = polling = 0;
      asOf = "";
      say("live", "Live");
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
      } else if (polling) {
        asOf = ` · as of ${new Date(now()).toLocaleTimeString([], { hour12: false })}`;
        sayLost();
      }
    });
  }

  /* --- Small things --- */
  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (!copy) return;
    await navigator.clipboard.writeText(copy.dataset.copy);
    copy.textContent = "Copied";
  });
})();
