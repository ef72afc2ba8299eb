// The page that `explain --format html` writes: stages side by side, their steps from the
// top down, and what takes what. explain-html.ts gives the data (PageData there).

import { byId, data, make, visible } from "./cli-page-kit.js";

const WIDTH = 236;
const HEIGHT = 76;
const GAP = { x: 44, y: 22 };
const HEAD = 44;
const SVG = "http://www.w3.org/2000/svg";

const keyOf = ({ platform, id }) => `${platform} ${id}`;
const byKey = new Map(data.steps.map((step) => [keyOf(step), step]));
const elements = new Map();
let chosen;

// --- The head --------------------------------------------------------------

byId("name").textContent = visible(data.title);
byId("identity").textContent = visible(data.identity);
byId("score").textContent = data.sentence;
byId("footer").textContent = data.made;
document.title = `${data.hit} of ${data.count} steps cached`;
for (const [kind, count, text] of [
  ["hit", data.hit, "cached"],
  ["miss", data.miss, "run again"],
  ["maybe", data.maybe, "not certain"],
]) {
  if (count === 0) continue;
  byId("bar").append(make("i", { class: `bg-${kind}`, style: { flex: `${count} 0 0` } }));
  byId("legend").append(
    make("li", {}, make("i", { class: `bg-${kind}`, "aria-hidden": "true" }), `${count} ${text}`),
  );
}

// --- The graph -------------------------------------------------------------

for (const platform of new Set(data.steps.map((step) => step.platform))) {
  const steps = data.steps.filter((step) => step.platform === platform);
  if (data.platforms > 1) byId("graph").append(make("p", { class: "platform" }, platform));
  byId("graph").append(drawBoard(steps));
}

/** Gives each step a column for its stage, and a row below all that it takes. */
function place(steps) {
  const stages = [...new Set(steps.map(({ stage }) => stage))];
  const bottoms = new Map(stages.map((stage) => [stage, 0]));
  const places = new Map();
  for (const step of steps) {
    const above = step.inputs.map((id) => places.get(`${step.platform} ${id}`)?.row ?? -1);
    const row = Math.max(bottoms.get(step.stage), ...above.map((taken) => taken + 1), 0);
    bottoms.set(step.stage, row + 1);
    places.set(keyOf(step), { column: stages.indexOf(step.stage), row });
  }
  return { stages, bottoms, places };
}

function drawBoard(steps) {
  const { stages, bottoms, places } = place(steps);
  const left = (column) => column * (WIDTH + GAP.x) + 12;
  const top = (row) => HEAD + row * (HEIGHT + GAP.y);
  const rows = Math.max(...bottoms.values());
  const width = left(stages.length) - GAP.x + 12;
  const height = top(rows) + 4;
  const board = make("div", {
    class: "board",
    style: { width: `${width}px`, height: `${height}px` },
  });
  stages.forEach((stage, column) => {
    board.append(
      make(
        "div",
        {
          class: "lane",
          style: {
            left: `${left(column) - 12}px`,
            width: `${WIDTH + 24}px`,
            height: `${height}px`,
          },
        },
        make("h2", {}, stage === "" ? "steps" : visible(stage)),
      ),
    );
  });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("width", `${width}`);
  svg.setAttribute("height", `${height}`);
  board.append(svg);
  for (const step of steps) {
    const to = places.get(keyOf(step));
    for (const id of step.inputs) {
      const from = places.get(`${step.platform} ${id}`);
      if (from)
        svg.append(drawLink(from, to, byKey.get(`${step.platform} ${id}`), step, left, top));
    }
  }
  for (const step of steps) {
    const { column, row } = places.get(keyOf(step));
    const element = drawStep(step, left(column), top(row));
    elements.set(keyOf(step), element);
    board.append(element);
  }
  return board;
}

