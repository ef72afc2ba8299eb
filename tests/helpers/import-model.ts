/**
 * BuildKit's import of records as cachestorage.go does it (addItemToStorage), on a cache
 * config as it is stored: the other eye on what cacheport says an import loses.
 */

/** A record of a cache config's JSON. */
export interface StoredRecord {
  digest?: string;
  inputs?: { link?: number; selector?: string }[][];
}

/** The records that are no record's input. */
export function leavesOf(records: readonly StoredRecord[]): number[] {
  const inputs = new Set(
    records.flatMap((record) => (record.inputs ?? []).flat().map(({ link = 0 }) => link)),
  );
  return [...records.keys()].filter((at) => !inputs.has(at));
}

/** All links, each as one text. */
export function allLinks(records: readonly StoredRecord[]): Set<string> {
  return new Set(
    records.flatMap(({ inputs = [] }, at) =>
      inputs.flatMap((alternatives, input) =>
        alternatives.map(({ link = 0, selector = "" }) => `${link} ${input} ${selector} ${at}`),
      ),
    ),
  );
}

/** The links that are left after an import that takes the leaves in this order. */
export function importedLinks(
  records: readonly StoredRecord[],
  order: readonly number[],
): Set<string> {
  const stored = new Set<number>();
  const links = new Set<string>();
  const add = (at: number, visited: Map<number, boolean>): boolean => {
    const known = visited.get(at);
    if (known !== undefined) return known;
    visited.set(at, false);
    if (stored.has(at)) return true;
    stored.add(at);
    for (const [input, alternatives] of (records[at]?.inputs ?? []).entries()) {
      for (const { link = 0, selector = "" } of alternatives)
        if (add(link, visited)) links.add(`${link} ${input} ${selector} ${at}`);
    }
    visited.set(at, true);
    return true;
  };
  for (const leaf of order) add(leaf, new Map());
  return links;
}

/** Every order of some things. */
export function permutations<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]];
  return items.flatMap((item, at) =>
    permutations(items.toSpliced(at, 1)).map((rest) => [item, ...rest]),
  );
}
