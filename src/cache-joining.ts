/**
 * The joining record: one more record without a result, whose inputs are the leaves of
 * a cache. BuildKit's import walks up from each leaf on its own and can lose links where
 * two of the ways meet (see cache-heal.ts); with all leaves joined there is one way.
 *
 * No build asks for its key, so BuildKit itself takes no notice of it. In memory it is
 * no record but {@link CacheConfig.joined}: what shows, counts or compares records does
 * not meet it.
 */
import { isRandomRecord } from "./cache-check.ts";
import { relink } from "./cache-layers.ts";
import type { CacheConfig, CacheRecord } from "./cache-types.ts";
import { compareBytes } from "./go-json.ts";

/** The key of a joining record: no hash is this, and BuildKit sorts it behind all others. */
export const JOINING_DIGEST = `sha256:${"f".repeat(64)}`;

/**
 * Takes a joining record out of a config as it is stored. Only what can be nothing else
 * is taken: without results, each input one record through no selector, and no record's
 * input itself. Of several, the one that joins most is remembered.
 */
export function takeJoining({ layers, records }: CacheConfig): CacheConfig {
  if (!records.some(({ digest }) => digest === JOINING_DIGEST)) return { layers, records };
  const linked = new Set(
    records.flatMap(({ inputs }) => inputs.flatMap((input) => input.map(({ link }) => link))),
  );
  const found = new Set(
    [...records.keys()].filter((at) => !linked.has(at) && isJoining(records, at)),
  );
  if (found.size === 0) return { layers, records };
  const places = new Map<number, number>();
  for (const at of records.keys()) if (!found.has(at)) places.set(at, places.size);
  const joined = [...found]
    .map((at) => (records[at] as CacheRecord).inputs.map((input) => input[0]?.link as number))
    .reduce((most, links) => (links.length > most.length ? links : most));
  // Without places for what can not be followed; such links are reported by checkCacheConfig.
  const move = (link: number): number => places.get(link) ?? link;
  return {
    layers,
    records: records
      .filter((_record, at) => !found.has(at))
      .map((record) => ({ ...record, inputs: relink(record, move) })),
    joined: joined.map(move),
  };
}

/**
 * The records as they are stored: with the joining record, if there is one, at the place
 * that BuildKit's sort gives it.
 */
export function withJoining({ records, joined }: CacheConfig): CacheRecord[] {
  if (!joined) return records;
  let place = records.length;
  while (place > 0 && compareBytes((records[place - 1] as CacheRecord).digest, JOINING_DIGEST) > 0)
    place--;
  const move = (link: number): number => (link < place ? link : link + 1);
  const record: CacheRecord = {
    results: [],
    chains: [],
    digest: JOINING_DIGEST,
    inputs: joined.map((leaf) => [{ selector: "", link: move(leaf) }]),
  };
  if (place === records.length) return [...records, record];
  const moved = records.map((each) => ({ ...each, inputs: relink(each, move) }));
  return [...moved.slice(0, place), record, ...moved.slice(place)];
}

function isJoining(records: readonly CacheRecord[], at: number): boolean {
  const { digest, results, chains, inputs } = records[at] as CacheRecord;
  return (
    digest === JOINING_DIGEST &&
    results.length + chains.length === 0 &&
    inputs.every(([first, ...others]) => {
      const target = first && records[first.link];
      if (!target || others.length > 0 || first.selector !== "") return false;
      return first.link !== at && !isRandomRecord(target);
    })
  );
}
