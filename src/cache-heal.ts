/**
 * Cache hits that BuildKit's import loses, and the record that cures it.
 *
 * An import stores records leaf by leaf; a leaf is a record that is no record's input.
 * For each leaf it walks down the inputs with a new map of what it has visited. A record
 * that an earlier leaf has stored is put into that map and never filled in there: the
 * first visit finds it, every later one within the same leaf finds nothing, and the link
 * from it to the record that was being stored is dropped. What has no other way to be
 * found is a miss then, with everything behind it. Leaves come in no fixed order, so
 * which part is lost changes from run to run.
 *
 * So a link can be lost where two leaves share a record from which two links lead to the
 * later leaf and not to the earlier one: several platforms, several targets of a bake,
 * several caches merged. One more record whose inputs are all leaves makes them one leaf
 * with one map, in which nothing is lost (see cache-joining.ts).
 *
 * Source: BuildKit cache/remotecache/v1/cachestorage.go (NewCacheKeyStorage,
 * addItemToStorage).
 */
import { inputsFirst, isRandomRecord } from "./cache-check.ts";
import { isSorted, sortEntries } from "./cache-order.ts";
import { usersOf } from "./cache-records.ts";
import type { CacheConfig } from "./cache-types.ts";

/**
 * Gives a cache the joining record where BuildKit's import could lose a link of it.
 *
 * @param config Without loops and broken links.
 * @returns The very same config when nothing can be lost; else one in BuildKit's order
 *   with all leaves joined. What is in that order already stays where it is, what
 *   BuildKit leaves in any order included.
 */
export function healCache(config: CacheConfig): CacheConfig {
  if (!findFirstLoss(config)) return config;
  const sorted = isSorted(config) ? config : sortEntries(config);
  const { layers, records } = sorted;
  return { layers, records, joined: findLeaves(sorted) };
}

/** The records that are no record's input and that BuildKit keeps. */
function findLeaves({ records }: CacheConfig): number[] {
  const isInput = new Uint8Array(records.length);
  for (const { inputs } of records)
    for (const alternatives of inputs) for (const { link } of alternatives) isInput[link] = 1;
  return [...records.keys()].filter(
    (at) => isInput[at] === 0 && !isRandomRecord(records[at] as CacheConfig["records"][0]),
  );
}

/** An import of two leaves, one after the other, in which the second one loses a link. */
export interface FirstLoss {
  /** The leaf that is stored first; the number of records stands for the joining record. */
  first: number;
  second: number;
}

/**
 * Finds two leaves of which the second one loses a link when it is stored right after
 * the first one. Without such leaves no order of any leaves loses a link.
 *
 * In a cache made to be hard to judge, where that would take too long, the answer is two
 * leaves all the same: joining the leaves does no harm.
 *
 * @param config Without loops and broken links.
 */
export function findFirstLoss(config: CacheConfig): FirstLoss | undefined {
  const leaves = importLeaves(config);
  if (leaves.length < 2) return undefined;
  const [first, second] = leaves as [number, number];
  const unclear = { first, second };
  const budget = { words: WORK };
  let found: FirstLoss | undefined;
  const isWhole = eachBranching(config, leaves, (branches, leafOf) => {
    const pair = findPair(branches, budget);
    if (pair) found = { first: leafOf[pair.first]!, second: leafOf[pair.second]! };
    else if (budget.words < 0) found = unclear;
    return found === undefined;
  });
  return found ?? (isWhole ? undefined : unclear);
}

/** Words that all sets of leaves may have together, and that comparing them may read. */
const MEMORY = 8 * 2 ** 20;
const WORK = 64 * 2 ** 20;

/**
 * The leaves that an import sees: one for the joining record, whose number is that of
 * the records, and those that it does not join.
 */
export function importLeaves(config: CacheConfig): number[] {
  const { records, joined } = config;
  const leaves = findLeaves(config);
  if (!joined) return leaves;
  const isJoined = new Set(joined);
  return [...leaves.filter((at) => !isJoined.has(at)), records.length];
}

/** A set of leaves, a bit for each. */
type LeafSet = Uint32Array;

/** A record and the links from it that lead to some of its leaves only. */
interface Branches {
  /** All leaves that the record leads to. */
  all: LeafSet;
  /** Those that each of the links leads to. */
  links: LeafSet[];
}

