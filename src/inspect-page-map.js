// Part 3 of 7: the head of the page and the map of the layers.

import { byId, data, make, visible } from "./cli-page-kit.js";
import {
  ageColor,
  blobs,
  bytes,
  day,
  goes,
  matchesBlob,
  namesOn,
  newest,
  number,
  oldest,
  plural,
  records,
  select,
  selection,
  short,
  time,
} from "./inspect-page-graph.js";
import { copyButton, term } from "./inspect-page-parts.js";

// --- The head of the page --------------------------------------------------

export function showHead() {
  const name = visible(data.name);
  const isImage = data.kind === "image";
  document.title = `${name} - ${isImage ? "image" : "build cache"}`;
  byId("kind").textContent = isImage ? "Image" : "Build cache";
  byId("name").textContent = name;
  byId("identity").append(
    `${visible(data.shape)} `,
    make("span", { class: "mono" }, data.digest),
    " ",
    copyButton(data.digest, "digest of the manifest"),
  );
  const facts = [
    ["Size", bytes(data.totalSize)],
    ["Layers", number(blobs.length)],
    ...(isImage
      ? []
      : [
          ["Records", number(records.length)],
          ["Results", number(data.results)],
        ]),
  ];
  if (data.image?.created) facts.push(["Created", visible(data.image.created).slice(0, 10)]);
  if (data.caches.length > 1) facts.unshift(["Caches", `${data.caches.length}`]);
  byId("facts").append(
    ...facts.map(([label, value]) =>
      make("div", {}, make("dt", {}, term(label)), make("dd", {}, value)),
    ),
  );
  byId("footer").textContent = `All times are UTC. ${data.made}`;
  showAges();
  showProblems();
}

function showAges() {
  if (newest - oldest >= 1000) {
    const [from, , to] = byId("legend").children;
    from.textContent = `older, ${day(oldest)}`;
    to.textContent = `${day(newest)}, newer`;
    byId("legend").hidden = false;
  }
  if (data.ages.length === 0) return;
  const figure = byId("ages");
  const most = Math.max(...data.ages.map(([, , count]) => count));
  figure.querySelector(".bars").append(
    ...data.ages.map(([from, length, count]) =>
      make("i", {
        title: `${time(from)}: ${plural(count, "result")}`,
        style: {
          height: count === 0 ? "0" : `${Math.max(4, (100 * count) / most)}%`,
          "--age": ageColor(Math.min(newest, Math.max(oldest, from + length / 2))),
        },
      }),
    ),
  );
  const isShort = day(data.oldest) === day(data.newest);
  const [from, to] = figure.querySelector(".axis").children;
  from.textContent = isShort ? time(data.oldest) : day(data.oldest);
  to.textContent = isShort ? time(data.newest).slice(11) : day(data.newest);
  figure.hidden = false;
}

function showProblems() {
  if (data.problemCount === 0) return;
  const section = byId("problems");
  section.querySelector("h2").textContent = plural(data.problemCount, "problem");
  const rest = data.problemCount - data.problems.length;
  section
    .querySelector("ul")
    .append(
      ...data.problems.map((message) => make("li", {}, visible(message))),
      ...(rest > 0 ? [make("li", {}, `and ${number(rest)} more`)] : []),
    );
  section.hidden = false;
}

// --- The map ---------------------------------------------------------------

/** Tiles of the map, at most. */
const MAP_TILES = 4000;
/** Pixels between tiles. */
const TILE_GAP = 2;

/**
 * Squarified treemap (Bruls, Huizing, van Wijk 2000): rows along the shorter side,
 * each filled for as long as its worst aspect ratio gets better.
 */
function squarify(sizes, width, height) {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const scale = (width * height) / total;
  const boxes = [];
  let [x, y, w, h] = [0, 0, width, height];
  const worst = (least, most, sum, side) =>
    Math.max((side * side * most) / (sum * sum), (sum * sum) / (side * side * least));
  for (let start = 0; start < sizes.length;) {
    const side = Math.min(w, h);
    const most = sizes[start] * scale;
    let [sum, end, ratio] = [most, start + 1, worst(most, most, most, side)];
    while (end < sizes.length) {
      const area = sizes[end] * scale;
      const next = worst(area, most, sum + area, side);
      if (next > ratio) break;
      [sum, ratio] = [sum + area, next];
      end++;
    }
    const depth = sum / side;
    let offset = 0;
    for (const size of sizes.slice(start, end)) {
      const length = (size * scale) / depth;
      boxes.push(
        w >= h
          ? { x, y: y + offset, w: depth, h: length }
          : { x: x + offset, y, w: length, h: depth },
      );
      offset += length;
    }
    if (w >= h) [x, w] = [x + depth, w - depth];
    else [y, h] = [y + depth, h - depth];
    start = end;
  }
  return boxes;
}

