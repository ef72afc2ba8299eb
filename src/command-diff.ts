/** `cacheport diff`: opens two caches and shows what cache-diff.ts finds of them. */
import type { Cache } from "./cache-layers.ts";
import { BUILD_OPTION, openAllBuilds } from "./cli-builds.ts";
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import { toCache } from "./merge.ts";
import type { Store } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { diffFiles } from "./diff.ts";
import type { ResultDifference } from "./cache-diff.ts";
import type { FileDifference, StepDifference } from "./diff.ts";
import { diffCaches } from "./cache-diff.ts";
import type { CacheDifference, MissReason, RecordMiss, RecordReference } from "./cache-diff.ts";
import { shortDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import type { Build } from "./explain-build.ts";
import { cacheLabels } from "./explain-labels.ts";
import { cutName } from "./inspect-labels.ts";
import { storeSettings } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { readCache } from "./cache-read.ts";
import { PLATFORM_OPTION, resolveSource } from "./location-source.ts";
import { formatFields, formatTable } from "./cli-table.ts";
import { printable } from "./cli-text.ts";
import { formatBytes } from "./units.ts";

/** Rows that a table shows without --all. */
const ROWS = 20;

const REASONS: Record<MissReason, string> = {
  content: "other content",
  definition: "another step",
  inputs: "same step, other inputs",
};

/** `cacheport diff A B`: what one cache has and the other has not. */
export const diffCommand = defineCommand({
  name: "diff",
  summary: "Show what one cache has and another has not, and where they part",
  description:
    "Compares two caches by their records and layers. For each record that only one of them has it tells why the other has not got it, where that begins, and the nearest record below that both have: a first answer to why a step was not cached. A record is a hash of a step or of some content; --build names it by the step of a build. The reasons are: other content (a file or a base image differs), another step (the Dockerfile or an argument differs), same step on other inputs (something below differs).\n\nOf a step that both have, on other inputs or with another result, the files that differ in its layers are listed; up to 128 MiB of layers are read for it.\n\nThe exit code is 0 whether they differ or not; .equal in the JSON value tells.",
  operands: [
    { name: "A", description: "A cache", kind: "location" },
    { name: "B", description: "Another cache", kind: "location" },
  ],
  options: [
    PLATFORM_OPTION,
    BUILD_OPTION,
    {
      name: "no-files",
      description: "Read no layers: say nothing of the files that differ",
    },
    {
      name: "all",
      short: "a",
      description: `List every record and layer, not the first ${ROWS}`,
    },
  ],
  examples: [
    {
      command: "cacheport diff ./cache:main ./cache:feature",
      description: "What a branch's cache adds",
    },
    {
      command: "cacheport diff ./cache registry.example/app/cache:main --json | jq .records.onlyB",
      description: "The records that only the registry has",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    if (args.operand(0) === "-" && args.operand(1) === "-") {
      throw new CacheportError("USAGE", "Cannot read two archives from standard input", {
        hint: "Write one of them to a file first",
      });
    }
    const a = await load(args, 0, settings);
    try {
      const b = await load(args, 1, settings);
      try {
        const difference = diffCaches(a.cache, b.cache);
        const { signal } = settings;
        const { steps, skipped } = args.flag("no-files")
          ? { steps: [], skipped: 0 }
          : await diffFiles(a, b, difference, { signal });
        const builds = await openAllBuilds(args.values("build"), settings);
        const labels = { a: recordLabel(a.cache, builds), b: recordLabel(b.cache, builds) };
        const { records } = difference;
        const value = {
          a: a.source,
          b: b.source,
          ...difference,
          records: {
            ...records,
            onlyA: records.onlyA.map((miss) => withName(miss, labels.a, builds)),
            onlyB: records.onlyB.map((miss) => withName(miss, labels.b, builds)),
          },
          steps,
          skippedSteps: skipped,
        };
        const rows = args.flag("all") ? Infinity : ROWS;
        await context.result(value, () => render(value, context, rows, labels));
      } finally {
        await b.reader.close();
      }
    } finally {
      await a.reader.close();
    }
  },
});

/** Where a cache came from, for the JSON value. */
interface Source {
  location: string;
  digest: Digest;
  shape: string;
  records: number;
}

async function load(
  args: Arguments<never, "platform">,
  position: number,
  settings: StoreSettings,
): Promise<{ source: Source; cache: Cache; reader: Store }> {
  const place = args.location(position);
  const { store, descriptor } = await resolveSource(place, settings, args);
  try {
    const set = await readCache(store, descriptor, settings);
    // Without the bytes of the config, of which large ones need not be there twice.
    const { config, layers } = toCache(set);
    const cache = { config, layers };
    const source = {
      location: place.text,
      digest: set.descriptor.digest,
      shape: set.shape,
      records: cache.config.records.length,
    };
    return { source, cache, reader: store };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** What a record is called in tables. */
export type RecordLabel = (record: RecordReference) => string;

const byDigest: RecordLabel = ({ digest }) => shortDigest(digest);

/** Columns of a record's name in a table. */
const NAME_WIDTH = 60;

/** Names the records of a cache by the steps of builds; what they do not explain by its digest. */
function recordLabel(cache: Cache, builds: readonly Build[]): RecordLabel {
  if (builds.length === 0) return byDigest;
  const labels = cacheLabels(cache, builds);
  return (record) => {
    const name = labels.record(record.index);
    return name === undefined ? byDigest(record) : cutName(name, NAME_WIDTH);
  };
}

/** For the JSON value: the record with its name, where a build was given. */
function withName(
  miss: RecordMiss,
  label: RecordLabel,
  builds: readonly Build[],
): RecordMiss & { name?: string } {
  return builds.length === 0 ? miss : { ...miss, name: label(miss) };
}

function render(
  value: CacheDifference & {
    a: Source;
    b: Source;
    steps: readonly StepDifference[];
    skippedSteps: number;
  },
  context: CommandContext,
  rows: number,
  labels: { a: RecordLabel; b: RecordLabel } = { a: byDigest, b: byDigest },
): string {
  const { a, b, records, layers, size } = value;
  const summary = ({ location, shape, records: count }: Source, bytes: number) =>
    `${location}: ${shape}, ${count} records, ${formatBytes(bytes)} of layers`;
  const head: [string, string | undefined][] = [
    ["A", summary(a, size.a)],
    ["B", summary(b, size.b)],
  ];
  if (value.equal) {
    return `${formatFields(head, context)}The caches have the same records, results and layers\n`;
  }
  const fields = formatFields(
    [
      ...head,
      ["records in both", `${records.both}`],
      ["with other results", records.results.length > 0 ? `${records.results.length}` : undefined],
      ["records only in A", `${records.onlyA.length}`],
      ["records only in B", `${records.onlyB.length}`],
      ["layers in both", `${layers.both.count} (${formatBytes(layers.both.bytes)})`],
      ["layers only in A", `${layers.onlyA.length} (${formatBytes(layers.onlyABytes)})`],
      ["layers only in B", `${layers.onlyB.length} (${formatBytes(layers.onlyBBytes)})`],
    ],
    context,
  );
  return (
    fields +
    resultTable(records.results, context, rows, labels.a) +
    recordTable("A", records.onlyA, context, rows, labels.a) +
    recordTable("B", records.onlyB, context, rows, labels.b) +
    stepFiles(value.steps, value.skippedSteps, rows, labels) +
    layerTable("A", layers.onlyA, context, rows) +
    layerTable("B", layers.onlyB, context, rows)
  );
}

/** Records that both have with other results: a build that meets both caches may miss what follows. */
function resultTable(
  results: readonly ResultDifference[],
  { colors }: CommandContext,
  rows: number,
  label: RecordLabel,
): string {
  if (results.length === 0) return "";
  const layer = (digest: Digest | null): string => (digest ? shortDigest(digest) : "none");
  const table = formatTable(
    [{ title: "RECORD WITH OTHER RESULTS" }, { title: "LAYER IN A" }, { title: "LAYER IN B" }],
    results.slice(0, rows).map(({ a, aLayer, bLayer }) => [label(a), layer(aLayer), layer(bLayer)]),
    { colors },
  );
  return `\n${table}${rest(results.length - rows)}`;
}

function recordTable(
  name: string,
  misses: readonly RecordMiss[],
  { colors }: CommandContext,
  rows: number,
  label: RecordLabel,
): string {
  if (misses.length === 0) return "";
  const table = formatTable(
    [
      { title: `RECORD ONLY IN ${name}` },
      { title: "WHY" },
      { title: "BEGINS AT" },
      { title: "NEAREST IN BOTH" },
      { title: "CREATED" },
    ],
    misses
      .slice(0, rows)
      .map(({ index, digest, reason, cause, nearest, createdAt }) => [
        label({ index, digest }),
        REASONS[reason],
        cause.index === index ? "this record" : `${label(cause)} (${REASONS[cause.reason]})`,
        nearest ? `${label(nearest.own)}, ${nearest.steps} below` : "none",
        createdAt?.slice(0, 19).replace("T", " ") ?? "-",
      ]),
    { colors },
  );
  return `\n${table}${rest(misses.length - rows)}`;
}

/** The files that differ in what one step made in both caches. */
function stepFiles(
  steps: readonly StepDifference[],
  skipped: number,
  rows: number,
  labels: { a: RecordLabel; b: RecordLabel },
): string {
  const blocks = steps.map(({ a, b, files, total }) => {
    const names = new Set([labels.a(a), labels.b(b)]);
    const lines = files.slice(0, rows).map((file) => `  ${fileLine(file)}\n`);
    const more = total - lines.length;
    return [
      `\nFILES OF ${printable([...names].join(", "))}, in A and in B:\n`,
      ...(total === 0 ? ["  the same files, packed in another way\n"] : lines),
      more > 0 ? `  ... and ${more} more\n` : "",
    ].join("");
  });
  const rest =
    skipped > 0
      ? `\nThe layers of ${skipped} more steps were not compared: too many, too large or not there\n`
      : "";
  return blocks.join("") + rest;
}

/** One file: `~ src/a.txt 3 B -> 11 B`. */
function fileLine({ path, change, aSize, bSize, from, to }: FileDifference): string {
  const name = printable(path);
  const size = (bytes: number | null): string => (bytes === null ? "" : ` ${formatBytes(bytes)}`);
  switch (change) {
    case "added":
      return `+ ${name}${size(bSize)}`;
    case "removed":
      return `- ${name}${size(aSize)}`;
    case "content":
      return aSize === bSize
        ? `~ ${name}${size(aSize)}, other content`
        : `~ ${name}${size(aSize)} ->${size(bSize)}`;
    default:
      return `~ ${name} ${change} ${printable(from ?? "")} -> ${printable(to ?? "")}`;
  }
}

function layerTable(
  name: string,
  layers: readonly Descriptor[],
  { colors }: CommandContext,
  rows: number,
): string {
  if (layers.length === 0) return "";
  const table = formatTable(
    [{ title: `LAYER ONLY IN ${name}` }, { title: "SIZE", align: "right" }],
    layers
      .toSorted((x, y) => y.size - x.size)
      .slice(0, rows)
      .map(({ digest, size }) => [shortDigest(digest), formatBytes(size)]),
    { colors },
  );
  return `\n${table}${rest(layers.length - rows)}`;
}

function rest(count: number): string {
  return count > 0 ? `... and ${count} more; --all shows them\n` : "";
}
