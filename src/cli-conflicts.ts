/** Records on which caches do not agree, as commands show them (see cache-donors.ts). */
import type { Conflict } from "./cache-donors.ts";
import type { CommandContext } from "./cli-command.ts";
import { formatTable } from "./cli-table.ts";
import { shortDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";

/** A conflict with the places of the caches, as JSON has it. */
export interface PlacedConflict extends Omit<Conflict, "results"> {
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

/** Rows that are shown; JSON has them all. */
const ROWS = 20;

/**
 * A table of conflicts; empty where there are none.
 *
 * @param label What a record is called.
 */
export function conflictTable(
  conflicts: readonly PlacedConflict[],
  { colors }: CommandContext,
  label: (conflict: PlacedConflict) => string = ({ digest }) => shortDigest(digest),
): string {
  if (conflicts.length === 0) return "";
  const table = formatTable(
    [{ title: "RECORD" }, { title: "CHAIN", align: "right" }, { title: "RESULTS" }],
    conflicts
      .slice(0, ROWS)
      .map((conflict) => [
        label(conflict),
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
