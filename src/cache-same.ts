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
import { inputsFirst, joinLists, tidyAfter } from "./cache-records.ts";
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

  // What uniting leaves behind is not to be there beside what is made of the classes.
  tidyAfter(graph.size);
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

/**
 * The alternatives of a class in each input, as numbers. They are those of the moment when
 * they were added: what they link to may have become another class since, and the nodes
 * that it concerns are settled again then, which adds the new ones.
 */
type Alternatives = KeySet[];

/** An alternative that a class did not have before. */
interface NewAlternative {
  input: number;
  alternative: number;
}

/** Puts nodes into classes one after another. */
class ClassBuilder {
  readonly #graph: RecordGraph;
  readonly #classes: DisjointSets;
  readonly #isPlaced: Uint8Array;
  readonly #alternatives = new Map<number, Alternatives>();
  /** The classes of each group that is not crowded. */
  readonly #groups = new Map<number, number[]>();
  readonly #isCrowded: Uint8Array;
  /** For each alternative of each input of a crowded group, nodes of the classes that have it. */
  readonly #holders = new Map<number | string, number[]>();

  constructor(graph: RecordGraph, classes: DisjointSets) {
    this.#graph = graph;
    this.#classes = classes;
    this.#isPlaced = new Uint8Array(graph.size);
    this.#isCrowded = new Uint8Array(graph.size);
  }

  /**
   * Places a node.
   *
   * @param again Takes nodes whose inputs have become the same as others; they are to be settled.
   */
  place(node: number, again: number[]): void {
    this.#isPlaced[node] = 1;
    const own = this.#alternativesOf(node);
    const known = this.#candidates(node, own).find((root) =>
      overlap(own, this.#alternatives.get(root) as Alternatives),
    );
    if (known === undefined) {
      this.#alternatives.set(node, own);
      this.#register(node, own);
      return;
    }
    this.#classes.unite(known, node);
    // Most nodes of caches of one project have nothing new to say.
    this.#resolve(known, this.#add(known, own), again);
  }

  /** Unites the class of a node with every class that it has become the same as. */
  settle(node: number, again: number[]): void {
    const root = this.#classes.find(node);
    this.#resolve(root, this.#add(root, this.#alternativesOf(node)), again);
  }

