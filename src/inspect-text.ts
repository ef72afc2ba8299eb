/** What `inspect` finds, as text for a terminal. */
import type { AgeSpan } from "./cache-ages.ts";
import { isKnownTime, parseCacheTime } from "./cache-time.ts";
import { shortDigest } from "./digest.ts";
import type {
  Inspected,
  InspectedCache,
  InspectedImage,
  InspectedLayer,
  InspectedOther,
  InspectedProblem,
} from "./inspect.ts";
import { formatPlatform } from "./platform.ts";
import { formatFields, formatTable } from "./cli-table.ts";
import type { Column } from "./cli-table.ts";
import { bold, colored, printable, truncate } from "./cli-text.ts";
import { contentsText } from "./inspect-contents.ts";
import { cutName } from "./inspect-labels.ts";
import { DAY, formatBytes, formatDuration } from "./units.ts";

/** How the text is to look. */
export interface InspectStyle {
  colors: boolean;
  /** Columns of the terminal, 0 when there is none. */
  columns: number;
  /** Show every row. */
  all: boolean;
  /** Milliseconds since 1970, for ages. */
  now: number;
}

/** Rows of a table that are shown unless all are asked for. */
const SHOWN_ROWS = 40;
/** Columns of the longest bar. */
const BAR_WIDTH = 20;
/** Writes what an inspection found, each line ending in a line feed. */
export function inspectText(found: Inspected, style: InspectStyle): string {
  switch (found.kind) {
    case "cache":
      return `${cacheText(found, style)}${problemText(found.problems, style)}`;
    case "image":
      return imageText(found, style);
    default:
      return otherText(found, style);
  }
}

function cacheText(cache: InspectedCache, style: InspectStyle): string {
  const { layers, ages, results } = cache;
  const blobs = groupBlobs(layers);
  const head = formatFields(
    [
      ["cache", cache.shape],
      ["digest", cache.manifest.digest],
      ["config", cache.config?.digest],
      ["platform", cache.platform ? formatPlatform(cache.platform) : undefined],
      ["layers", `${blobs.length} (${formatBytes(cache.totalSize)})`],
      ["records", `${cache.records}`],
      ["joined leaves", cache.joinedLeaves === undefined ? undefined : `${cache.joinedLeaves}`],
      ["results", [`${results}`, timeRange(ages)].filter(Boolean).join(", ")],
    ],
    style,
  );
  const parts = cache.caches
    ? cache.caches.map((part) => cacheText(part, style))
    : [layerTable(blobs, style), ageTable(ages.spans, results, style)];
  return [head, ...parts].filter((part) => part !== "").join("\n");
}

function timeRange({ oldest, newest }: InspectedCache["ages"]): string {
  const [first, last] = [shortTime(oldest), shortTime(newest)];
  return oldest === null ? "" : first === last ? first : `${first} to ${last}`;
}

/** A blob in all its places. */
interface PlacedBlob extends InspectedLayer {
  places: number;
  highest: number;
}

/** The distinct blobs of layers, the largest first. */
function groupBlobs(layers: readonly InspectedLayer[]): PlacedBlob[] {
  const blobs = new Map<string, PlacedBlob>();
  for (const layer of layers) {
    const known = blobs.get(layer.digest);
    if (!known) {
      blobs.set(layer.digest, { ...layer, places: 1, highest: layer.depth });
      continue;
    }
    known.places += 1;
    known.depth = Math.min(known.depth, layer.depth);
    known.highest = Math.max(known.highest, layer.depth);
    known.records += layer.records;
    if (layer.names) known.names = [...new Set([...(known.names ?? []), ...layer.names])];
  }
  return [...blobs.values()].sort((a, b) => (b.size ?? -1) - (a.size ?? -1));
}

function layerTable(blobs: readonly PlacedBlob[], style: InspectStyle): string {
  if (blobs.length === 0) return "";
  const largest = blobs[0]?.size || 1;
  const isRead = blobs.some(({ contents }) => contents !== undefined);
  const isNamed = blobs.some(({ names }) => names !== undefined);
  const isRepeated = blobs.some(({ places }) => places > 1);
  return barTable(
    [
      { title: "LAYER" },
      { title: "SIZE", align: "right" },
      BAR_COLUMN,
      { title: "DEPTH", align: "right" },
      ...(isRepeated ? [{ title: "PLACES", align: "right" } as const] : []),
      { title: "RECORDS", align: "right" },
      { title: "CREATED" },
      ...(isNamed ? [{ title: "STEP" } as const] : []),
      ...(isRead ? [{ title: "HOLDS" } as const] : []),
    ],
    blobs.map((blob) => [
      shortDigest(blob.digest),
      blob.size === null ? "missing" : formatBytes(blob.size),
      bar((blob.size ?? 0) / largest),
      blob.depth === blob.highest ? `${blob.depth}` : `${blob.depth}-${blob.highest}`,
      ...(isRepeated ? [`${blob.places}`] : []),
      `${blob.records}`,
      shortTime(blob.createdAt),
      ...(isNamed ? [nameCell(blob.names ?? [], nameWidth(style))] : []),
      ...(isRead ? [blob.contents ? truncate(contentsText(blob.contents), 48) : ""] : []),
    ]),
    style,
  );
}

/** The names of the records on a layer: as many as there is room for. */
function nameCell(names: readonly string[], width: number): string {
  const [first = "", ...others] = names;
  const rest = others.length === 0 ? "" : ` and ${others.length} more`;
  return cutName(first, width - rest.length) + rest;
}

