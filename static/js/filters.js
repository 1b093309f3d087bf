/* The filter bar: suggestions, the browser's time zone, menus that close. */
(() => {
  "use strict";
  const bar = document.querySelector(".filters");
  if (!bar) return;
  const zoneOf = (link) => new URL(link.href).searchParams.get("tz");

  /* An address without a zone took the one chosen last: now it names it. */
  if (bar.dataset.address) history.replaceState(history.state, "", bar.dataset.address);
  const own = bar.querySelector("[data-zone=own]");
  own.search += encodeURIComponent(Intl.DateTimeFormat().resolvedOptions().timeZone || "");
  own.hidden = [...bar.querySelectorAll("[data-zone='']")].some((a) => zoneOf(a) === zoneOf(own));
  own.textContent = `Yours: ${zoneOf(own)}`;
  bar.addEventListener("click", ({ target }) => {
    const link = target.closest("[data-zone]");
    if (link) document.cookie = `zone=${zoneOf(link)};path=/;max-age=31536000;samesite=lax`;
  });

  bar.querySelector(".copy").hidden = false;
  document.addEventListener("click", ({ target }) => {
    const kept = target.closest(".menu");
    for (const menu of bar.querySelectorAll(".menu[open]")) if (menu !== kept) menu.open = false;
  });
  bar.addEventListener("keydown", ({ key, target }) => {
    const menu = target.closest(".menu[open]");
    if (key !== "Escape" || !menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });

  const form = bar.querySelector("[data-suggest]");
  const { name, value: field } = form.elements;
  const list = form.querySelector("[role=listbox]");
  const said = form.querySelector("[role=status]");
  let active = -1;
  let asked = 0;
  let wait;
  const show = (options) => {
    const chosen = list.children[active]?.dataset.value;
    active = options.findIndex(({ value }) => value === chosen);
    list.replaceChildren(
      ...options.map(({ value, label }, i) => {
        const item = document.createElement("li");
        Object.assign(item, { id: `value-${i}`, role: "option", ariaSelected: i === active });
        item.dataset.value = value;
        item.append(label || value, document.createElement("small"));
        item.lastChild.textContent = label && value;
        return item;
      }),
    );
    list.hidden = !options.length;
    field.ariaExpanded = !list.hidden;
    field.setAttribute("aria-activedescendant", active < 0 ? "" : `value-${active}`);
  };
  const hide = () => {
    asked++;
    show([]);
  };
  const ask = async () => {
    const turn = ++asked;
    const query = new URLSearchParams({ name: name.value, text: field.value });
    const answer = await fetch(form.dataset.suggest + query).catch(() => ({}));
    const { options } = answer.ok ? await answer.json() : { options: [] };
    if (turn !== asked) return;
    show(options);
    said.textContent = `${options.length} found`;
  };
  const pick = (item) => {
    if (item) field.value = item.dataset.value;
    form.requestSubmit();
  };
  const move = (by) => {
    const items = [...list.children];
    if (active >= 0) items[active].ariaSelected = false;
    active = (Math.max(active, by < 0 ? 0 : -1) + by + items.length) % items.length;
    items[active].ariaSelected = true;
    field.setAttribute("aria-activedescendant", items[active].id);
    items[active].scrollIntoView({ block: "nearest" });
  };
  const keys = {
    ArrowDown: () => (list.hidden ? ask() : move(1)),
    ArrowUp: () => (list.hidden ? ask() : move(-1)),
    Enter: () => pick(list.children[active]),
    Escape: hide,
  };
  Object.assign(field, { role: "combobox", ariaAutoComplete: "list", ariaExpanded: false });
  field.setAttribute("aria-controls", list.id);
  field.addEventListener("focus", ask);
  field.addEventListener("blur", hide);
  field.addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(ask, 120);
  });
  field.addEventListener("keydown", (event) => {
    if (!keys[event.key] || (event.key === "Escape" && list.hidden)) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
  list.addEventListener("mousedown", (event) => event.preventDefault());
  list.addEventListener("click", ({ target }) => pick(target.closest("li")));
  name.addEventListener("change", () => (field.value = ""));
})();