export const bySize = blobs.filter((blob) => blob.size > 0).sort((a, b) => b.size - a.size);
let tiles = [];
let mapSize = { width: 0, height: 0 };

/** Draws the map, unless it has its size already. */
export function showMap() {
  const map = byId("map");
  const { width, height } = map.getBoundingClientRect();
  if (width === 0 || (mapSize.width === width && mapSize.height === height)) return;
  mapSize = { width, height };
  const total = bySize.reduce((sum, blob) => sum + blob.size, 0);
  // What would be smaller than some pixels is told in one tile.
  const least = (total * 24) / (width * height);
  let count = bySize.findIndex((blob) => blob.size < least);
  if (count < 0) count = bySize.length;
  count = Math.min(MAP_TILES, count);
  if (bySize.length - count === 1) count++;
  const shown = bySize.slice(0, count);
  const rest = bySize.slice(count).reduce((sum, blob) => sum + blob.size, 0);
  const sizes = shown.map((blob) => blob.size);
  if (rest > 0) sizes.push(Math.max(rest, least * 12));
  const boxes = squarify(sizes, width + TILE_GAP, height + TILE_GAP);
  tiles = shown.map((blob, index) => makeTile(blob, boxes[index], index === 0));
  const others = rest > 0 ? [makeRest(blobs.length - count, rest, boxes[boxes.length - 1])] : [];
  map.replaceChildren(...tiles.map(({ element }) => element), ...others);
  if (bySize.length === 0) map.replaceChildren(make("p", { class: "empty" }, "No layers"));
  markTiles();
}

/** In parts of the map, which is narrower on paper. */
function boxStyle({ x, y, w, h }) {
  const part = (value, whole) => `${((100 * value) / whole).toFixed(3)}%`;
  const { width, height } = mapSize;
  return {
    left: part(x, width),
    top: part(y, height),
    width: part(Math.max(1, w - TILE_GAP), width),
    height: part(Math.max(1, h - TILE_GAP), height),
  };
}

function tileClass({ w, h }) {
  if (w > 104 && h > 46) return "";
  return w > 58 && h > 20 ? " small" : " bare";
}

/** The step that made a layer, else the start of its digest. */
function tileName(blob) {
  const [name] = namesOn(blob);
  return name === undefined
    ? make("span", { class: "mono" }, short(blob.digest))
    : make("span", {}, visible(name).slice(0, 120));
}

function makeTile(blob, box, isFirst) {
  const kind = tileClass(box);
  const [name] = namesOn(blob);
  const title = name === undefined ? short(blob.digest) : visible(name);
  const label = [
    ...(name === undefined ? [] : namesOn(blob).map(visible)),
    bytes(blob.size),
    short(blob.digest),
    time(blob.created),
  ];
  const element = make(
    "button",
    {
      class: `tile${kind}`,
      type: "button",
      title: label.join("\n"),
      "aria-label": `${bytes(blob.size)} ${title}`,
      tabindex: isFirst ? "0" : "-1",
      style: {
        ...boxStyle(box),
        "--age": ageColor(blob.created),
        // Lines of the name that have room below the size.
        "--lines": String(Math.max(1, Math.min(4, Math.floor((box.h - 36) / 18)))),
      },
      onclick: () => select({ layer: blob }),
      onkeydown: moveInMap,
    },
    ...(kind === " bare"
      ? []
      : [make("b", {}, bytes(blob.size)), ...(kind === "" ? [" ", tileName(blob)] : [])]),
  );
  return { blob, element };
}

function makeRest(count, size, box) {
  const text = `${number(count)} smaller`;
  return make(
    "div",
    {
      class: `tile rest${tileClass(box)}`,
      title: `${text} layers, ${bytes(size)}`,
      style: boxStyle(box),
    },
    ...(tileClass(box) === " bare" ? [] : [make("b", {}, text)]),
    ...(tileClass(box) === "" ? [make("span", {}, bytes(size))] : []),
  );
}

function moveInMap(event) {
  const at = tiles.findIndex(({ element }) => element === event.currentTarget);
  const target = {
    ArrowRight: at + 1,
    ArrowDown: at + 1,
    ArrowLeft: at - 1,
    ArrowUp: at - 1,
    Home: 0,
    End: tiles.length - 1,
  }[event.key];
  const tile = tiles[target];
  if (!tile) return;
  event.preventDefault();
  for (const { element } of tiles) element.tabIndex = -1;
  tile.element.tabIndex = 0;
  tile.element.focus();
}

/** Shows in the map what is selected and what the search leaves. */
export function markTiles() {
  for (const { blob, element } of tiles) {
    element.setAttribute("aria-pressed", String(blob === selection.layer));
    element.classList.toggle("faded", !matchesBlob(blob));
    element.classList.toggle("goes", goes.blobs.has(blob));
  }
}
