"use strict";
// The page is whole without this: it walks through the stages, copies YAML, and opens what is folded before printing.

const stages = [...document.querySelectorAll(".stage")];
const walk = document.querySelector(".walk");
const list = document.querySelector(".stages");
const cursor = document.getElementById("cursor");
const said = walk?.querySelector("span");
const invitation = said?.textContent;
let current = -1;

function show(index) {
  if (index < 0 || index >= stages.length) return;
  current = index;
  list.classList.add("walking");
  const stage = stages[index];
  for (const other of stages) {
    other.classList.toggle("current", other === stage);
    if (other === stage) other.setAttribute("aria-current", "step");
    else other.removeAttribute("aria-current");
  }
  for (const lane of document.querySelectorAll(".lane")) {
    lane.classList.toggle("current", lane.dataset.finding === stage.dataset.finding);
  }
  cursor.setAttribute("x1", stage.dataset.x);
  cursor.setAttribute("x2", stage.dataset.x);
  cursor.setAttribute("visibility", "visible");
  const title = stage.querySelector("h3").textContent;
  said.textContent = `Stage ${index + 1} of ${stages.length}: ${title}`;
  for (const button of walk.querySelectorAll("[data-step]")) {
    const next = index + Number(button.dataset.step);
    button.setAttribute("aria-disabled", String(next < 0 || next >= stages.length));
  }
}

function step(by) {
  show(current < 0 ? 0 : current + by);
}

function whole() {
  current = -1;
  list.classList.remove("walking");
  cursor.setAttribute("visibility", "hidden");
  said.textContent = invitation;
  for (const marked of document.querySelectorAll(".stage.current, .lane.current")) {
    marked.classList.remove("current");
    marked.removeAttribute("aria-current");
  }
}

if (walk && stages.length > 1) {
  walk.hidden = false;
  walk.querySelector(".whole").addEventListener("click", whole);
  for (const button of walk.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  walk.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (by) {
      event.preventDefault();
      step(by);
    }
  });
}

for (const button of document.querySelectorAll(".copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      // Without the right to the clipboard, it is at least selected.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}

addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
