/**
 * What BuildKit's import makes of a cache in one order of its leaves and another: which
 * links it loses, and which records a build cannot find then. The rule is told in
 * cache-heal.ts.
 */
import { inputsFirst } from "./cache-check.ts";
import { findFirstLoss, importLeaves } from "./cache-heal.ts";
import type { CacheConfig, CacheInput, CacheRecord } from "./cache-types.ts";

/** A link that some order of leaves loses. */
export interface LostLink extends CacheInput {
  /** The record that the link leads to: the step whose input it is. */
  record: number;
  /** Which of its inputs, from 0. */
  input: number;
  /** How many of the orders lose it. */
  orders: number;
}

/** What BuildKit's import loses of a cache. */
export interface ImportLosses {
  /** Links between the cache's records, the joining record's not counted. */
  links: number;
  /** Orders of leaves that were tried; 0 when none can lose a link. */
  orders: number;
  /** These were all orders that there are, not some of many. */
  isComplete: boolean;
  /** How many of them lose a link. */
  losing: number;
  /** The most links that one of them loses. */
  most: number;
  /** The links that any of them loses, in the order of the records. */
  lost: LostLink[];
  /** The records that a build does not find then, and in how many of the orders. */
  records: { record: number; orders: number }[];
}

/** Up to this many leaves all orders are tried. */
const FEW_LEAVES = 6;
/** Orders that are tried of more leaves than that. */
const MOST_ORDERS = 500;
const FEWEST_ORDERS = 8;
/** Links that are followed in all orders together. */
const MOST_STEPS = 8 * 2 ** 20;

/**
 * Imports a cache in many orders of its leaves, in all of them where there are few. The
 * same cache always gets the same orders.
 *
 * @param config Without loops and broken links.
 */
export function findImportLosses(config: CacheConfig): ImportLosses {
  const walk = new ImportWalk(config);
  const { size: links } = walk;
  const first = findFirstLoss(config);
  const none = { links, orders: 0, isComplete: true, losing: 0, most: 0, lost: [], records: [] };
  if (!first) return none;

  const { orders, isComplete } = chooseOrders(importLeaves(config), links, [
    first.first,
    first.second,
  ]);
  const lostLinks = new Uint32Array(links);
  const lostRecords = new Uint32Array(config.records.length);
  let losing = 0;
  let most = 0;
  for (const order of orders) {
    const lost = walk.run(order);
    if (lost.length === 0) continue;
    losing++;
    most = Math.max(most, lost.length);
    for (const link of lost) lostLinks[link]! += 1;
    for (const record of walk.missing()) lostRecords[record]! += 1;
  }
  return {
    links,
    orders: orders.length,
    isComplete,
    losing,
    most,
    lost: walk.describe(lostLinks),
    records: [...lostRecords]
      .map((count, record) => ({ record, orders: count }))
      .filter((entry) => entry.orders > 0),
  };
}

/** One import after another of the same cache. */
class ImportWalk {
  readonly #records: readonly CacheRecord[];
  readonly #joined: readonly number[];
  /** The records in an order in which each comes after its inputs. */
  readonly #order: readonly number[];
  /** The first link of each record; links lie one after another. */
  readonly #starts: Int32Array;
  readonly #targets: Int32Array;
  /** For each link, 1 when the last import has lost it. */
  readonly #isLost: Uint8Array;
  /** For each record, the leaf (from 1) within which it was stored, and within which it was last visited. */
  readonly #storedBy: Int32Array;
  readonly #visitedBy: Int32Array;

  constructor({ records, joined = [] }: CacheConfig) {
    this.#records = records;
    this.#joined = joined;
    this.#order = inputsFirst(records);
    this.#starts = new Int32Array(records.length + 1);
    const targets: number[] = [];
    for (const [at, { inputs }] of records.entries()) {
      for (const alternatives of inputs) for (const { link } of alternatives) targets.push(link);
      this.#starts[at + 1] = targets.length;
    }
    this.#targets = Int32Array.from(targets);
    this.#isLost = new Uint8Array(targets.length);
    this.#storedBy = new Int32Array(records.length);
    this.#visitedBy = new Int32Array(records.length);
  }

