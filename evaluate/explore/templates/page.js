"use strict";
// One picture is shown: that of a recipe, which names codes by the ids that the program keeps them under.
const config = JSON.parse(document.getElementById("config").textContent);
const at = (id) => document.getElementById(id);
const view = crypto.getRandomValues(new Uint32Array(2)).join("-");
const isMap = config.shape.length === 3;
const axes = isMap ? ["channels", "rows", "columns"] : ["channels"];
const extents = Object.fromEntries(axes.map((axis, place) => [axis, config.shape[place]]));

const state = {
  start: config.encodes ? null : config.zero, end: null, mix: 0,
  directions: [], groups: [newGroup()], group: 0,
  steps: [], step: null, // codes of re-encoding; the one that is shown, or null: the recipe's own picture
};
const shelf = []; // {id, name, picture, renew}: renew() sends its file again if the program forgot the code
const latencies = [];
let shown = null; // the last picture as a Blob
let pictureFailed = false; // whether what is told is why a picture did not come

function newGroup() {
  return { scale: 1, channels: null, rows: null, columns: null, largest: null, outside: false };
}

function recipe() {
  const groups = state.groups.filter((group) => group.scale !== 1);
  return { start: state.start, end: state.end, mix: state.mix, directions: state.directions, groups };
}

function shownRecipe() {
  return state.step === null ? recipe() : { start: state.steps[state.step].id };
}

// ---- Questions ----

class Told extends Error {
  constructor(line, status) { super(line); this.status = status; }
}

async function post(path, body, type) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", body, headers: { "Content-Type": type || "application/json" } });
  } catch {
    throw new Told("The program does not answer. Is deepsim explore still running?", 0);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  throw new Told(said && said.error ? said.error : "The program answers " + answer.status + ".", answer.status);
}

// Ask about a recipe; codes that the program has forgotten are sent once more.
async function ask(path, question) {
  const body = JSON.stringify(question);
  try {
    return await post(path, body);
  } catch (error) {
    if (error.status !== 410) throw error;
    for (const entry of shelf) if (entry.renew) await entry.renew();
    return await post(path, body);
  }
}

function tell(error, ofPicture) {
  if (error && error.status === 409) return; // a newer picture is on its way
  pictureFailed = Boolean(error && ofPicture);
  at("message").textContent = error ? error.message || String(error) : "";
  at("message").hidden = !error;
}

async function tried(action) {
  try {
    tell(null);
    await action();
  } catch (error) {
    tell(error);
  }
}

// Runs one question at a time: while it runs, what is asked meanwhile is asked once, as it is by then.
class Latest {
  constructor(action) { this.action = action; this.running = false; this.wanted = false; }
  ask() {
    this.wanted = true;
    if (!this.running) this.run();
  }
  async run() {
    this.running = true;
    while (this.wanted) {
      this.wanted = false;
      try { await this.action(); } catch (error) { tell(error, true); }
    }
    this.running = false;
  }
}

// ---- The picture ----

const picture = new Latest(async () => {
  if (state.start === null) return;
  const begun = performance.now();
  const answer = await ask("/image", { recipe: shownRecipe(), view });
  const blob = await answer.blob();
  const bitmap = await createImageBitmap(blob);
  at("picture").getContext("2d").drawImage(bitmap, 0, 0);
  const took = performance.now() - begun;
  bitmap.close();
  if (shown === null) for (const id of ["save-picture", "save-code", "keep", "reset"]) at(id).disabled = false;
  shown = blob;
  if (pictureFailed) tell(null);
  say(JSON.parse(answer.headers.get("Deepsim-Facts")), took);
});

function say(facts, took) {
  latencies.push(took);
  if (latencies.length > 50) latencies.shift();
  const middle = [...latencies].sort((a, b) => a - b)[Math.floor(latencies.length / 2)];
  document.body.dataset.drawn = Number(document.body.dataset.drawn || 0) + 1;
  document.body.dataset.took = took.toFixed(2);
  at("latency").textContent = took.toFixed(0) + " ms";
  at("latency").title = "from the question to the pixels; the network took " + facts.milliseconds.toFixed(1)
    + " ms, the median of the last " + latencies.length + " is " + middle.toFixed(1) + " ms";
  at("what").textContent = state.step === null ? describe() : "After " + count(state.step + 1, "step") + " of re-encoding";
  at("picture").setAttribute("aria-label", "Generated picture: " + at("what").textContent);
  const words = [];
  if ("rmse" in facts) words.push("RMSE " + facts.rmse.toFixed(1) + " to photograph A");
  if (facts.moved > 0 && state.step === null) words.push("code moved by " + percent(facts.moved));
  at("facts").replaceChildren(...words.map((word) => element("span", {}, word)));
}

