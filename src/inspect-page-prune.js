// Part 5 of 7: what would go at a limit of size, by the rule of `prune --max-size`
// (cache-prune.ts, 4 and 5): the command has put the results in their order.

import { byId, data, make } from "./cli-page-kit.js";
import { blobs, bytes, goes, number, places, plural, records } from "./inspect-page-graph.js";
import { commandLine, shellWord } from "./inspect-page-parts.js";
import { markTiles } from "./inspect-page-map.js";
import { showRows } from "./inspect-page-list.js";

const allResults = records.flatMap((record) =>
  record.results.map(({ place, chain }) => ({
    record,
    tops: chain ? chain.map((at) => places[at]) : [place],
  })),
);

/**
 * What stays and goes.
 *
 * @param {number} limit Bytes of all blobs together.
 */
export function resultsWithin(limit) {
  const keptBlobs = new Set();
  const keptPlaces = new Set();
  const kept = new Set();
  let size = 0;
  const keep = (result, most) => {
    const missing = new Set();
    const path = [];
    let added = 0;
    for (const top of result.tops) {
      for (let at = top; at && !keptPlaces.has(at); at = places[at.parent]) {
        if (!keptBlobs.has(at.blob) && !missing.has(at.blob)) {
          added += at.blob.size ?? 0;
          missing.add(at.blob);
          if (size + added > most) return;
        }
        path.push(at);
      }
    }
    for (const blob of missing) keptBlobs.add(blob);
    for (const at of path) keptPlaces.add(at);
    size += added;
    kept.add(result);
  };
  const order = data.order.map((at) => allResults[at]);
  for (const result of order) keep(result, limit);
  for (const result of order) if (!kept.has(result)) keep(result, 0);
  // Within the limit already, and nothing is lost: prune changes nothing then.
  if (limit >= data.totalSize && order.every((result) => kept.has(result)))
    return { size: data.totalSize, kept: new Set(allResults), keptBlobs: new Set(blobs) };
  return { size, kept, keptBlobs };
}

/** Steps of the slider. */
const STEPS = 1000;

export function showPrune() {
  if (!data.order || data.totalSize === 0 || blobs.length === 0) return;
  byId("prune").hidden = false;
  const slider = /** @type {HTMLInputElement} */ (byId("limit"));
  slider.max = String(STEPS);
  slider.value = String(STEPS);
  slider.addEventListener("input", () => showLimit(limitOf(Number(slider.value))));
  showLimit(data.totalSize);
}

/** A limit that can be written: three digits of the unit in which the size is told. */
function limitOf(step) {
  if (step >= STEPS) return data.totalSize;
  const exact = (data.totalSize * step) / STEPS;
  const grain = 10 ** Math.max(0, Math.floor(Math.log10(data.totalSize)) - 2);
  return Math.floor(exact / grain) * grain;
}

/** A limit as prune reads it, to the byte. */
function written(limit) {
  for (const [unit, size] of /** @type {const} */ ([
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ]))
    if (limit >= size && (limit * 1000) % size === 0) return `${limit / size}${unit}`;
  return String(limit);
}

/** Shows what would go. */
export function showLimit(limit) {
  const { size, kept, keptBlobs } = resultsWithin(limit);
  const lost = allResults.filter((result) => !kept.has(result));
  // A cache without any result is written by nobody.
  const isKept = lost.length === 0 || kept.size === 0;
  const stays = new Set([...kept].map(({ record }) => record));
  // What the manifest does not list is gone already.
  const gone = blobs.filter((blob) => blob.size !== null && !keptBlobs.has(blob));
  goes.blobs = new Set(isKept ? [] : gone);
  goes.records = new Set(
    isKept ? [] : lost.map(({ record }) => record).filter((record) => !stays.has(record)),
  );
  byId("limit").setAttribute("aria-valuetext", bytes(limit));
  byId("limit-text").textContent = bytes(limit);
  byId("went").replaceChildren(
    ...(isKept
      ? [
          lost.length === 0
            ? "Nothing goes: everything fits."
            : "No result is as small as that: prune would leave the cache as it is.",
        ]
      : [
          make("b", {}, bytes(data.totalSize - size)),
          ` would go: ${plural(gone.length, "layer")} of ${number(blobs.length)}, `,
          `${plural(lost.length, "result")} of ${number(allResults.length)}. `,
          make("b", {}, bytes(size)),
          " would stay. ",
          commandLine(
            `cacheport prune ${shellWord(data.name)} --max-size ${written(limit)} --dry-run`,
          ),
        ]),
  );
  markTiles();
  showRows();
}
