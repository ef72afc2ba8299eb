import type { CommandContext, CommandSpec } from "./command.ts";
import { toWritable } from "./convert.ts";
import { diffCaches } from "./diff-caches.ts";
import type { CacheDifference, RecordMiss } from "./diff-caches.ts";
import { shortDigest } from "./digest.ts";
import { openSource, storeSettings } from "./open-store.ts";
import type { StoreSettings } from "./open-store.ts";
import { readCache } from "./read-cache.ts";
import type { Cache } from "./cache-normal.ts";
import { formatFields, formatTable } from "./table.ts";
import { formatBytes } from "./units.ts";

const REASONS = {
  content: "its content is not the same",
  definition: "the step is another one",
  inputs: "the same step on other inputs",
};

/** `cacheport diff A B`: what one cache has and the other has not. */
export const diffCommand: CommandSpec = {
  name: "diff",
  summary: "Show what one cache has and another has not, and where they part",
  description:
    "Compares two caches by their records and layers. For each record that only one of them has, it tells the nearest record below it that both have, and where the difference starts: a first answer to why a step was not cached. Records are hashes of steps, so they have no names. The exit code is 0 whether they differ or not.",
  operands: [
    { name: "A", description: "A cache", kind: "location" },
    { name: "B", description: "Another cache", kind: "location" },
  ],
  options: [
    {
      name: "all",
      short: "a",
      description: "List every record, not the first 20",
    },
  ],
  examples: [
    {
      command: "cacheport diff ./cache:main ./cache:feature",
      description: "What a branch's cache adds",
    },
    {
      command: "cacheport diff ./before ./after --json | jq .records.onlyB",
      description: "The records that are new",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const a = await load(args.operand(0), settings);
    const b = await load(args.operand(1), settings);
    const difference = diffCaches(a, b);
    await context.result(difference, () =>
      render(difference, context, args.flag("all")),
    );
  },
};

async function load(text: string, settings: StoreSettings): Promise<Cache> {
  const { store, query } = await openSource(text, settings);
  try {
    const { descriptor } = await store.resolve(query);
    return toWritable(await readCache(store, descriptor, settings));
  } finally {
    await store.close();
  }
}

function render(
  difference: CacheDifference,
  context: CommandContext,
  all: boolean,
): string {
  const { records, layers, size } = difference;
  if (difference.equal)
    return "The caches have the same records, results and layers\n";
  const head = formatFields(
    [
      ["A", `${formatBytes(size.a)}`],
      ["B", `${formatBytes(size.b)}`],
      [
        "layers in both",
        `${layers.both.count} (${formatBytes(layers.both.bytes)})`,
      ],
      [
        "layers only in A",
        `${layers.onlyA.length} (${formatBytes(layers.onlyABytes)})`,
      ],
      [
        "layers only in B",
        `${layers.onlyB.length} (${formatBytes(layers.onlyBBytes)})`,
      ],
      ["records in both", `${records.both}`],
      [
        "with other results",
        records.results.length > 0 ? `${records.results.length}` : undefined,
      ],
      ["records only in A", `${records.onlyA.length}`],
      ["records only in B", `${records.onlyB.length}`],
    ],
    context,
  );
  const tables = [
    ["A", records.onlyA],
    ["B", records.onlyB],
  ] as const;
  return (
    head +
    tables
      .map(([name, misses]) => missTable(name, misses, context, all))
      .join("")
  );
}

function missTable(
  name: string,
  misses: readonly RecordMiss[],
  { colors }: CommandContext,
  all: boolean,
): string {
  if (misses.length === 0) return "";
  const shown = all ? misses : misses.slice(0, 20);
  const table = formatTable(
    [
      { title: `ONLY IN ${name}` },
      { title: "WHY" },
      { title: "STARTS AT" },
      { title: "NEAREST IN BOTH" },
      { title: "CREATED" },
    ],
    shown.map((miss) => [
      shortDigest(miss.digest),
      REASONS[miss.reason],
      miss.cause.index === miss.index
        ? "here"
        : `${shortDigest(miss.cause.digest)}: ${REASONS[miss.cause.reason]}`,
      miss.nearest
        ? `${shortDigest(miss.nearest.own.digest)}, ${miss.nearest.steps} below`
        : "none",
      miss.createdAt?.slice(0, 19).replace("T", " ") ?? "-",
    ]),
    { colors },
  );
  const rest = misses.length - shown.length;
  return `\n${table}${rest > 0 ? `... and ${rest} more; --all shows them\n` : ""}`;
}
