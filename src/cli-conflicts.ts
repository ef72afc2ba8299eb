/** Records on which caches do not agree, as commands show them (see cache-donors.ts). */
import type { Conflict } from "./cache-donors.ts";
import type { CommandContext } from "./cli-command.ts";
import { formatTable } from "./cli-table.ts";
import type { Build } from "./explain-build.ts";
import type { RecordSource } from "./explain-records.ts";
import { shortDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";

/** A conflict with the places of the caches, as JSON has it. */
export interface PlacedConflict extends Omit<Conflict, "results"> {
  /** The step of a build that the record belongs to, where a build tells. */
  name?: string;
  results: { location: string | null; layer: Digest; createdAt: string; kept: boolean }[];
}

/**
 * Names the places instead of positions.
 *
 * @param locations Those of the caches, in their order.
 */
export function placeConflicts(
  conflicts: readonly Conflict[],
  locations: readonly string[],
): PlacedConflict[] {
  return conflicts.map(({ results, ...conflict }) => ({
    ...conflict,
    results: results.map(({ cache, ...result }) => ({
      location: locations[cache] ?? null,
      ...result,
    })),
  }));
}

/**
 * Names the records by the steps of builds.
 *
 * @param caches Those that do not agree.
 */
export async function nameConflicts(
  conflicts: readonly PlacedConflict[],
  caches: readonly RecordSource[],
  builds: readonly Build[],
): Promise<PlacedConflict[]> {
  if (builds.length === 0 || conflicts.length === 0) return [...conflicts];
  const { cacheLabels } = await import("./explain-labels.ts");
  const names = new Map<string, string>();
  for (const cache of caches) {
    const labels = cacheLabels(cache, builds);
    for (const [at, { digest }] of cache.config.records.entries()) {
      const name = names.has(digest) ? undefined : labels.record(at);
      if (name !== undefined) names.set(digest, name);
    }
  }
  return conflicts.map((conflict) => {
    const name = names.get(conflict.digest);
    return name === undefined ? conflict : { ...conflict, name };
  });
}

/** Rows that are shown; JSON has them all. */
const ROWS = 20;

/** A table of conflicts; empty where there are none. */
export function conflictTable(
  conflicts: readonly PlacedConflict[],
  { colors }: CommandContext,
): string {
  if (conflicts.length === 0) return "";
  const table = formatTable(
    [{ title: "RECORD" }, { title: "CHAIN", align: "right" }, { title: "RESULTS" }],
    conflicts
      .slice(0, ROWS)
      .map((conflict) => [
        conflict.name ?? shortDigest(conflict.digest),
        `${conflict.chain + 1}`,
        conflict.results
          .map(
            ({ location, layer, kept }) =>
              `${shortDigest(layer)} of ${location}${kept ? " (kept)" : ""}`,
          )
          .join(", "),
      ]),
    { colors },
  );
  const more = conflicts.length - ROWS;
  const rest = more > 0 ? `... and ${more} more; --json has them all\n` : "";
  const records = conflicts.length === 1 ? "1 record" : `${conflicts.length} records`;
  return `\nThe caches have other results for ${records}:\n${table}${rest}`;
}