  /** How many links there are. */
  get size(): number {
    return this.#targets.length;
  }

  /** Imports the cache; gives the links that are lost. */
  run(leaves: readonly number[]): number[] {
    this.#isLost.fill(0);
    this.#storedBy.fill(0);
    this.#visitedBy.fill(0);
    const lost: number[] = [];
    for (const [number, leaf] of leaves.entries()) {
      const roots = leaf === this.#records.length ? this.#joined : [leaf];
      for (const root of roots) this.#walk(root, number + 1, lost);
    }
    return lost;
  }

  /** The records that a build does not find after the last import. */
  missing(): number[] {
    const isMissing = new Uint8Array(this.#records.length);
    const missing: number[] = [];
    for (const at of this.#order) {
      let link = this.#starts[at] as number;
      for (const alternatives of (this.#records[at] as CacheRecord).inputs) {
        let isFound = false;
        for (const { link: below } of alternatives)
          if (this.#isLost[link++] === 0 && isMissing[below] === 0) isFound = true;
        if (!isFound) isMissing[at] = 1;
      }
      if (isMissing[at] === 1) missing.push(at);
    }
    return missing;
  }

  /** The links with a count, with what they are. */
  describe(counts: Uint32Array): LostLink[] {
    const found: LostLink[] = [];
    let link = 0;
    for (const [record, { inputs }] of this.#records.entries()) {
      for (const [input, alternatives] of inputs.entries()) {
        for (const alternative of alternatives) {
          const orders = counts[link++] as number;
          if (orders > 0) found.push({ ...alternative, record, input, orders });
        }
      }
    }
    return found;
  }

  /** Stores a record and what lies below it, each record's links one after another. */
  #walk(root: number, leaf: number, lost: number[]): void {
    const open: number[] = [];
    const next: number[] = [];
    const enter = (at: number): void => {
      this.#visitedBy[at] = leaf;
      if (this.#storedBy[at] !== 0) return;
      this.#storedBy[at] = leaf;
      open.push(at);
      next.push(this.#starts[at] as number);
    };
    if (this.#visitedBy[root] !== leaf) enter(root);
    while (open.length > 0) {
      const at = open.at(-1) as number;
      const link = next.at(-1) as number;
      if (link === this.#starts[at + 1]) {
        open.pop();
        next.pop();
        continue;
      }
      next[next.length - 1] = link + 1;
      const target = this.#targets[link] as number;
      if (this.#visitedBy[target] !== leaf) enter(target);
      else if (this.#storedBy[target] !== leaf) {
        this.#isLost[link] = 1;
        lost.push(link);
      }
    }
  }
}

/** The orders to try; of many, one that loses a link and others at random. */
function chooseOrders(
  leaves: readonly number[],
  links: number,
  losing: readonly number[],
): { orders: number[][]; isComplete: boolean } {
  const affordable = Math.floor(MOST_STEPS / Math.max(links, 1));
  if (leaves.length <= FEW_LEAVES) {
    const orders = permutations(leaves);
    if (orders.length <= affordable) return { orders, isComplete: true };
  }
  const count = Math.min(Math.max(affordable, FEWEST_ORDERS), MOST_ORDERS);
  const random = randomNumbers();
  const rest = leaves.filter((leaf) => !losing.includes(leaf));
  const orders = [[...losing, ...rest]];
  while (orders.length < count) orders.push(shuffle(leaves, random));
  return { orders, isComplete: false };
}

function permutations(items: readonly number[]): number[][] {
  if (items.length < 2) return [[...items]];
  return items.flatMap((item) =>
    permutations(items.filter((other) => other !== item)).map((rest) => [item, ...rest]),
  );
}

function shuffle(items: readonly number[], random: () => number): number[] {
  const shuffled = [...items];
  for (let last = shuffled.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [shuffled[last], shuffled[other]] = [shuffled[other] as number, shuffled[last] as number];
  }
  return shuffled;
}

/** Numbers from 0 to 1 that are always the same (a linear congruential generator). */
function randomNumbers(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
