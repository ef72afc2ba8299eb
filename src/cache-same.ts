/**
 * Which records of several caches are one and the same to BuildKit.
 *
 * A record's key is its digest together with its inputs, and each input is a set of
 * alternatives: other keys that are known to have the same content. So two records
 * with one digest are the same as soon as they share an alternative in every input,
 * and BuildKit makes one of them when it adds the second (the alternatives unite).
 * Two records that have become one can make records above them the same, and so on:
 * the classes here are the smallest ones that are closed under that rule. They do
 * not depend on the order of the caches, as BuildKit's own result does.
 *
 * Records with one digest and another number of inputs are kept apart.
 *
 * Source: BuildKit cache/remotecache/v1/chains.go (CacheChains.Add).
 */
import type { CacheRecord } from "./cache-types.ts";
import { inputsFirst, joinLists } from "./cache-records.ts";
import type { RecordGraph } from "./cache-records.ts";

/** Records put into classes. */
export interface RecordClasses {
  /** How many classes there are; they are numbered from 0 in the order of their first record. */
  count: number;
  /** For each list of records, the class of each record. */
  classes: Int32Array[];
}

/**
 * Puts the records of several caches into classes of what BuildKit takes for the
 * same record.
 *
 * @param lists The records of each cache, without loops and broken links.
 */
export function uniteRecords(lists: readonly (readonly CacheRecord[])[]): RecordClasses {
  const graph = joinLists(lists);
  const classes = new DisjointSets(graph.size);
  uniteNodes(graph, classes);

  const numbers = new Map<number, number>();
  let node = 0;
  const numbered = lists.map((records) =>
    Int32Array.from(records, () => {
      const root = classes.find(node++);
      let number = numbers.get(root);
      if (number === undefined) numbers.set(root, (number = numbers.size));
      return number;
    }),
  );
  return { count: numbers.size, classes: numbered };
}

/** Unites all nodes that are the same. */
function uniteNodes(graph: RecordGraph, classes: DisjointSets): void {
  const { groups } = graph;
  const builder = new ClassBuilder(graph, classes);
  const again: number[] = [];
  for (const node of inputsFirst(graph)) {
    if (groups[node] === -1) continue;
    builder.place(node, again);
    for (let user = again.pop(); user !== undefined; user = again.pop())
      builder.settle(user, again);
  }
}

/** A group with more classes than this gets an index of their alternatives. */
const CROWDED = 16;

/** Puts nodes into classes one after another. */
class ClassBuilder {
  readonly #graph: RecordGraph;
  readonly #classes: DisjointSets;
  readonly #isPlaced: Uint8Array;
  /** For each class, nodes that have all of its alternatives together. */
  readonly #members = new Map<number, number[]>();
  /** The classes of each group that is not crowded. */
  readonly #groups = new Map<number, number[]>();
  readonly #index: AlternativeIndex;
  readonly #isCrowded: Uint8Array;

  constructor(graph: RecordGraph, classes: DisjointSets) {
    this.#graph = graph;
    this.#classes = classes;
    this.#isPlaced = new Uint8Array(graph.size);
    this.#isCrowded = new Uint8Array(graph.size);
    this.#index = new AlternativeIndex(graph, classes);
  }

  /**
   * Places a node.
   *
   * @param again Takes nodes whose inputs have become the same as others; they are to be settled.
   */
  place(node: number, again: number[]): void {
    this.#isPlaced[node] = 1;
    // Most nodes of caches of one project have nothing new to say.
    const candidates = this.#candidates(node, [node]);
    for (const known of candidates) {
      if (this.#membersOf(known).some((other) => this.#covers(other, node))) {
        this.#classes.unite(known, node);
        return;
      }
    }
    this.#members.set(node, [node]);
    this.#register(node);
    this.#settle(node, candidates, again);
  }

  /** Unites the class of a node with every class that shares an alternative in each input. */
  settle(node: number, again: number[]): void {
    const members = this.#membersOf(this.#classes.find(node));
    this.#settle(node, this.#candidates(node, members), again);
  }

