/* Inside HighLevel: asks the page around us who looks, and hands what it answers to the server. */
(() => {
  "use strict";
  const page = document.getElementById("frame");
  const origins = JSON.parse(document.getElementById("frame-origins").textContent);
  const PATIENCE = 8_000;
  let asked = false;

  const say = (text) => {
    page.querySelector("[role=status]").textContent = text;
  };
  // "https://*.example.com" stands for every host below example.com.
  const fits = (origin) =>
    origins.some((allowed) => {
      const [start, end] = allowed.split("*");
      return end === undefined
        ? origin === allowed
        : origin.startsWith(start) && origin.endsWith(end);
    });
  const enter = async (payload) => {
    const { next, enter, token } = page.dataset;
    const answer = await fetch(enter, {
      method: "POST",
      headers: { "X-CSRFToken": token },
      body: new URLSearchParams({ payload, next }),
    });
    const { to, error } = await answer.json();
    if (answer.ok) location.replace(to);
    else say(error);
  };

  if (parent === window) return say("This page works inside HighLevel: open it from its menu.");
  addEventListener("message", ({ source, origin, data }) => {
    if (asked || source !== parent || !fits(origin)) return;
    if (data?.message !== "REQUEST_USER_DATA_RESPONSE" || typeof data.payload !== "string") return;
    asked = true;
    enter(data.payload).catch(() => say("The server could not be reached. Open the page again."));
  });
  setTimeout(() => asked || say("HighLevel did not answer. Open the page again."), PATIENCE);
  // To whoever is around: it says nothing. Who may answer is checked above.
  parent.postMessage({ message: "REQUEST_USER_DATA" }, "*");
})();
