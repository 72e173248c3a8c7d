// Keeps the page fresh: on every event the part that changes is asked for, and only what differs is replaced.
"use strict";

const lost = document.getElementById("lost");
const stream = new EventSource("/api/events");
let asking = false;
let again = false;

async function refresh() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  do {
    again = false;
    try {
      const answer = await fetch("/live", { cache: "no-store" });
      if (answer.ok) {
        show(await answer.text());
      }
    } catch {
      lost.hidden = false;
    }
  } while (again);
  asking = false;
}

function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const part of fresh.body.children) {
    const old = document.getElementById(part.id);
    if (old.innerHTML !== part.innerHTML) {
      old.replaceChildren(...part.cloneNode(true).childNodes);
    }
  }
  lost.hidden = true;
}

stream.addEventListener("state", refresh);
setInterval(refresh, 30000);
stream.addEventListener("error", () => {
  lost.hidden = false;
});
