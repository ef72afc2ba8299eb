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
  readonly #order: Int32Array;
  /** The first input of each record, and the first link of each input; all lie one after another. */
  readonly #inputs: Int32Array;
  readonly #links: Int32Array;
  readonly #targets: Int32Array;
  /** For each link, 1 when the last import has lost it. */
  readonly #isLost: Uint8Array;
  /** The links that it has lost, in its order, and how many there are. */
  readonly #lost: Int32Array;
  #lostCount = 0;
  /** For each record, the leaf (from 1) within which it was stored, and within which it was last visited. */
  readonly #storedBy: Int32Array;
  readonly #visitedBy: Int32Array;
  /** For each record, 1 when a build does not find it then; and these records. */
  readonly #isMissing: Uint8Array;
  readonly #missing: Int32Array;
  /** The records that are being stored, and the next link of each. */
  readonly #open: Int32Array;
  readonly #next: Int32Array;

  constructor({ records, joined = [] }: CacheConfig) {
    this.#records = records;
    this.#joined = joined;
    this.#order = Int32Array.from(inputsFirst(records));
    this.#inputs = new Int32Array(records.length + 1);
    const links = [0];
    const targets: number[] = [];
    for (const [at, { inputs }] of records.entries()) {
      for (const alternatives of inputs) {
        for (const { link } of alternatives) targets.push(link);
        links.push(targets.length);
      }
      this.#inputs[at + 1] = links.length - 1;
    }
    this.#links = Int32Array.from(links);
    this.#targets = Int32Array.from(targets);
    this.#isLost = new Uint8Array(targets.length);
    this.#lost = new Int32Array(targets.length);
    this.#storedBy = new Int32Array(records.length);
    this.#visitedBy = new Int32Array(records.length);
    this.#isMissing = new Uint8Array(records.length);
    this.#missing = new Int32Array(records.length);
    this.#open = new Int32Array(records.length);
    this.#next = new Int32Array(records.length);
  }

  /** How many links there are. */
  get size(): number {
    return this.#targets.length;
  }

  /** Imports the cache; gives the links that are lost, until the next import. */
  run(leaves: readonly number[]): Int32Array {
    this.#isLost.fill(0);
    this.#storedBy.fill(0);
    this.#visitedBy.fill(0);
    this.#lostCount = 0;
    for (const [number, leaf] of leaves.entries()) {
      const roots = leaf === this.#records.length ? this.#joined : [leaf];
      for (const root of roots) this.#walk(root, number + 1);
    }
    return this.#lost.subarray(0, this.#lostCount);
  }

  /** The records that a build does not find after the last import, until the next one. */
  missing(): Int32Array {
    const [inputs, links, targets] = [this.#inputs, this.#links, this.#targets];
    const [isLost, isMissing] = [this.#isLost, this.#isMissing.fill(0)];
    let count = 0;
    for (const at of this.#order) {
      const end = inputs[at + 1] as number;
      for (let input = inputs[at] as number; input < end; input++) {
        let link = links[input] as number;
        const last = links[input + 1] as number;
        while (link < last && (isLost[link] === 1 || isMissing[targets[link] as number] === 1))
          link++;
        if (link < last) continue;
        isMissing[at] = 1;
        this.#missing[count++] = at;
        break;
      }
    }
    return this.#missing.subarray(0, count);
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
  #walk(root: number, leaf: number): void {
    const [open, next, targets] = [this.#open, this.#next, this.#targets];
    const [storedBy, visitedBy] = [this.#storedBy, this.#visitedBy];
    let depth = 0;
    const enter = (at: number): void => {
      visitedBy[at] = leaf;
      if (storedBy[at] !== 0) return;
      storedBy[at] = leaf;
      open[depth] = at;
      next[depth++] = this.#firstLink(at);
    };
    if (visitedBy[root] !== leaf) enter(root);
    while (depth > 0) {
      const at = open[depth - 1] as number;
      const link = next[depth - 1] as number;
      if (link === this.#firstLink(at + 1)) {
        depth--;
        continue;
      }
      next[depth - 1] = link + 1;
      const target = targets[link] as number;
      if (visitedBy[target] !== leaf) enter(target);
      else if (storedBy[target] !== leaf) {
        this.#isLost[link] = 1;
        this.#lost[this.#lostCount++] = link;
      }
    }
  }

  #firstLink(record: number): number {
    return this.#links[this.#inputs[record] as number] as number;
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