  #settle(node: number, candidates: readonly number[], again: number[]): void {
    const group = this.#graph.groups[node] as number;
    if (this.#isCrowded[group] === 1) this.#index.add(node);
    for (let others = candidates; ;) {
      const own = this.#classes.find(node);
      const members = this.#membersOf(own);
      const same = others.find((other) => other !== own && this.#overlap(members, other));
      if (same === undefined) return;
      this.#unite(own, same, again);
      others = this.#candidates(node, this.#membersOf(this.#classes.find(node)));
    }
  }

  #unite(a: number, b: number, again: number[]): void {
    const { groups, users, userStarts } = this.#graph;
    const [kept, absorbed] = this.#classes.size(a) < this.#classes.size(b) ? [b, a] : [a, b];
    for (const node of this.#classes.each(absorbed)) {
      const end = userStarts[node + 1] as number;
      for (let at = userStarts[node] as number; at < end; at++) {
        const user = users[at] as number;
        if (this.#isPlaced[user] === 1 && groups[user] !== -1) again.push(user);
      }
    }
    const members = this.#membersOf(kept);
    for (const member of this.#membersOf(absorbed)) members.push(member);
    this.#members.delete(absorbed);
    this.#classes.unite(kept, absorbed);
    const group = groups[a] as number;
    const roots = this.#groups.get(group);
    if (roots)
      this.#groups.set(
        group,
        roots.filter((root) => root !== absorbed),
      );
  }

  /** Makes a new class one of its group. */
  #register(node: number): void {
    const group = this.#graph.groups[node] as number;
    if (this.#isCrowded[group] === 1) return;
    const roots = this.#groups.get(group);
    if (!roots) this.#groups.set(group, [node]);
    else if (roots.push(node) > CROWDED) {
      this.#isCrowded[group] = 1;
      this.#groups.delete(group);
      for (const root of roots) for (const member of this.#membersOf(root)) this.#index.add(member);
    }
  }

  #membersOf(root: number): number[] {
    return this.#members.get(root) as number[];
  }

  /** Classes that may be the same as some nodes of one class or of none. */
  #candidates(node: number, members: readonly number[]): readonly number[] {
    const group = this.#graph.groups[node] as number;
    return this.#isCrowded[group] === 1
      ? this.#index.search(members)
      : (this.#groups.get(group) ?? []);
  }

  /** Tells whether some nodes and a class share an alternative in each input. */
  #overlap(nodes: readonly number[], root: number): boolean {
    const { inputStarts } = this.#graph;
    const [first] = nodes as [number];
    const count = (inputStarts[first + 1] as number) - (inputStarts[first] as number);
    const others = this.#membersOf(root);
    for (let input = 0; input < count; input++) {
      const isShared = nodes.some((node) =>
        others.some((other) => this.#countShared(node, other, input) > 0),
      );
      if (!isShared) return false;
    }
    return true;
  }

  /** Tells whether a node has every alternative of another one. */
  #covers(node: number, other: number): boolean {
    const { inputStarts, linkStarts } = this.#graph;
    const start = inputStarts[other] as number;
    const end = inputStarts[other + 1] as number;
    for (let input = start; input < end; input++) {
      const count = (linkStarts[input + 1] as number) - (linkStarts[input] as number);
      if (this.#countShared(other, node, input - start) < count) return false;
    }
    return true;
  }

  /** How many alternatives of one node's input another node has in the same input. */
  #countShared(node: number, other: number, input: number): number {
    const { inputStarts, linkStarts, links, selectors } = this.#graph;
    const classes = this.#classes;
    const own = (inputStarts[node] as number) + input;
    const theirs = (inputStarts[other] as number) + input;
    const start = linkStarts[own] as number;
    const end = linkStarts[own + 1] as number;
    const otherStart = linkStarts[theirs] as number;
    const otherEnd = linkStarts[theirs + 1] as number;
    if ((end - start) * (otherEnd - otherStart) > 256) {
      const keys = new Set(alternatives(this.#graph, classes, theirs));
      return alternatives(this.#graph, classes, own).filter((key) => keys.has(key)).length;
    }
    let count = 0;
    for (let at = start; at < end; at++) {
      const root = classes.find(links[at] as number);
      for (let to = otherStart; to < otherEnd; to++) {
        if (selectors[to] !== selectors[at]) continue;
        if (classes.find(links[to] as number) !== root) continue;
        count++;
        break;
      }
    }
    return count;
  }
}

/** The alternatives of an input as numbers, one for each selector of each class. */
function alternatives(
  { linkStarts, links, selectors, selectorCount }: RecordGraph,
  classes: DisjointSets,
  input: number,
): number[] {
  const numbers: number[] = [];
  const end = linkStarts[input + 1] as number;
  for (let at = linkStarts[input] as number; at < end; at++)
    numbers.push(classes.find(links[at] as number) * selectorCount + (selectors[at] as number));
  return numbers;
}

/** Finds the classes of a large group by the alternatives of their inputs. */
class AlternativeIndex {
  readonly #graph: RecordGraph;
  readonly #classes: DisjointSets;
  /** For each alternative of each input of a group, the nodes that have it. */
  readonly #holders = new Map<number | string, number[]>();

  constructor(graph: RecordGraph, classes: DisjointSets) {
    this.#graph = graph;
    this.#classes = classes;
  }

  /** Adds a node as it is now; what it links to may become another class. */
  add(node: number): void {
    for (const keys of this.#keys(node)) {
      for (const key of keys) {
        const holders = this.#holders.get(key);
        if (!holders) this.#holders.set(key, [node]);
        else if (holders.at(-1) !== node) holders.push(node);
      }
    }
  }

  /** The classes that share an alternative with some nodes in the input where the fewest do. */
  search(nodes: readonly number[]): number[] {
    const keys = nodes.map((node) => this.#keys(node));
    let fewest: (number | string)[] = [];
    let fewestCount = Infinity;
    for (const input of keys[0]?.keys() ?? []) {
      const all = keys.flatMap((inputs) => inputs[input] ?? []);
      let count = 0;
      for (const key of all) count += this.#holders.get(key)?.length ?? 0;
      if (count < fewestCount) [fewest, fewestCount] = [all, count];
    }
    const found = new Set<number>();
    for (const key of fewest) {
      const holders = this.#holders.get(key);
      if (!holders) continue;
      const roots = new Set(holders.map((node) => this.#classes.find(node)));
      if (roots.size < holders.length) this.#holders.set(key, [...roots]);
      for (const root of roots) found.add(root);
    }
    return [...found];
  }

  /** A key for each alternative of each input of a node. */
  #keys(node: number): (number | string)[][] {
    const { size, selectorCount, groups, inputStarts } = this.#graph;
    const start = inputStarts[node] as number;
    const count = (inputStarts[node + 1] as number) - start;
    const first = inputStarts[groups[node] as number] as number;
    return Array.from({ length: count }, (_input, i) =>
      alternatives(this.#graph, this.#classes, start + i).map((alternative) => {
        const key = (first + i) * size * selectorCount + alternative;
        return Number.isSafeInteger(key) ? key : `${first + i} ${alternative}`;
      }),
    );
  }
}

/** Disjoint sets of numbers, each known by one of its members. */
class DisjointSets {
  readonly #parents: Int32Array;
  readonly #sizes: Int32Array;
  /** The members of a set in a ring. */
  readonly #next: Int32Array;

  constructor(size: number) {
    this.#parents = Int32Array.from({ length: size }, (_item, at) => at);
    this.#sizes = new Int32Array(size).fill(1);
    this.#next = this.#parents.slice();
  }

  /** The member by which the set that a number is in is known. */
  find(at: number): number {
    const parents = this.#parents;
    let root = at;
    while (parents[root] !== root) {
      const parent = parents[root] as number;
      parents[root] = parents[parent] as number;
      root = parent;
    }
    return root;
  }

  /** How many members a set has. */
  size(root: number): number {
    return this.#sizes[root] as number;
  }

  /** All members of a set. */
  *each(root: number): Generator<number> {
    let at = root;
    do {
      yield at;
      at = this.#next[at] as number;
    } while (at !== root);
  }

  /** Makes one set of two, given by the members that they are known by, known as the first. */
  unite(kept: number, absorbed: number): void {
    this.#parents[absorbed] = kept;
    this.#sizes[kept]! += this.#sizes[absorbed] as number;
    const next = this.#next[kept] as number;
    this.#next[kept] = this.#next[absorbed] as number;
    this.#next[absorbed] = next;
  }
}
