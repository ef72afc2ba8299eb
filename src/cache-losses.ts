/** What BuildKit's import can lose of a cache, told in a sentence. The rule is in cache-heal.ts. */
import { checkCacheConfig } from "./cache-check.ts";
import { findImportLosses } from "./cache-import.ts";
import type { CacheConfig } from "./cache-types.ts";

/** What an import can lose of one cache. */
export interface LossReport {
  /** Links between records. */
  links: number;
  /** How many of them some order of leaves loses. */
  lost: number;
  /** Orders of leaves that were tried, all where there are few. */
  orders: number;
  /** How many of them lose a link. */
  losing: number;
  /** The records that lost links lead to: the steps that a build then misses, and what follows them. */
  leadTo: number[];
  /** Records that a build cannot find in one order or another. */
  records: number;
}

/**
 * Finds what an import can lose.
 *
 * @returns Undefined where nothing can be lost, and for a cache that BuildKit refuses.
 */
export function reportLosses(config: CacheConfig): LossReport | undefined {
  if (checkCacheConfig(config).length > 0) return undefined;
  const { links, lost, orders, losing, records } = findImportLosses(config);
  if (lost.length === 0) return undefined;
  const leadTo = [...new Set(lost.map(({ record }) => record))];
  return { links, lost: lost.length, orders, losing, leadTo, records: records.length };
}

/** Steps that are named in a sentence. */
const NAMED = 5;

/**
 * Says what an import can lose.
 *
 * @param what The cache, for the sentence.
 * @param names What the records that the lost links lead to are, as far as it is known.
 */
export function lossText(report: LossReport, what: string, names: readonly string[] = []): string {
  const { links, lost, orders, losing, leadTo, records } = report;
  const named = [...new Set(names)];
  const more = named.length > NAMED ? ` and ${named.length - NAMED} more` : "";
  const steps =
    named.length > 0
      ? `, which lead to ${named.slice(0, NAMED).join(", ")}${more}`
      : `, which lead to ${leadTo.length} of its records`;
  return `BuildKit's import can lose ${lost} of the ${links} links of ${what}${steps}: in ${losing} of ${orders} orders of its leaves; up to ${records} records are not found then`;
}
