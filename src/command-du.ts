/** `cacheport du`: what costs how much in a layout, for people and for scripts. */
import { defineCommand } from "./cli-command.ts";
import { formatTable } from "./cli-table.ts";
import { printable } from "./cli-text.ts";
import { measureLayout } from "./du.ts";
import type { Usage } from "./du.ts";
import type { Amount } from "./reachable.ts";
import { CacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import { storeSettings } from "./location-open.ts";
import { formatBytes, formatDuration } from "./units.ts";

/** `cacheport du LAYOUT`: bytes by name, shared, unreachable, by age. */
export const duCommand = defineCommand({
  name: "du",
  summary: "Show what costs how much in a layout folder",
  description:
    "Shows for each name how many bytes it needs and how many of them nothing else needs, which untag and gc would free; what several names share, what no name reaches, what interrupted writers left, and how old the blobs are. Each blob counts once in each line.",
  operands: [{ name: "LAYOUT", description: "A layout folder", kind: "location" }],
  options: [],
  examples: [
    { command: "cacheport du ./cache", description: "Which branch's cache is the large one" },
    {
      command: "cacheport du ./cache --json | jq .unreachable.bytes",
      description: "What gc would free",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const usage = await measureLayout(layoutFolder(args.location(0)), settings);
    for (const { names, digest, problem } of usage.names)
      if (problem !== null)
        context.note(`What ${printable(names[0] ?? digest)} reaches is not known: ${problem}`);
    await context.result(usage, () => formatUsage(usage, context.colors));
  },
});

/** @throws {CacheportError} NOT_SUPPORTED for anything but a folder, USAGE for a name */
function layoutFolder(location: Location): string {
  if (location.kind !== "directory")
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot measure "${location.text}": only layout folders can be`,
      { hint: `"cacheport ls ${location.text}" shows the size of each name` },
    );
  if (location.name === undefined && location.digest === undefined) return location.path;
  throw new CacheportError(
    "USAGE",
    `Cannot measure "${location.text}": it names one entry, and du works on the whole layout`,
    { hint: `Write: cacheport du ${location.path}` },
  );
}

function formatUsage(usage: Usage, colors: boolean): string {
  const columns = [
    { title: "NAME" },
    { title: "BLOBS", align: "right" as const },
    { title: "SIZE", align: "right" as const },
    { title: "ALONE", align: "right" as const },
  ];
  const rows = usage.names.map(({ names, digest, blobs, bytes, alone, problem }) => [
    names.join(", ") || digest,
    problem === null ? String(blobs) : "?",
    problem === null ? formatBytes(bytes) : "?",
    problem === null ? formatBytes(alone.bytes) : "?",
  ]);
  const sum = (label: string, amount: Amount | null): string[] =>
    amount ? [label, String(amount.blobs), formatBytes(amount.bytes), ""] : [label, "?", "?", ""];
  const { files, bytes } = usage.leftovers;
  const sums = [
    sum("shared by several names", usage.shared),
    sum("reached by no name", usage.unreachable),
    ...(files > 0 ? [["left over by writers", String(files), formatBytes(bytes), ""]] : []),
    ...usage.ages.map(({ within, ...amount }, i) => {
      const [from, to] = [usage.ages[i - 1]?.within ?? 0, within];
      const label =
        to === null ? `older than ${formatDuration(from)}` : `written within ${formatDuration(to)}`;
      return sum(i > 0 && to !== null ? `${label}, not ${formatDuration(from)}` : label, amount);
    }),
    sum("total", usage.total),
  ];
  const table = (body: string[][], header: boolean): string =>
    formatTable(columns, body, { colors, header });
  return rows.length === 0 ? table(sums, false) : `${table(rows, true)}\n${table(sums, false)}`;
}
