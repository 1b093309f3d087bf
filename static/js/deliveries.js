/* The list of deliveries and its pages, by pointer. The links work without this. */
(() => {
  "use strict";
  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.nextElementSibling.textContent);
      button.textContent = "Copied";
    });
  }
  document.addEventListener("click", (event) => {
    if (event.target.closest("a, button, input, summary") || getSelection().toString()) return;
    event.target.closest("tr")?.querySelector("a.open")?.click();
  });
})();