function describe() {
  const parts = [state.end && state.mix > 0 ? percent(state.mix) + " from A to B" : nameOf(state.start)];
  const directions = state.directions.filter((direction) => direction.amount !== 0).length;
  const groups = recipe().groups.length;
  if (directions) parts.push(count(directions, "direction"));
  if (groups) parts.push(count(groups, "group") + " scaled");
  return parts.join(", ");
}

const count = (number, word) => number + " " + word + (number === 1 ? "" : "s");
const percent = (share) => (100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0) + " %";

function nameOf(id) {
  if (id === config.zero) return "code of zeros";
  const entry = shelf.find((each) => each.id === id);
  return entry ? entry.name : "code";
}

function later(action, wait) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(action, wait); };
}

const strip = new Latest(async () => {
  if (!state.end || state.start === null) return;
  const answer = await ask("/strip", { recipe: recipe(), view: view + "-strip" });
  const old = at("strip").src;
  at("strip").src = URL.createObjectURL(await answer.blob());
  at("strip").hidden = false;
  if (old) URL.revokeObjectURL(old);
});
const units = new Latest(async () => {
  if (state.start === null) return;
  sizes = await (await ask("/units", { recipe: recipe(), view: view + "-units" })).json();
  drawMaps();
});
// What belongs to the picture but not to each step of a slider is asked when the slider rests.
const rest = later(() => { units.ask(); strip.ask(); }, 250);

function changed() {
  leaveSteps();
  compare(false);
  picture.ask();
  rest();
}

// ---- Codes ----

function put(found, renew) {
  if (!shelf.some((entry) => entry.id === found.id)) {
    shelf.push({ ...found, renew });
    drawShelf();
  }
  return found.id;
}

function use(slot, id) {
  state[slot] = id;
  const entry = shelf.find((each) => each.id === id);
  if (slot === "start") compare(false, entry);
  at(slot + "-picture").src = entry.picture;
  at(slot + "-picture").alt = entry.name;
  at(slot + "-picture").hidden = false;
  at(slot + "-frame").classList.add("full");
  at(slot + "-name").textContent = entry.name;
  at(slot + "-name").title = entry.name;
  at("mix").disabled = !(state.start && state.end);
  for (const button of ["step", "eight-steps", "add-direction"]) if (at(button)) at(button).disabled = state.start === null;
  changed();
}

// Lay photograph A over the picture, or take it away; entry is what A is now, where that changes.
function compare(over, entry) {
  if (entry) {
    at("original").src = entry.picture;
    at("original").alt = "Photograph A: " + entry.name;
    at("compare").disabled = !entry.photograph;
  }
  at("original").hidden = !over;
  at("compare").setAttribute("aria-pressed", String(over));
}

function isFeatures(name) {
  return config.featureSuffixes.some((suffix) => name.toLowerCase().endsWith(suffix));
}

// Send a file; return the ids of its codes: one of a photograph, one for each row of a feature file.
async function send(file) {
  if (file.size > config.mostUpload) throw new Told(file.name + ": too large, expected at most " + (config.mostUpload >> 20) + " MB.", 413);
  const path = (isFeatures(file.name) ? "/features" : "/photographs") + "?name=" + encodeURIComponent(file.name || "pasted");
  const upload = async () => (await post(path, file, "application/octet-stream")).json();
  const found = await upload();
  const codes = found.codes || [found];
  const ids = codes.map((code) => put(code, upload));
  if (found.count > codes.length) tell(new Told(file.name + ": " + found.count.toLocaleString("en") + " codes; the first " + codes.length + " are listed."));
  return ids;
}

const load = (slot, file) => tried(async () => use(slot, (await send(file))[0]));

const sample = (slot, number) => tried(async () => {
  const ask = async () => (await post("/samples", JSON.stringify({ number }))).json();
  use(slot, put(await ask(), ask));
});

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function drawShelf() {
  at("shelf-hint").hidden = shelf.length > 0;
  at("shelf-items").replaceChildren(...shelf.map((entry) => element("div", { class: "item" },
    element("img", { src: entry.picture, alt: "", width: config.side, height: config.side }),
    element("span", { class: "label", title: entry.name }, entry.name),
    element("div", { class: "uses" },
      element("button", { type: "button", "aria-label": "Use " + entry.name + " as A", onclick: () => use("start", entry.id) }, "A"),
      element("button", { type: "button", "aria-label": "Use " + entry.name + " as B", onclick: () => use("end", entry.id) }, "B")))));
  drawDirections();
}