/**
 * Goes through the records whose links lead to different leaves, until it is told to stop.
 *
 * Leaves with a single link are as one where they share the record that it comes from:
 * no other record tells them apart, and that link itself is always a first visit.
 *
 * @param visit Is told the record of each bit as well; gives false to stop.
 * @returns False where it would take too much memory to go on.
 */
function eachBranching(
  { records, joined = [] }: CacheConfig,
  leaves: readonly number[],
  visit: (branches: Branches, leafOf: readonly number[]) => boolean,
): boolean {
  const { users, userStarts } = usersOf(records);
  const isJoined = new Uint8Array(records.length);
  for (const at of joined) isJoined[at] = 1;
  const classes = new Map<number, number>();
  const leafOf: number[] = [];
  const isSingle = new Uint8Array(records.length);
  const classOf = new Map<number, number>();
  for (const leaf of leaves) {
    const links = records[leaf]?.inputs.flat() ?? [];
    const [link] = links;
    if (link && links.length === 1) {
      isSingle[leaf] = 1;
      const known = classes.get(link.link);
      if (known !== undefined) {
        classOf.set(leaf, known);
        continue;
      }
      classes.set(link.link, leafOf.length);
    }
    classOf.set(leaf, leafOf.push(leaf) - 1);
  }

  const width = Math.ceil(leafOf.length / 32);
  let words = 0;
  const make = (from: LeafSet | undefined): LeafSet => {
    words += width;
    return from ? from.slice() : new Uint32Array(width);
  };
  const none = make(undefined);
  const singles = new Map<number, LeafSet>();
  const only = (leaf: number): LeafSet => {
    const number = classOf.get(leaf);
    // A session-unique key is no leaf: BuildKit leaves it out.
    if (number === undefined) return none;
    let set = singles.get(number);
    if (!set) {
      singles.set(number, (set = make(undefined)));
      set[number >>> 5]! |= 1 << (number & 31);
    }
    return set;
  };

  const sets: LeafSet[] = Array.from({ length: records.length });
  for (const at of inputsFirst(records).reverse()) {
    if (words > MEMORY) return false;
    const above: LeafSet[] = isJoined[at] === 1 ? [only(records.length)] : [];
    let all = above[0];
    let isShared = true;
    const add = (set: LeafSet): void => {
      if (!all) all = set;
      if (contains(all, set)) return;
      if (isShared) all = make(all);
      isShared = false;
      for (let word = 0; word < width; word++) all[word]! |= set[word] as number;
    };
    const end = userStarts[at + 1] as number;
    for (let link = userStarts[at] as number; link < end; link++) {
      const user = users[link] as number;
      const set = sets[user] as LeafSet;
      add(set);
      if (isSingle[user] === 0) above.push(set);
    }
    const whole = (sets[at] = all ?? only(at));
    const parting = above.filter((set) => set !== whole && !contains(set, whole));
    if (parting.length > 1 && !visit({ all: whole, links: parting }, leafOf)) break;
  }
  return true;
}

/** Tells whether a set has all leaves of another one. */
function contains(set: LeafSet, other: LeafSet): boolean {
  for (let word = 0; word < set.length; word++)
    if (((other[word] as number) & ~(set[word] as number)) !== 0) return false;
  return true;
}

/** Two leaves such that two links lead to the second one and not to the first one. */
function findPair({ all, links }: Branches, budget: { words: number }): FirstLoss | undefined {
  // A leaf to which two of the links lead.
  const once = new Uint32Array(all.length);
  let isTwice = false;
  budget.words -= links.length * all.length;
  for (const set of links) {
    for (let word = 0; word < all.length; word++) {
      const bits = set[word] as number;
      if (((once[word] as number) & bits) !== 0) isTwice = true;
      once[word]! |= bits;
    }
  }
  if (!isTwice) return undefined;
  for (const [position, set] of links.entries()) {
    for (let next = position + 1; next < links.length; next++) {
      const other = links[next] as LeafSet;
      let first = -1;
      let second = -1;
      for (let word = 0; word < all.length; word++) {
        const both = (set[word] as number) & (other[word] as number);
        const none = (all[word] as number) & ~((set[word] as number) | (other[word] as number));
        if (second === -1 && both !== 0) second = word * 32 + lowestBit(both);
        if (first === -1 && none !== 0) first = word * 32 + lowestBit(none);
      }
      if (first !== -1 && second !== -1) return { first, second };
      budget.words -= all.length;
      if (budget.words < 0) return undefined;
    }
  }
  return undefined;
}

function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}
