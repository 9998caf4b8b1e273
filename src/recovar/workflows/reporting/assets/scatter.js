"use strict";

(() => {
  const source = document.getElementById("scatter-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const count = data.row.length;
  const unknown = 65535;
  const margin = { left: 70, right: 14, top: 12, bottom: 40 };
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const by = (name) => document.getElementById(name);
  const canvas = by("scatter-canvas");
  const context = canvas.getContext("2d");

  // Columns are whole numbers of steps above a lowest value.
  const columns = data.columns.map((column) => {
    const bytes = Uint8Array.from(atob(column.data), (letter) => letter.charCodeAt(0));
    const levels = new Uint16Array(count);
    for (let i = 0; i < count; i += 1) levels[i] = bytes[2 * i] + 256 * bytes[2 * i + 1];
    const values = new Float64Array(count);
    for (let i = 0; i < count; i += 1) {
      values[i] = levels[i] === unknown ? NaN : column.low + column.step * levels[i];
    }
    return { ...column, levels, values };
  });
  const chosen = new Uint8Array(count);
  const state = { x: 0, y: Math.min(1, columns.length - 1), colour: -1, mode: "pan" };
  let view = null; // [left, right, bottom, top] in values
  let drag = null;
  let outline = []; // of the last choice, in values
  let waiting = false;
  let stale = true; // whether points must be drawn anew
  const layer = document.createElement("canvas");

  const short = (value) => {
    if (Number.isNaN(value)) return "unknown";
    if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
    return String(Number(value.toPrecision(4)));
  };
  const identity = (i) => data.identity.heads[i] + data.identity.names[data.identity.which[i]];

  function fillSelect(select, start, withNone) {
    if (withNone) select.append(new Option("none", -1));
    const groups = new Map();
    columns.forEach((column, place) => {
      if (!groups.has(column.group)) {
        const group = document.createElement("optgroup");
        group.label = column.group;
        groups.set(column.group, group);
        select.append(group);
      }
      groups.get(column.group).append(new Option(column.name, place));
    });
    select.value = String(start);
  }

  // Limits that leave out the rarest values, so that a few far points do not hide the rest.
  function limits(column) {
    if (column.limits) return column.limits;
    const known = column.values.filter((value) => !Number.isNaN(value)).sort();
    const at = (share) => known[Math.round(share * (known.length - 1))];
    const [low, high] = known.length ? [at(0.002), at(0.998)] : [0, 1];
    const room = 0.06 * (high - low) || 0.5;
    column.limits = [low - room, high + room];
    return column.limits;
  }
  function resetView() {
    view = [...limits(columns[state.x]), ...limits(columns[state.y])];
    draw();
  }

  const inner = () => ({
    width: canvas.clientWidth - margin.left - margin.right,
    height: canvas.clientHeight - margin.top - margin.bottom,
  });
  const toX = (value) => margin.left + ((value - view[0]) / (view[1] - view[0])) * inner().width;
  const toY = (value) => margin.top + ((view[3] - value) / (view[3] - view[2])) * inner().height;
  const fromX = (x) => view[0] + ((x - margin.left) / inner().width) * (view[1] - view[0]);
  const fromY = (y) => view[3] - ((y - margin.top) / inner().height) * (view[3] - view[2]);

  function ticks(low, high) {
    const rough = (high - low) / 6;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k += 1) {
      found.push(Number((k * step).toPrecision(10)));
    }
    return found;
  }

  const categoryColour = (level) => `hsl(${(level * 137.508 + 210) % 360} 62% 52%)`;
  // Red, green and blue of a colour as style sheets write it.
  const parsed = new Map();
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  function parse(colour) {
    if (!parsed.has(colour)) {
      probe.fillStyle = colour;
      probe.fillRect(0, 0, 1, 1);
      parsed.set(colour, probe.getImageData(0, 0, 1, 1).data.slice(0, 3));
    }
    return parsed.get(colour);
  }
  function colourScale() {
    const column = columns[state.colour];
    const plain = parse(ink("--s0"));
    if (!column) return () => plain;
    const none = parse(ink("--rule"));
    if (column.category) {
      const named = Array.from({ length: 512 }, (_, level) => parse(categoryColour(level)));
      return (i) => (column.levels[i] === unknown ? none : named[column.levels[i] % 512]);
    }
    const [low, high] = limits(column);
    const ramp = data.colours.map(parse);
    const last = ramp.length - 1;
    return (i) => {
      const share = (column.values[i] - low) / (high - low);
      return Number.isNaN(share) ? none : ramp[Math.round(last * Math.min(1, Math.max(0, share)))];
    };
  }

  function paint() {
    waiting = false;
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    paintAxes(width, height);
    context.save();
    context.beginPath();
    context.rect(margin.left, margin.top, inner().width, inner().height);
    context.clip();
    if (stale) paintPoints(ratio);
    context.drawImage(layer, 0, 0, width, height);
    paintOutline();
    context.restore();
    canvas.dataset.view = JSON.stringify({ view, margin, chosen: chosenCount() });
  }
  function paintAxes(width, height) {
    const bottom = height - margin.bottom;
    context.font = "12px system-ui, sans-serif";
    context.strokeStyle = ink("--rule");
    context.fillStyle = ink("--quiet");
    context.lineWidth = 1;
    context.textAlign = "center";
    for (const tick of ticks(view[0], view[1])) {
      line(toX(tick), margin.top, toX(tick), bottom);
      context.fillText(short(tick), toX(tick), bottom + 16);
    }
    context.textAlign = "right";
    for (const tick of ticks(view[2], view[3])) {
      line(margin.left, toY(tick), width - margin.right, toY(tick));
      context.fillText(short(tick), margin.left - 6, toY(tick) + 4);
    }
    context.textAlign = "center";
    context.fillText(columns[state.x].name, margin.left + inner().width / 2, height - 6);
    context.save();
    context.translate(12, margin.top + inner().height / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(columns[state.y].name, 0, 0);
    context.restore();
  }
  function line(x1, y1, x2, y2) {
    context.beginPath();
    context.moveTo(x1, y1);
    context.lineTo(x2, y2);
    context.stroke();
  }
  // Points are blended one by one into a picture of their own, which is kept while a lasso is drawn.
  function paintPoints(ratio) {
    const { width, height } = canvas;
    const picture = new ImageData(width, height);
    const x = columns[state.x].values;
    const y = columns[state.y].values;
    const colour = colourScale();
    const any = chosenCount() > 0;
    const size = count > 20000 ? 2 : count > 4000 ? 2.6 : 3.6;
    const usual = count > 20000 ? 0.55 : 0.75;
    for (const selected of any ? [0, 1] : [0]) {
      const alpha = selected ? 1 : any ? 0.3 * usual : usual;
      const side = Math.max(1, Math.round((selected ? size + 0.8 : size) * ratio));
      for (let i = 0; i < count; i += 1) {
        if (any && chosen[i] !== selected) continue;
        const left = Math.round(toX(x[i]) * ratio - side / 2);
        const top = Math.round(toY(y[i]) * ratio - side / 2);
        if (!(left >= 0 && top >= 0 && left + side <= width && top + side <= height)) continue;
        blend(picture, left, top, side, colour(i), alpha);
      }
    }
    layer.width = width;
    layer.height = height;
    layer.getContext("2d").putImageData(picture, 0, 0);
    stale = false;
  }
  function blend(picture, left, top, side, [red, green, blue], alpha) {
    const { data: pixels, width } = picture;
    for (let row = top; row < top + side; row += 1) {
      let at = 4 * (row * width + left);
      for (let k = 0; k < side; k += 1, at += 4) {
        const below = (pixels[at + 3] / 255) * (1 - alpha);
        const whole = alpha + below;
        pixels[at] = (red * alpha + pixels[at] * below) / whole;
        pixels[at + 1] = (green * alpha + pixels[at + 1] * below) / whole;
        pixels[at + 2] = (blue * alpha + pixels[at + 2] * below) / whole;
        pixels[at + 3] = 255 * whole;
      }
    }
  }
  function paintOutline() {
    const corners = drag && drag.corners.length ? drag.corners : outline;
    if (corners.length < 2) return;
    context.beginPath();
    corners.forEach(([a, b], place) => {
      if (place) context.lineTo(toX(a), toY(b));
      else context.moveTo(toX(a), toY(b));
    });
    context.closePath();
    context.strokeStyle = ink("--s1");
    context.lineWidth = 1.5;
    context.stroke();
    context.globalAlpha = 0.08;
    context.fillStyle = ink("--s1");
    context.fill();
    context.globalAlpha = 1;
  }
  function draw() {
    stale = true;
    drawOver();
  }
  // Draws the outline anew over points that stay as they are.
  function drawOver() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(paint);
  }

  function drawKey() {
    const key = by("scatter-key");
    key.replaceChildren();
    const column = columns[state.colour];
    if (!column) return;
    if (!column.category) {
      const [low, high] = limits(column);
      const ramp = document.createElement("span");
      ramp.className = "ramp";
      ramp.style.background = `linear-gradient(90deg, ${data.colours.join(",")})`;
      key.append(short(low), ramp, short(high));
      return;
    }
    const counts = new Map();
    for (const level of column.levels) counts.set(level, (counts.get(level) || 0) + 1);
    for (const level of [...counts.keys()].sort((a, b) => a - b)) {
      const button = document.createElement("button");
      const dot = document.createElement("i");
      const known = level !== unknown;
      dot.style.background = known ? categoryColour(level) : ink("--rule");
      button.type = "button";
      button.title = "choose these";
      const name = known ? short(column.low + column.step * level) : "none";
      button.append(dot, `${name} (${counts.get(level).toLocaleString("en")})`);
      button.addEventListener("click", (event) => {
        outline = [];
        choose((i) => column.levels[i] === level, event);
      });
      key.append(button);
    }
  }

  const chosenCount = () => chosen.reduce((sum, one) => sum + one, 0);
  function choose(isInside, event) {
    for (let i = 0; i < count; i += 1) {
      if (event.altKey) chosen[i] = chosen[i] && !isInside(i) ? 1 : 0;
      else if (event.shiftKey) chosen[i] = chosen[i] || isInside(i) ? 1 : 0;
      else chosen[i] = isInside(i) ? 1 : 0;
    }
    tellChoice();
  }
  const rowsOfChosen = () => data.row.filter((_, i) => chosen[i]).sort((a, b) => a - b);
  function tellChoice() {
    const rows = rowsOfChosen();
    by("selection-count").textContent = rows.length.toLocaleString("en");
    by("selection-list").value = rows.join("\n");
    for (const name of ["copy", "save", "clear"]) by(`selection-${name}`).disabled = !rows.length;
    by("selection-command").textContent = `${data.export} -o selected.star --ind selected.txt`;
    by("selection-command").hidden = !rows.length;
    const [x, y] = [columns[state.x], columns[state.y]];
    const fits = outline.length > 2 && x.zdim && x.zdim === y.zdim && x.number !== y.number;
    by("polygon").hidden = !fits;
    if (fits) {
      by("polygon-command").textContent =
        `${data.export} -o selected.star --zdim ${x.zdim} --polygon polygon.txt ` +
        `--axes ${x.number},${y.number}`;
    }
    draw();
  }
  function save(name, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // Even-odd rule in values, so that it does not depend on the size of the screen.
  function isInPolygon(corners, a, b) {
    let inside = false;
    for (let i = 0, j = corners.length - 1; i < corners.length; j = i, i += 1) {
      const [xi, yi] = corners[i];
      const [xj, yj] = corners[j];
      if (yi > b !== yj > b && a < ((xj - xi) * (b - yi)) / (yj - yi) + xi) inside = !inside;
    }
    return inside;
  }

  function placeOf(event) {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop];
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const [x, y] = placeOf(event);
    const start = [fromX(x), fromY(y)];
    canvas.setPointerCapture(event.pointerId);
    drag = { start, pixel: [x, y], from: [...view], corners: state.mode === "lasso" ? [start] : [] };
    hideTip();
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = placeOf(event);
    if (!drag) {
      showNearest(x, y, event);
      return;
    }
    if (state.mode === "pan") {
      const [left, right, low, high] = drag.from;
      const dx = ((x - drag.pixel[0]) / inner().width) * (right - left);
      const dy = ((y - drag.pixel[1]) / inner().height) * (high - low);
      view = [left - dx, right - dx, low + dy, high + dy];
      draw();
      return;
    }
    if (state.mode === "lasso") {
      drag.corners.push([fromX(x), fromY(y)]);
    } else {
      const [a, b] = drag.start;
      drag.corners = [[a, b], [fromX(x), b], [fromX(x), fromY(y)], [a, fromY(y)]];
    }
    drawOver();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const corners = drag.corners;
    drag = null;
    if (corners.length < 3) {
      draw();
      return;
    }
    outline = event.shiftKey || event.altKey ? [] : corners;
    const x = columns[state.x].values;
    const y = columns[state.y].values;
    choose((i) => isInPolygon(corners, x[i], y[i]), event);
  });
  canvas.addEventListener("pointercancel", () => {
    drag = null;
    draw();
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const [x, y] = placeOf(event);
      const factor = Math.exp(Math.min(60, Math.max(-60, event.deltaY)) / 240);
      const [a, b] = [fromX(x), fromY(y)];
      view = [
        a - (a - view[0]) * factor,
        a + (view[1] - a) * factor,
        b - (b - view[2]) * factor,
        b + (view[3] - b) * factor,
      ];
      draw();
    },
    { passive: false },
  );
  canvas.addEventListener("dblclick", resetView);

  function showNearest(x, y, event) {
    const xs = columns[state.x].values;
    const ys = columns[state.y].values;
    let best = -1;
    let least = 81;
    for (let i = 0; i < count; i += 1) {
      const away = (toX(xs[i]) - x) ** 2 + (toY(ys[i]) - y) ** 2;
      if (away < least) {
        least = away;
        best = i;
      }
    }
    if (best < 0) {
      hideTip();
      return;
    }
    const shown = new Set([state.x, state.y, state.colour]);
    columns.forEach((column, place) => {
      if (column.group === "image" || column.category) shown.add(place);
    });
    const lines = [...shown]
      .filter((place) => place >= 0 && columns[place].name !== "row")
      .map((place) => `${columns[place].name}: ${short(columns[place].values[best])}`);
    showTip([identity(best), `row ${data.row[best]}`, ...lines].join("\n"), event.clientX, event.clientY);
  }

  const pairs = [["x", state.x, false], ["y", state.y, false], ["colour", state.colour, true]];
  for (const [name, start, withNone] of pairs) {
    const select = by(`scatter-${name}`);
    fillSelect(select, start, withNone);
    select.addEventListener("change", () => {
      state[name] = Number(select.value);
      if (name === "colour") {
        drawKey();
        draw();
      } else {
        outline = [];
        resetView();
        tellChoice();
      }
    });
  }
  for (const button of document.querySelectorAll("#scatter [data-mode]")) {
    button.addEventListener("click", () => {
      state.mode = button.dataset.mode;
      canvas.classList.toggle("draws", state.mode !== "pan");
      for (const other of document.querySelectorAll("#scatter [data-mode]")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
    });
  }
  by("scatter-reset").addEventListener("click", resetView);
  by("selection-clear").addEventListener("click", () => {
    chosen.fill(0);
    outline = [];
    tellChoice();
  });
  by("selection-save").addEventListener("click", () => {
    save("selected.txt", `${rowsOfChosen().join("\n")}\n`);
  });
  by("polygon-save").addEventListener("click", () => {
    save("polygon.txt", `${outline.map((corner) => corner.join(" ")).join("\n")}\n`);
  });
  by("selection-copy").addEventListener("click", async () => {
    const list = by("selection-list");
    try {
      await navigator.clipboard.writeText(`${list.value}\n`);
    } catch {
      list.select();
      document.execCommand("copy");
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(draw).observe(canvas);
  const category = columns.findIndex((column) => column.category && column.group !== "image");
  if (category >= 0) {
    state.colour = category;
    by("scatter-colour").value = String(category);
  }
  resetView();
  drawKey();
  tellChoice();
})();