// ---- Directions ----

function drawDirections() {
  at("direction-rows").replaceChildren(...state.directions.map((direction, place) => {
    const value = element("output", {}, amountText(direction.amount));
    const id = "amount-" + place;
    const slide = (event) => {
      direction.amount = Number(event.target.value);
      value.textContent = amountText(direction.amount);
      changed();
    };
    return element("div", { class: "direction" },
      element("div", { class: "ends" }, "from", ends(direction, "start"), "to", ends(direction, "end")),
      element("button", { type: "button", "aria-label": "Remove direction " + (place + 1), onclick: () => removeDirection(place) }, "Remove"),
      element("label", { class: "row amount", for: id }, element("span", {}, "Amount"), value),
      element("input", { class: "amount", type: "range", id, min: -2, max: 2, step: 0.01, value: direction.amount, oninput: slide }));
  }));
}

const amountText = (amount) => (amount < 0 ? "−" : "+") + Math.abs(amount).toFixed(2);

function ends(direction, end) {
  const choices = [[config.zero, "zeros"], ...shelf.map((entry) => [entry.id, entry.name])];
  const select = element("select", { "aria-label": end === "start" ? "from" : "to", onchange: (event) => { direction[end] = event.target.value; changed(); } },
    ...choices.map(([id, name]) => element("option", { value: id }, name)));
  select.value = direction[end];
  return select;
}

function addDirection(start, end, amount) {
  state.directions.push({ start, end, amount });
  drawDirections();
  changed();
}

function removeDirection(place) {
  state.directions.splice(place, 1);
  drawDirections();
  changed();
}

// ---- Units ----

let sizes = null; // mean absolute values of the code's channels, and of its places

function drawGroups() {
  at("groups").replaceChildren(...state.groups.map((group, place) => element("button",
    { type: "button", "aria-pressed": String(place === state.group), onclick: () => { state.group = place; drawGroups(); } },
    groupText(group))));
  const group = state.groups[state.group];
  for (const axis of axes) {
    const [first, last] = group[axis] || [0, extents[axis]];
    at(axis + "-from").value = first;
    at(axis + "-to").value = last - 1;
  }
  at("largest").value = group.largest === null ? "" : group.largest;
  at("outside").checked = group.outside;
  at("scale").value = group.scale;
  at("scale-value").textContent = "× " + group.scale.toFixed(2);
  at("remove-group").disabled = state.groups.length === 1;
  drawMaps();
}

function groupText(group) {
  const range = (axis) => group[axis] && (group[axis][1] - group[axis][0] === 1 ? group[axis][0] : group[axis][0] + "–" + (group[axis][1] - 1));
  const words = [];
  if (group.largest !== null) words.push(group.largest + " largest");
  if (group.channels) words.push((isMap ? "channels " : "units ") + range("channels"));
  if (group.rows) words.push("rows " + range("rows"));
  if (group.columns) words.push("columns " + range("columns"));
  const chosen = words.join(", ") || (isMap ? "whole map" : "all units");
  return (group.outside ? "all but " : "") + chosen + " × " + group.scale.toFixed(2);
}

function editGroup(changes) {
  Object.assign(state.groups[state.group], changes);
  for (const axis of axes) {
    const range = state.groups[state.group][axis];
    if (range && range[0] === 0 && range[1] === extents[axis]) state.groups[state.group][axis] = null;
  }
  drawGroups();
  changed();
}

function typed(axis) {
  const limit = extents[axis] - 1;
  const number = (id, missing) => Math.min(limit, Math.max(0, Math.round(at(id).value === "" ? missing : Number(at(id).value))));
  const first = number(axis + "-from", 0);
  editGroup({ [axis]: [first, Math.max(first, number(axis + "-to", limit)) + 1] });
}

// Draw the code's channels as bars and its places as a grid, and over them the group that is being edited.
function drawMaps() {
  const style = getComputedStyle(document.documentElement);
  const colours = { ink: style.getPropertyValue("--first"), soft: style.getPropertyValue("--other") };
  drawBars(at("channels"), colours);
  if (isMap) drawPlaces(at("places"), colours);
}