function drawLink(from, to, source, step, left, top) {
  const path = document.createElementNS(SVG, "path");
  const isStraight = from.column === to.column;
  const [y1, y2] = [top(from.row) + HEIGHT, top(to.row)];
  if (isStraight) {
    const x = left(from.column) + WIDTH / 2;
    path.setAttribute("d", `M${x} ${y1}V${y2}`);
  } else {
    const isRight = to.column > from.column;
    const x1 = left(from.column) + (isRight ? WIDTH : 0);
    const x2 = left(to.column) + (isRight ? 0 : WIDTH);
    const [start, end] = [y1 - HEIGHT / 2, y2 + HEIGHT / 2];
    const bend = (isRight ? 1 : -1) * Math.max(36, Math.abs(x2 - x1) / 2);
    path.setAttribute(
      "d",
      `M${x1} ${start}C${x1 + bend} ${start} ${x2 - bend} ${end} ${x2} ${end}`,
    );
  }
  // What is itself served from the cache makes nothing run again.
  path.setAttribute("class", source.status === "hit" || step.status === "hit" ? "" : step.status);
  return path;
}

function drawStep(step, x, y) {
  return make(
    "button",
    {
      type: "button",
      class: `step ${step.status}${step.isRoot ? " root" : ""}`,
      title: visible(step.name),
      "aria-pressed": "false",
      style: { left: `${x}px`, top: `${y}px`, width: `${WIDTH}px`, height: `${HEIGHT}px` },
      onclick: () => choose(step),
    },
    make("span", { class: "line" }, step.line === null ? "" : `line ${step.line}`),
    make("span", { class: "time" }, step.time ?? ""),
    make("span", { class: "status" }, step.word),
    make("code", {}, visible(step.name)),
  );
}

// --- The chosen step -------------------------------------------------------

function choose(step) {
  if (chosen) elements.get(keyOf(chosen))?.setAttribute("aria-pressed", "false");
  chosen = step;
  elements.get(keyOf(step))?.setAttribute("aria-pressed", "true");
  const fields = [
    ["Stage", step.stage],
    ["Place", step.place],
    ["Platform", data.platforms > 1 ? step.platform : ""],
    ["Takes", step.time ?? ""],
    ["In the build", step.was ?? ""],
    ["Layer", step.layer ?? ""],
    ["Record", step.record ?? ""],
  ];
  const roots = step.roots.map((id) => byKey.get(`${step.platform} ${id}`)).filter(Boolean);
  byId("detail").replaceChildren(
    make("h2", { class: `status ${step.status}` }, step.word),
    make("pre", {}, visible(step.name)),
    make("p", { class: `reason ${step.status}` }, visible(step.note || step.sentence)),
    make("ul", { class: "lines" }, ...step.details.map((line) => make("li", {}, visible(line)))),
    ...(roots.length === 0
      ? []
      : [make("p", {}, "It all began with ", ...roots.flatMap(linkTo), ".")]),
    make(
      "dl",
      {},
      ...fields
        .filter(([, value]) => value)
        .flatMap(([name, value]) => [
          make("dt", {}, name),
          make("dd", /^sha\d+:/.test(value) ? { class: "mono" } : {}, visible(value)),
        ]),
    ),
  );
}

function linkTo(step, at) {
  const link = make(
    "button",
    { type: "button", class: "link", onclick: () => choose(step) },
    step.line === null ? visible(step.name) : `line ${step.line}`,
  );
  return at === 0 ? [link] : [", ", link];
}

const first =
  data.steps.find((step) => step.isRoot) ??
  data.steps.find(({ status }) => status !== "hit") ??
  data.steps[0];
if (first) choose(first);

// --- Costs and hints -------------------------------------------------------

const most = Math.max(0, ...data.costs.map(([, seconds]) => seconds));
for (const [text, seconds, key] of data.costs) {
  byId("costs").hidden = false;
  const step = byKey.get(key);
  byId("costs")
    .querySelector("ol")
    .append(
      make(
        "li",
        {},
        make(
          "button",
          { type: "button", class: "link", onclick: () => step && choose(step) },
          text,
        ),
        make("i", { class: "track", style: { width: `${Math.max(1, (100 * seconds) / most)}%` } }),
      ),
    );
}
for (const text of data.hints) {
  byId("hints").hidden = false;
  byId("hints")
    .querySelector("ul")
    .append(make("li", {}, visible(text)));
}
