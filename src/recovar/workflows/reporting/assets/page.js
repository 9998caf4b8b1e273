"use strict";

// Shows a few lines of text beside the pointer.
const tip = document.getElementById("tip");
function showTip(text, clientX, clientY) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = clientX + 16 + box.width > innerWidth ? clientX - box.width - 12 : clientX + 16;
  const top = Math.min(clientY + 12, innerHeight - box.height - 6);
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}
function hideTip() {
  tip.hidden = true;
}

// Charts: a line at the value nearest to the pointer, and what the chart says of it.
for (const plot of document.querySelectorAll("svg[data-hover]")) {
  const stops = JSON.parse(plot.dataset.hover);
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
  let at = 0;
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", plot.dataset.top);
  cursor.setAttribute("y2", plot.dataset.bottom);
  cursor.style.display = "none";
  plot.append(cursor);
  const point = (place, clientX, clientY) => {
    at = place;
    cursor.setAttribute("x1", stops[at][0]);
    cursor.setAttribute("x2", stops[at][0]);
    cursor.style.display = "";
    showTip(stops[at][1], clientX, clientY);
  };
  const leave = () => {
    cursor.style.display = "none";
    hideTip();
  };
  const scale = () => plot.getBoundingClientRect().width / plot.viewBox.baseVal.width;
  if (!stops.length) continue;
  plot.addEventListener("pointermove", (event) => {
    const x = (event.clientX - plot.getBoundingClientRect().left) / scale();
    let nearest = 0;
    stops.forEach((stop, place) => {
      if (Math.abs(stop[0] - x) < Math.abs(stops[nearest][0] - x)) nearest = place;
    });
    point(nearest, event.clientX, event.clientY);
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const box = plot.getBoundingClientRect();
    const next = Math.min(stops.length - 1, Math.max(0, at + step));
    point(next, box.left + stops[next][0] * scale(), box.top + box.height / 3);
  });
}

// Navigation: marks the section that is read.
const links = new Map();
for (const link of document.querySelectorAll("nav li a")) {
  links.set(link.getAttribute("href").slice(1), link);
}
function markPlace() {
  let here = null;
  for (const identifier of links.keys()) {
    const top = document.getElementById(identifier).getBoundingClientRect().top;
    if (here === null || top < innerHeight / 3) here = identifier;
  }
  for (const [identifier, link] of links) link.classList.toggle("here", identifier === here);
}
addEventListener("scroll", markPlace, { passive: true });
markPlace();