function sharp(canvas) {
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * density));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * density));
  return canvas.getContext("2d");
}

function drawBars(canvas, colours) {
  const pen = sharp(canvas), group = state.groups[state.group], all = extents.channels;
  const [first, last] = group.channels || [0, all];
  if (sizes === null) return;
  const most = Math.max(...sizes.channels) || 1;
  for (let x = 0; x < canvas.width; x++) {
    const from = Math.floor(x * all / canvas.width), to = Math.max(from + 1, Math.floor((x + 1) * all / canvas.width));
    const height = Math.max(...sizes.channels.slice(from, to)) / most * (canvas.height - 4);
    const inside = (from >= first && from < last) !== group.outside;
    pen.fillStyle = inside ? colours.ink : colours.soft;
    pen.globalAlpha = inside ? 1 : 0.45;
    pen.fillRect(x, canvas.height - height, 1, height);
  }
}

function drawPlaces(canvas, colours) {
  const pen = sharp(canvas), group = state.groups[state.group];
  if (sizes === null) return;
  const [top, bottom] = group.rows || [0, extents.rows], [left, right] = group.columns || [0, extents.columns];
  const most = Math.max(...sizes.places.flat()) || 1;
  const width = canvas.width / extents.columns, height = canvas.height / extents.rows;
  sizes.places.forEach((line, row) => line.forEach((size, column) => {
    const inside = (row >= top && row < bottom && column >= left && column < right) !== group.outside;
    pen.fillStyle = inside ? colours.ink : colours.soft;
    pen.globalAlpha = (inside ? 0.2 : 0.08) + (inside ? 0.8 : 0.37) * size / most;
    pen.fillRect(column * width + 0.5, row * height + 0.5, width - 1, height - 1);
  }));
}

// Drag over a canvas: chosen(x0, y0, x1, y1) in parts of its width and height, in order.
function draggable(canvas, chosen) {
  let begin = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const part = (value, size) => Math.min(0.999999, Math.max(0, value / size));
    return [part(event.clientX - box.left, box.width), part(event.clientY - box.top, box.height)];
  };
  const move = (event) => {
    if (begin === null) return;
    const now = place(event);
    chosen(Math.min(begin[0], now[0]), Math.min(begin[1], now[1]), Math.max(begin[0], now[0]), Math.max(begin[1], now[1]));
  };
  canvas.addEventListener("pointerdown", (event) => { begin = place(event); canvas.setPointerCapture(event.pointerId); move(event); });
  canvas.addEventListener("pointermove", move);
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { begin = null; });
}

const cut = (from, to, extent) => [Math.floor(from * extent), Math.floor(to * extent) + 1];

// ---- Re-encoding ----

function leaveSteps() {
  state.steps = [];
  state.step = null;
  drawSteps();
}

function drawSteps() {
  if (!at("steps")) return;
  at("steps").replaceChildren(...state.steps.map((step, place) => element("button",
    { type: "button", class: "thumb", "aria-pressed": String(place === state.step), onclick: () => { state.step = place; drawSteps(); picture.ask(); } },
    element("img", { src: step.picture, alt: "", width: config.side, height: config.side }), count(place + 1, "step"))));
}

const reencode = (times) => tried(async () => {
  const before = state.steps;
  for (let time = 0; time < times && state.steps === before; time++) {
    const last = before.length ? { start: before[before.length - 1].id } : recipe();
    const name = "step " + (before.length + 1);
    const found = await (await ask("/reencode", { recipe: last, name })).json();
    if (state.steps !== before) return; // the recipe has changed meanwhile
    before.push(found);
    state.step = before.length - 1;
    drawSteps();
    picture.ask();
  }
});

// ---- Saving ----

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const fileName = () => describe().replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 60) || "picture";
const named = () => (state.step === null ? fileName() : "step-" + (state.step + 1));

// ---- Wiring ----

