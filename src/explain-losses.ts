/**
 * Reckons with what BuildKit's import loses of a cache: a step whose records some order
 * of the import does not find is no certain hit.
 */
import { checkCacheConfig } from "./cache-check.ts";
import { findImportLosses } from "./cache-import.ts";
import type { ImportLosses } from "./cache-import.ts";
import { lossText } from "./cache-losses.ts";
import type { CacheConfig } from "./cache-types.ts";

/** In how many orders of an import a step is not found. */
export interface StepLoss {
  orders: number;
  of: number;
}

/** Imports of larger caches take seconds to try; verify does it for those. */
const MAX_RECORDS = 4000;

/** What an import can lose of a cache; undefined where it loses nothing, or refuses the cache. */
export function importLosses(config: CacheConfig): ImportLosses | undefined {
  if (config.records.length > MAX_RECORDS) return undefined;
  if (checkCacheConfig(config).length > 0) return undefined;
  const losses = findImportLosses(config);
  return losses.lost.length > 0 ? losses : undefined;
}

/** In how many orders none of a step's records is found; undefined where one always is. */
export function stepLoss(losses: ImportLosses, records: readonly number[]): StepLoss | undefined {
  const known = new Map(losses.records.map(({ record, orders }) => [record, orders]));
  const orders = Math.min(...records.map((record) => known.get(record) ?? 0));
  return records.length === 0 || orders === 0 ? undefined : { orders, of: losses.orders };
}

/** What an import can lose, in a sentence. */
export function importLossText(
  { links, lost, orders, losing, records }: ImportLosses,
  location: string,
  names: readonly string[],
): string {
  const leadTo = [...new Set(lost.map(({ record }) => record))];
  const report = { links, lost: lost.length, orders, losing, leadTo, records: records.length };
  return lossText(report, location, names);
}
