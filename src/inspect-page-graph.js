// The page that `inspect --format html` writes, part 1 of 7: the data as objects,
// values as texts, what is searched for and what is selected.
//
// The parts are modules for the sake of tools; inspect-html.ts joins them to one
// script and puts the data beside it (PageData there). All texts come from outside:
// they become text nodes, never markup.

import { data, make, visible } from "./cli-page-kit.js";

export const mono = (text) => make("span", { class: "mono" }, text);

// --- Values as texts -------------------------------------------------------

export function bytes(size) {
  if (size === null) return "missing";
  if (size < 1000) return `${size} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = size / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

export const number = (value) => value.toLocaleString("en");
export const plural = (count, what) => `${number(count)} ${what}${count === 1 ? "" : "s"}`;
export const time = (moment) =>
  moment === null ? "unknown" : new Date(moment).toISOString().slice(0, 16).replace("T", " ");
export const day = (moment) => time(moment).slice(0, 10);

export const short = (digest) =>
  /^sha\d+:[0-9a-f]+$/.test(digest)
    ? digest.slice(7, 19)
    : visible(digest).slice(0, 24) || "(empty)";

/** SHA-256 of "/": the whole of an input. */
const WHOLE_INPUT = "sha256:8a5edab282632443219e051e4ade2d1d5bbc671c781051bf1437897cbdfea0f1";
export const selectorText = (selector) => (selector === WHOLE_INPUT ? "/" : short(selector));

// --- The graph -------------------------------------------------------------

export const blobs = data.blobs.map(([digest, size, type, diffId, created], index) => ({
  index,
  digest,
  size,
  mediaType: type === null ? null : data.mediaTypes[type],
  diffId,
  created,
  places: [],
  results: 0,
  depth: 0,
}));
export const places = data.places.map(([blob, parent, cache, ...names], index) => ({
  index,
  names: names.map((name) => data.names[name]),
  blob: blobs[blob],
  parent,
  cache,
  children: [],
  /** Records with a result that has this layer on top. */
  records: [],
  depth: 0,
  chainSize: 0,
}));
for (const place of places) {
  place.blob.places.push(place);
  if (place.parent >= 0) places[place.parent].children.push(place);
}
const bases = places.filter((place) => place.parent < 0);
/** All places, each one before those that stand on it; siblings by size. */
export const inChains = [];
{
  const bySize = (a, b) => (a.blob.size ?? 0) - (b.blob.size ?? 0);
  const open = [...bases].sort(bySize);
  while (open.length > 0) {
    const place = open.pop();
    const below = places[place.parent];
    place.depth = below ? below.depth + 1 : 0;
    place.chainSize = (below?.chainSize ?? 0) + (place.blob.size ?? 0);
    inChains.push(place);
    for (const child of [...place.children].sort(bySize)) open.push(child);
  }
}
for (const blob of blobs)
  blob.depth = blob.places.reduce((least, { depth }) => Math.min(least, depth), Infinity);

export const records = data.records.map(([digest, cache, results, name], index) => ({
  index,
  digest,
  cache,
  /** What the record is, where a build or the record itself tells; undefined elsewhere. */
  name,
  results: results.map(([layer, moment, chain]) => ({
    place: places[layer],
    moment,
    chain,
  })),
  newest: null,
  inputs: [],
  users: [],
}));
for (const record of records) {
  for (const { place, moment } of record.results) {
    place.records.push(record);
    place.blob.results++;
    if (moment !== null && (record.newest ?? -Infinity) < moment) record.newest = moment;
  }
}
for (let at = 0; at < data.links.length; at += 4) {
  const [from, to, input, selector] = data.links.slice(at, at + 4);
  const link = {
    from: records[from],
    to: records[to],
    input,
    selector: data.selectors[selector],
  };
  link.to.inputs.push(link);
  link.from.users.push(link);
}
export const topSize = (record) => record.results[0]?.place.blob.size ?? null;

// --- Ages ------------------------------------------------------------------

const moments = [...blobs.map((blob) => blob.created), data.oldest, data.newest].filter(
  (moment) => moment !== null,
);
export const [oldest, newest] = moments.reduce(
  ([low, high], moment) => [Math.min(low, moment), Math.max(high, moment)],
  [Infinity, -Infinity],
);
/** From 0 for the oldest to 1 for the newest; what has no age counts as new. */
export const freshness = (moment) =>
  moment === null || newest - oldest < 1000 ? 1 : (moment - oldest) / (newest - oldest);
export const ageColor = (moment) =>
  `color-mix(in oklab, var(--new) ${(freshness(moment) * 100).toFixed(1)}%, var(--old))`;

/** A record as people know it: its name, else the start of its digest. */
export const called = (record) =>
  record.name === undefined ? short(record.digest) : visible(record.name);

/** What made a layer, where it is known: steps, or a base image. */
export const namesOn = (blob) => [...new Set(blob.places.flatMap(({ names }) => names))];

/** A layer as people know it: its step, else the start of its digest. */
export function calledLayer(blob) {
  const names = namesOn(blob);
  return names.length === 0 ? mono(short(blob.digest)) : visible(names.join("; "));
}

/** The files of a layer by their position; undefined where they were not read. */
export function filesOf(blob) {
  const found = data.files[blob.index];
  if (!found) return undefined;
  const [count, place, bytes, isWhole, largest] = found;
  return { count, place, bytes, isWhole, largest };
}

/** What would go at the limit that is set; see inspect-page-prune.js. */
export const goes = { blobs: new Set(), records: new Set() };

// --- The search ------------------------------------------------------------

let query = "";
let matchingBlobs = new Set();

export const has = (text) => text !== null && text.toLowerCase().includes(query);

export const isSearching = () => query !== "";
export const matchesRecord = (record) =>
  query === "" ||
  has(record.digest) ||
  has(record.name ?? null) ||
  record.inputs.some(({ selector }) => has(selector));
export const matchesBlob = (blob) => query === "" || matchingBlobs.has(blob);

/** Sets what is searched for. A layer is found by the records on it as well. */
export function search(text) {
  query = text.trim().toLowerCase();
  const found = blobs.filter(
    (blob) =>
      [blob.digest, blob.diffId, blob.mediaType, ...namesOn(blob)].some(has) ||
      filesOf(blob)?.largest.some(([path]) => has(path)),
  );
  const below = records
    .filter(matchesRecord)
    .flatMap((record) => record.results.map(({ place }) => place.blob));
  matchingBlobs = new Set([...found, ...below]);
}

// --- The selection ---------------------------------------------------------

/** A layer, or a record, or neither. */
export const selection = { layer: undefined, record: undefined };

/**
 * The selection is kept in the address, so that it can be linked to and gone back from.
 *
 * @param {{ layer?: any, record?: any }} chosen
 */
export function select({ layer, record }) {
  location.hash = layer ? `layer=${layer.digest}` : `record=${record.index}`;
}

export const isSelected = ({ layer, record }) =>
  layer === selection.layer && record === selection.record;

/** Takes the selection from the address. */
export function readSelection() {
  const [, kind, text = ""] = /^#(layer|record)=(.+)$/.exec(location.hash) ?? [];
  const isNamed = ({ digest }) => digest.startsWith(text) || digest.slice(7).startsWith(text);
  selection.layer = kind === "layer" ? blobs.find(isNamed) : undefined;
  selection.record = kind === "record" ? records[Number(text)] : undefined;
}
