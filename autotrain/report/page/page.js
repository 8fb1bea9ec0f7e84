"use strict";
// One crosshair over all charts: by pointer, finger or arrow keys. No network, no library.
const known = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const charts = known.panels.map((panel) => {
  const figure = document.querySelector(`figure[data-key="${panel.key}"]`);
  const svg = figure.querySelector("svg.chart");
  const cross = svg.appendChild(document.createElementNS(SVG, "line"));
  cross.setAttribute("class", "cross off");
  const dots = panel.lines.map((line) => {
    const dot = svg.appendChild(document.createElementNS(SVG, "circle"));
    dot.setAttribute("class", `dot off ${line.colour}`);
    dot.setAttribute("r", "3");
    return dot;
  });
  return { panel, svg, cross, dots, readout: figure.querySelector(".readout") };
});

function nearest(values, wanted) {
  let low = 0, high = values.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] <= wanted) low = middle; else high = middle;
  }
  return wanted - values[low] <= values[high] - wanted ? low : high;
}

// The last value that was there by then, for a line that holds it until the next.
function index(line, step) {
  const near = nearest(line.x, step);
  return line.held && near > 0 && line.x[near] > step ? near - 1 : near;
}

function text(value) {
  const size = Math.abs(value);
  if (size >= 1e4) return Math.round(value).toLocaleString("en-US");
  if (value !== 0 && size < 1e-3) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function place(panel, line, value) {
  const [left, top, right, bottom] = panel.box;
  const [low, high] = line.share ? [0, 100] : panel.y;
  const log = panel.log && !line.share;
  const scale = log ? Math.log : (v) => v;
  const part = (scale(value) - scale(low)) / (scale(high) - scale(low));
  return bottom - Math.max(Math.min(part, 1), 0) * (bottom - top);
}

function across(panel, step) {
  const [left, , right] = panel.box;
  return left + (step / known.steps) * (right - left);
}

let shown = null;
function show(step) {
  shown = Math.max(0, Math.min(step, known.steps));
  const whole = Math.round(shown);
  const epoch = Math.floor(Math.max(whole - 1, 0) / known.per_epoch) + 1;
  const at = `step ${whole.toLocaleString("en-US")}` + (known.per_epoch ? `, epoch ${epoch}` : "");
  for (const { panel, cross, dots, readout } of charts) {
    cross.setAttribute("x1", across(panel, shown));
    cross.setAttribute("x2", across(panel, shown));
    cross.setAttribute("y1", panel.box[1]);
    cross.setAttribute("y2", panel.box[3]);
    cross.classList.remove("off");
    const said = panel.lines.map((line, n) => {
      const i = index(line, shown);
      dots[n].setAttribute("cx", across(panel, line.held ? shown : line.x[i]));
      dots[n].setAttribute("cy", place(panel, line, line.y[i]));
      dots[n].classList.toggle("off", line.off === true);
      return `${line.name} ${text(line.y[i])}${line.share ? " %" : ""}`;
    });
    const close = (note) => Math.abs(note.x - shown) <= known.steps / 120;
    const notes = panel.notes.filter(close).slice(0, 2).map((note) => note.text);
    readout.textContent = [at, ...said, ...notes].join(" · ");
  }
}

function hide() {
  shown = null;
  for (const { cross, dots, readout } of charts) {
    [cross, ...dots].forEach((each) => each.classList.add("off"));
    readout.textContent = "";
  }
}

for (const { panel, svg } of charts) {
  const seen = (event) => {
    const held = svg.getBoundingClientRect();
    const x = ((event.clientX - held.left) / held.width) * svg.viewBox.baseVal.width;
    const [left, , right] = panel.box;
    show(((x - left) / (right - left)) * known.steps);
  };
  svg.addEventListener("pointermove", seen);
  svg.addEventListener("pointerdown", seen);
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (event.key === "Escape") hide();
    if (by === undefined) return;
    event.preventDefault();
    show((shown ?? 0) + (by * known.steps) / 100);
  });
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    const figure = button.closest("figure");
    const line = figure.querySelector(`g[data-line="${button.dataset.line}"]`);
    line.classList.toggle("off", !on);
    const chart = charts.find((each) => each.panel.key === figure.dataset.key);
    chart.panel.lines[Number(button.dataset.line)].off = !on;
  });
}

for (const button of document.querySelectorAll(".command button")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "selected";
    }
  });
}