/** Columns that the names of steps may take beside the rest of the table. */
function nameWidth({ columns }: InspectStyle): number {
  return columns === 0 ? 100 : Math.max(24, columns - 60);
}

/** The histogram of results; nothing when all were made at about the same time. */
function ageTable(spans: readonly AgeSpan[], results: number, style: InspectStyle): string {
  if (spans.length === 0) return "";
  const most = Math.max(...spans.map((span) => span.results));
  const unknown = spans.reduce((rest, span) => rest - span.results, results);
  const rows = spans.map(({ from, length, results: count }) => {
    const age = style.now - Date.parse(from);
    return [
      shortTime(from).slice(0, length < DAY ? 16 : 10),
      age > 0 ? formatDuration(age) : "-",
      `${count}`,
      bar(count / most),
    ];
  });
  if (unknown > 0) rows.push(["unknown", "-", `${unknown}`, ""]);
  return barTable(
    [
      { title: "RESULTS FROM" },
      { title: "AGE", align: "right" },
      { title: "COUNT", align: "right" },
      BAR_COLUMN,
    ],
    rows,
    { ...style, all: true },
  );
}

const BAR_COLUMN: Column = {
  title: "",
  paint: (cell) => (cell === "" ? cell : colored(cell, "cyan", true)),
};

/** A table whose bars are left out where the terminal is too narrow for them. */
function barTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  style: InspectStyle,
): string {
  const shown = style.all ? rows : rows.slice(0, SHOWN_ROWS);
  const wide = formatTable(columns, shown, style);
  const width = wide.split("\n").reduce((most, line) => Math.max(most, Bun.stringWidth(line)), 0);
  const at = columns.indexOf(BAR_COLUMN);
  const table =
    style.columns === 0 || width <= style.columns || at < 0
      ? wide
      : formatTable(
          columns.toSpliced(at, 1),
          shown.map((row) => row.toSpliced(at, 1)),
          style,
        );
  return table + moreRows(rows.length - shown.length);
}

function moreRows(hidden: number): string {
  return hidden > 0 ? `... and ${hidden} more; --all shows them\n` : "";
}

/** A bar in eighths of a column. What is there at all is not invisible. */
function bar(share: number): string {
  const eighths = Math.max(share > 0 ? 1 : 0, Math.round(share * BAR_WIDTH * 8));
  const rest = "▏▎▍▌▋▊▉"[(eighths % 8) - 1] ?? "";
  return "█".repeat(Math.floor(eighths / 8)) + rest;
}

/** A time in UTC to the second. */
function shortTime(text: string | null): string {
  const time = parseCacheTime(text ?? "");
  if (!isKnownTime(time)) return "-";
  const iso = new Date(time.milliseconds).toISOString();
  return iso.slice(0, 19).replace("T", " ");
}

function problemText(problems: readonly InspectedProblem[], { all, colors }: InspectStyle): string {
  if (problems.length === 0) return "";
  const shown = all ? problems : problems.slice(0, SHOWN_ROWS);
  const label = colored("problem:", "red", colors);
  const lines = shown.map(({ code, message }) => `${label} ${printable(message)} [${code}]\n`);
  const title = `${problems.length} problem${problems.length === 1 ? "" : "s"}`;
  const more = moreRows(problems.length - shown.length);
  return `\n${bold(title, colors)}\n${lines.join("")}${more}`;
}

function imageText(image: InspectedImage, style: InspectStyle): string {
  const head = formatFields(
    [
      ["image", formatPlatform(image.platform)],
      ["digest", image.manifest.digest],
      ["config", image.config.digest],
      ["created", image.created === null ? undefined : shortTime(image.created)],
      ["layers", `${image.layers.length} (${formatBytes(image.totalSize)})`],
      ["inline cache", image.inlineCache ? "yes" : undefined],
    ],
    style,
  );
  const largest = image.layers.reduce((most, { size }) => Math.max(most, size), 1);
  const table = barTable(
    [{ title: "LAYER" }, { title: "SIZE", align: "right" }, BAR_COLUMN, { title: "CREATED BY" }],
    image.layers.map((layer) => [
      shortDigest(layer.digest),
      formatBytes(layer.size),
      bar(layer.size / largest),
      fitCommand(layer.createdBy ?? "-", style),
    ]),
    style,
  );
  return `${head}\n${table}`;
}

/** Commands can be scripts of any length; on a terminal they keep to their line. */
function fitCommand(command: string, { columns }: InspectStyle): string {
  const others = 12 + 2 + 8 + 2 + BAR_WIDTH + 2;
  return columns === 0 ? command : truncate(printable(command), Math.max(30, columns - others));
}

function otherText(other: InspectedOther, style: InspectStyle): string {
  const head = formatFields(
    [
      [other.kind, other.artifactType ?? other.manifest.mediaType],
      ["digest", other.manifest.digest],
      ["config", other.config?.digest],
    ],
    style,
  );
  if (other.children.length === 0) return head;
  const table = barTable(
    [
      { title: "DIGEST" },
      { title: "SIZE", align: "right" },
      { title: "PLATFORM" },
      { title: "MEDIA TYPE" },
    ],
    other.children.map((child) => [
      shortDigest(child.digest),
      formatBytes(child.size),
      child.platform ? formatPlatform(child.platform) : "-",
      child.mediaType,
    ]),
    style,
  );
  return `${head}\n${table}`;
}
