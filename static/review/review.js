/* Keys for reviewing in the admin: rows of a list, answers of a case. Everything works without. */
(() => {
  "use strict";
  const OFF = "sendwatch.review.keys-off";
  const one = (selector) => document.querySelector(selector);
  const rows = () => [...document.querySelectorAll("#result_list tbody tr")];
  let at = -1;

  const move = (step) => {
    const all = rows();
    if (!all.length) return one(`[data-key=${step > 0 ? "j" : "k"}]`)?.click();
    all[at]?.classList.remove("at");
    at = Math.min(Math.max(at + step, 0), all.length - 1);
    all[at].classList.add("at");
    all[at].querySelector("th a, td a")?.focus();
    all[at].scrollIntoView({ block: "nearest" });
  };

  /* The chosen rows, or the one that the keys stand on, through the list's own form. */
  const settle = (action) => {
    const form = one("#changelist-form");
    const chosen = form?.querySelector(".action-select:checked");
    if (!chosen) rows()[at]?.querySelector(".action-select")?.click();
    if (!form?.querySelector(".action-select:checked")) return;
    form.querySelector("select[name=action]").value = action;
    form.querySelector("[name=index]").click();
  };

  const resolve = () => {
    const finding = one("select[data-key=e]");
    if (!finding) return settle("settle_false_alarms");
    if (finding.value) one("[data-do=e]").click();
    else finding.focus();
  };

  const choose = () => {
    const field = one("[data-key=c]");
    if (field?.matches("a")) field.click();
    else field?.focus();
  };

  const help = () => {
    const keys = one(".keys");
    keys.open = !keys.open;
    keys.querySelector("summary").focus();
  };

  const keys = {
    j: () => move(1),
    k: () => move(-1),
    x: () => rows()[at]?.querySelector(".action-select")?.click(),
    c: choose,
    e: resolve,
    i: () => (one("[data-key=i]") ? one("[data-key=i]").click() : settle("ignore_chosen")),
    g: () => one("[data-key=g]")?.click(),
    "?": help,
  };

  const isTyping = (element) => element.matches("input:not([type=checkbox]), textarea, select");

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (isTyping(event.target) || !one(".keys") || localStorage.getItem(OFF)) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  document.addEventListener("DOMContentLoaded", () => {
    const off = one(".keys-off");
    if (!off) return;
    off.checked = Boolean(localStorage.getItem(OFF));
    off.addEventListener("change", () => {
      if (off.checked) localStorage.setItem(OFF, "1");
      else localStorage.removeItem(OFF);
    });
  });
})();