for (const slot of ["start", "end"]) {
  at(slot + "-file").addEventListener("change", (event) => {
    if (event.target.files.length) load(slot, event.target.files[0]);
    event.target.value = "";
  });
  const frame = at(slot + "-frame");
  frame.addEventListener("dragover", () => frame.classList.add("over"));
  for (const end of ["dragleave", "drop"]) frame.addEventListener(end, () => frame.classList.remove("over"));
}
for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", () => sample(button.dataset.for, Number(button.dataset.sample)));
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault(); // else the browser leaves the page for the file
  const target = event.target.closest ? event.target.closest("[data-slot]") : null;
  if (event.dataTransfer.files.length) load(target ? target.dataset.slot : "start", event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) load("start", event.clipboardData.files[0]);
});
at("mix").addEventListener("input", (event) => {
  state.mix = Number(event.target.value);
  at("mix-value").textContent = percent(state.mix);
  leaveSteps();
  compare(false);
  picture.ask(); // the strip stays as it is
});
at("mix").addEventListener("change", () => units.ask());
at("strip").addEventListener("click", (event) => {
  const frame = Math.floor(event.offsetX / at("strip").clientWidth * config.strip);
  at("mix").value = Math.min(1, Math.max(0, frame / (config.strip - 1)));
  at("mix").dispatchEvent(new Event("input"));
  at("mix").dispatchEvent(new Event("change"));
});
at("add-direction").addEventListener("click", () => addDirection(state.start, state.end || config.zero, 0));
at("direction-file").addEventListener("change", (event) => {
  const file = event.target.files[0];
  if (file) tried(async () => { for (const id of (await send(file)).slice(0, 1)) addDirection(config.zero, id, 0); });
  event.target.value = "";
});
for (const axis of axes) for (const end of ["-from", "-to"]) at(axis + end).addEventListener("change", () => typed(axis));
at("largest").addEventListener("change", (event) => {
  const number = Math.round(Number(event.target.value));
  editGroup({ largest: number >= 1 ? Math.min(number, extents.channels) : null });
});
at("outside").addEventListener("change", (event) => editGroup({ outside: event.target.checked }));
at("scale").addEventListener("input", (event) => editGroup({ scale: Number(event.target.value) }));
at("zero-group").addEventListener("click", () => editGroup({ scale: 0 }));
at("add-group").addEventListener("click", () => {
  if (state.groups.length >= 16) return;
  state.group = state.groups.push(newGroup()) - 1;
  drawGroups();
});
at("remove-group").addEventListener("click", () => {
  state.groups.splice(state.group, 1);
  state.group = Math.max(0, state.group - 1);
  drawGroups();
  changed();
});
draggable(at("channels"), (x0, y0, x1) => editGroup({ channels: cut(x0, x1, extents.channels) }));
if (isMap) draggable(at("places"), (x0, y0, x1, y1) => editGroup({ rows: cut(y0, y1, extents.rows), columns: cut(x0, x1, extents.columns) }));
if (at("step")) at("step").addEventListener("click", () => reencode(1));
if (at("eight-steps")) at("eight-steps").addEventListener("click", () => reencode(8));
if (at("draw")) {
  at("temperature").addEventListener("input", (event) => { at("temperature-value").textContent = Number(event.target.value).toFixed(2); });
  at("draw").addEventListener("click", () => tried(async () => {
    const [seed, number] = ["seed", "number"].map((id) => Math.max(0, Math.round(Number(at(id).value) || 0)));
    const body = JSON.stringify({ seed, number, temperature: Number(at("temperature").value) });
    const draw = async () => (await post("/draw", body)).json();
    use("start", put(await draw(), draw));
    at("number").value = number + 1;
  }));
}
at("keep").addEventListener("click", () => tried(async () => {
  const name = named().replaceAll("-", " ");
  put(await (await ask("/keep", { recipe: shownRecipe(), name: name.slice(0, 60) })).json(), null);
}));
at("reset").addEventListener("click", () => {
  Object.assign(state, { mix: 0, directions: [], groups: [newGroup()], group: 0 });
  at("mix").value = 0;
  at("mix-value").textContent = "0 %";
  drawDirections();
  drawGroups();
  changed();
});
at("compare").addEventListener("click", () => compare(at("original").hidden));
at("save-picture").addEventListener("click", () => save(shown, named() + ".png"));
at("save-code").addEventListener("click", () => tried(async () => save(await (await ask("/code", { recipe: shownRecipe() })).blob(), named() + ".npy")));
window.addEventListener("resize", later(drawMaps, 100));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMaps);

history.replaceState(null, "", "/"); // the token stays out of the address that is shown, copied and kept in the history
drawGroups();
(async () => {
  const offered = document.querySelectorAll("[data-for=start]").length;
  if (offered > 0) await sample("start", 0);
  if (offered > 1) await sample("end", 1);
  if (!config.encodes) {
    at("add-direction").disabled = false;
    changed();
  }
})();