  /**
   * Unites a class with those that it shares an alternative with in each input, for having
   * new ones: whatever has become the same shares one of those.
   */
  #resolve(start: number, found: NewAlternative[], again: number[]): void {
    let root = start;
    for (let next = found.pop(); next; next = found.pop()) {
      for (const other of this.#withAlternative(root, next)) {
        const absorbed = this.#classes.find(other);
        if (absorbed === root) continue;
        const own = this.#alternatives.get(root) as Alternatives;
        const theirs = this.#alternatives.get(absorbed) as Alternatives;
        if (!overlap(own, theirs)) continue;
        root = this.#unite(root, absorbed, found, again);
      }
    }
  }

  /** Unites two classes; gives the one that is left. */
  #unite(a: number, b: number, found: NewAlternative[], again: number[]): number {
    const { groups, users, userStarts } = this.#graph;
    const [kept, absorbed] = this.#classes.size(a) < this.#classes.size(b) ? [b, a] : [a, b];
    for (const node of this.#classes.each(absorbed)) {
      const end = userStarts[node + 1] as number;
      for (let at = userStarts[node] as number; at < end; at++) {
        const user = users[at] as number;
        if (this.#isPlaced[user] === 1 && groups[user] !== -1) again.push(user);
      }
    }
    const [own, theirs] = [kept, absorbed].map((root) => this.#alternatives.get(root)) as [
      Alternatives,
      Alternatives,
    ];
    this.#alternatives.delete(absorbed);
    this.#classes.unite(kept, absorbed);
    // What is fewer is added to what is more.
    const isMore = sizeOf(own) >= sizeOf(theirs);
    this.#alternatives.set(kept, isMore ? own : theirs);
    for (const each of this.#add(kept, isMore ? theirs : own)) found.push(each);
    const group = groups[a] as number;
    const roots = this.#groups.get(group);
    if (roots)
      this.#groups.set(
        group,
        roots.filter((root) => root !== absorbed),
      );
    return kept;
  }

  /** Makes a new class one of its group. */
  #register(node: number, own: Alternatives): void {
    const group = this.#graph.groups[node] as number;
    if (this.#isCrowded[group] === 1) return this.#index(node, own);
    const roots = this.#groups.get(group);
    if (!roots) this.#groups.set(group, [node]);
    else if (roots.push(node) > CROWDED) {
      this.#isCrowded[group] = 1;
      this.#groups.delete(group);
      for (const root of roots) this.#index(root, this.#alternatives.get(root) as Alternatives);
    }
  }

  #index(node: number, own: Alternatives): void {
    for (const [input, keys] of own.entries())
      for (const alternative of keys.values()) this.#hold(node, { input, alternative });
  }

  #hold(node: number, place: NewAlternative): void {
    const key = this.#key(node, place);
    const holders = this.#holders.get(key);
    if (!holders) this.#holders.set(key, [node]);
    else if (holders.at(-1) !== node) holders.push(node);
  }

  /** Adds alternatives to those of a class; gives the ones that are new to it. */
  #add(root: number, more: Alternatives): NewAlternative[] {
    const own = this.#alternatives.get(root) as Alternatives;
    const isCrowded = this.#isCrowded[this.#graph.groups[root] as number] === 1;
    const found: NewAlternative[] = [];
    for (const [input, keys] of more.entries()) {
      const set = own[input] as KeySet;
      for (const alternative of keys.values()) {
        if (!set.add(alternative)) continue;
        found.push({ input, alternative });
        if (isCrowded) this.#hold(root, { input, alternative });
      }
    }
    return found;
  }

  /** Classes that may be the same as a node: of a crowded group those in the input where the fewest are. */
  #candidates(node: number, own: Alternatives): readonly number[] {
    const group = this.#graph.groups[node] as number;
    if (this.#isCrowded[group] === 0) return this.#groups.get(group) ?? [];
    let rarest = 0;
    let fewest = Infinity;
    for (const [input, keys] of own.entries()) {
      let count = 0;
      for (const alternative of keys.values())
        count += this.#holders.get(this.#key(node, { input, alternative }))?.length ?? 0;
      if (count < fewest) [rarest, fewest] = [input, count];
    }
    const candidates = new Set<number>();
    for (const alternative of own[rarest]?.values() ?? [])
      for (const root of this.#withAlternative(node, { input: rarest, alternative }))
        candidates.add(root);
    return [...candidates];
  }

  /** The classes of a node's group that have an alternative. */
  #withAlternative(node: number, place: NewAlternative): readonly number[] {
    const group = this.#graph.groups[node] as number;
    if (this.#isCrowded[group] === 0) {
      return (this.#groups.get(group) ?? []).filter((root) =>
        this.#alternatives.get(root)?.[place.input]?.has(place.alternative),
      );
    }
    const key = this.#key(node, place);
    const holders = this.#holders.get(key);
    if (!holders) return [];
    const roots = [...new Set(holders.map((holder) => this.#classes.find(holder)))];
    if (roots.length < holders.length) this.#holders.set(key, roots);
    return roots;
  }

  #key(node: number, { input, alternative }: NewAlternative): number | string {
    const { size, selectorCount, groups, inputStarts } = this.#graph;
    const place = (inputStarts[groups[node] as number] as number) + input;
    const key = place * size * selectorCount + alternative;
    return Number.isSafeInteger(key) ? key : `${place} ${alternative}`;
  }

  /** The alternatives of a node as numbers, one for each selector of each class. */
  #alternativesOf(node: number): Alternatives {
    const { inputStarts, linkStarts, links, selectors, selectorCount } = this.#graph;
    const start = inputStarts[node] as number;
    const count = (inputStarts[node + 1] as number) - start;
    return Array.from({ length: count }, (_input, i) => {
      const keys = new KeySet();
      const end = linkStarts[start + i + 1] as number;
      for (let at = linkStarts[start + i] as number; at < end; at++) {
        const root = this.#classes.find(links[at] as number);
        keys.add(root * selectorCount + (selectors[at] as number));
      }
      return keys;
    });
  }
}

/** Tells whether there is a common alternative in each input. */
function overlap(a: Alternatives, b: Alternatives): boolean {
  return a.every((keys, input) => keys.meets(b[input] as KeySet));
}

function sizeOf(alternatives: Alternatives): number {
  return alternatives.reduce((sum, { size }) => sum + size, 0);
}

/** A list of numbers up to this length is searched from end to end. */
const SHORT = 8;

/** A set of numbers, of which most are small. */
class KeySet {
  readonly #list: number[] = [];
  #set: Set<number> | undefined;

  get size(): number {
    return this.#list.length;
  }

  has(key: number): boolean {
    return this.#set ? this.#set.has(key) : this.#list.includes(key);
  }

  /** Adds a number; gives false when it is there already. */
  add(key: number): boolean {
    if (this.has(key)) return false;
    this.#list.push(key);
    if (this.#set) this.#set.add(key);
    else if (this.#list.length > SHORT) this.#set = new Set(this.#list);
    return true;
  }

  values(): readonly number[] {
    return this.#list;
  }

  meets(other: KeySet): boolean {
    const [few, many] = this.size < other.size ? [this, other] : [other, this];
    return few.#list.some((key) => many.has(key));
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
