/** The records of several caches and their links as one graph. */
import type { CacheRecord } from "./cache-types.ts";

/**
 * The records of all lists as nodes, numbered on from list to list. Large caches
 * have some hundred thousand links, so they lie in flat arrays: those of one input
 * stand from `linkStarts[input]` up to the next start.
 */
export interface RecordGraph {
  /** How many nodes there are. */
  size: number;
  /** For each node, its first input. */
  inputStarts: Int32Array;
  /** For each input, its first link. */
  linkStarts: Int32Array;
  /** For each link, the node that it goes to. */
  links: Int32Array;
  /** For each link, a number that stands for its selector. */
  selectors: Int32Array;
  /** How many numbers stand for selectors. */
  selectorCount: number;
  /** For each node, the first one of its digest and number of inputs; -1 where there is no other. */
  groups: Int32Array;
  /** For each node, its first user. */
  userStarts: Int32Array;
  /** Nodes that link to a node. */
  users: Int32Array;
}

/** Records from which on memory counts. */
const MANY_RECORDS = 10_000;

/**
 * Gives back what a step of work on large caches has left behind: it is not to be there
 * beside what the next step makes. The runtime would wait until there is twice as much.
 *
 * @param count Records that the step was about.
 */
export function tidyAfter(count: number): void {
  if (count > MANY_RECORDS) Bun.gc(true);
}

/**
 * Makes a graph of the records of several caches.
 *
 * @param lists The records of each cache, without loops and broken links.
 */
export function joinLists(lists: readonly (readonly CacheRecord[])[]): RecordGraph {
  const { size, inputCount, linkCount } = measure(lists);
  const inputStarts = new Int32Array(size + 1);
  const linkStarts = new Int32Array(inputCount + 1);
  const links = new Int32Array(linkCount);
  const selectors = new Int32Array(linkCount);
  const groups = new Int32Array(size);
  const selectorNumbers = new Map<string, number>();
  /** For each number of inputs, the first node of a digest. */
  const firstNodes: Map<string, number>[] = [];
  let node = 0;
  let input = 0;
  let at = 0;
  for (const records of lists) {
    const offset = node;
    for (const { digest, inputs } of records) {
      const known = (firstNodes[inputs.length] ??= new Map<string, number>());
      const first = known.get(digest);
      if (first === undefined) known.set(digest, node);
      else groups[first] = first;
      groups[node] = first ?? -1;
      for (const alternatives of inputs) {
        for (const { selector, link } of alternatives) {
          let number = selectorNumbers.get(selector);
          if (number === undefined) selectorNumbers.set(selector, (number = selectorNumbers.size));
          selectors[at] = number;
          links[at++] = link + offset;
        }
        linkStarts[++input] = at;
      }
      inputStarts[++node] = input;
    }
  }
  const selectorCount = selectorNumbers.size;
  const graph = { size, inputStarts, linkStarts, links, selectors, selectorCount, groups };
  return { ...graph, ...findUsers(graph) };
}

/** How many records, inputs and links there are. */
function measure(lists: readonly (readonly CacheRecord[])[]) {
  let size = 0;
  let inputCount = 0;
  let linkCount = 0;
  for (const records of lists) {
    size += records.length;
    for (const { inputs } of records) {
      inputCount += inputs.length;
      for (const alternatives of inputs) linkCount += alternatives.length;
    }
  }
  return { size, inputCount, linkCount };
}

/** Turns the links of a graph round. */
function findUsers({
  size,
  inputStarts,
  linkStarts,
  links,
}: Omit<RecordGraph, "users" | "userStarts">): Pick<RecordGraph, "users" | "userStarts"> {
  const userStarts = new Int32Array(size + 1);
  for (const link of links) userStarts[link + 1]! += 1;
  for (let node = 0; node < size; node++) userStarts[node + 1]! += userStarts[node] as number;
  const users = new Int32Array(links.length);
  const filled = userStarts.slice();
  for (let node = 0; node < size; node++) {
    const end = linkStarts[inputStarts[node + 1] as number] as number;
    let at = linkStarts[inputStarts[node] as number] as number;
    for (; at < end; at++) users[filled[links[at] as number]!++] = node;
  }
  return { users, userStarts };
}

/** For each record, those that link to it, one for each link: `users` from `userStarts` on. */
export function usersOf(
  records: readonly CacheRecord[],
): Pick<RecordGraph, "users" | "userStarts"> {
  const userStarts = new Int32Array(records.length + 1);
  for (const { inputs } of records)
    for (const alternatives of inputs)
      for (const { link } of alternatives) userStarts[link + 1]! += 1;
  for (let at = 0; at < records.length; at++) userStarts[at + 1]! += userStarts[at] as number;
  const users = new Int32Array(userStarts[records.length] as number);
  const filled = userStarts.slice();
  for (const [at, { inputs }] of records.entries())
    for (const alternatives of inputs)
      for (const { link } of alternatives) users[filled[link]!++] = at;
  return { users, userStarts };
}

/**
 * All nodes, each after those that it links to and no later than it must be: when
 * a node's turn comes, what it links to is united as a rule, in all lists.
 */
export function inputsFirst(graph: RecordGraph): Int32Array {
  const { size, inputStarts, linkStarts, users, userStarts } = graph;
  const waiting = new Int32Array(size);
  const order = new Int32Array(size);
  let found = 0;
  for (let node = 0; node < size; node++) {
    const start = linkStarts[inputStarts[node] as number] as number;
    const end = linkStarts[inputStarts[node + 1] as number] as number;
    waiting[node] = end - start;
    if (start === end) order[found++] = node;
  }
  for (let next = 0; next < found; next++) {
    const node = order[next] as number;
    const end = userStarts[node + 1] as number;
    for (let at = userStarts[node] as number; at < end; at++) {
      const user = users[at] as number;
      waiting[user]! -= 1;
      if (waiting[user] === 0) order[found++] = user;
    }
  }
  return order;
}
