/**
 * Loops among records that came to be when records of several caches became one:
 * a step that changed nothing makes its own output an alternative of its input. No
 * cache with a loop can be imported, so some links have to go.
 */
import type { CacheRecord } from "./cache-types.ts";
import { compareBytes } from "./go-json.ts";

/**
 * Leaves out links so that no record is its own ancestor; what is in no loop keeps
 * all of its links. Records in one loop are ranked by their shortest way from records
 * without inputs, then by digest, and a link from one of them to another stays if it
 * goes to a lower rank. Every input keeps an alternative, and the outcome does not
 * depend on the order of the records.
 *
 * BuildKit breaks the same loops when it adds records one after another, each time
 * at the record that closes the loop.
 *
 * Source: BuildKit cache/remotecache/v1/chains.go (CacheChains.Add, "make sure that
 * none of the deps are children").
 *
 * @param records Each of them can be reached from records without inputs.
 */
export function breakLoops(records: readonly CacheRecord[]): CacheRecord[] {
  const loops = findLoops(records);
  const isLooping = (at: number, link: number): boolean => loops[at] === loops[link];
  const hasLoop = records.some(({ inputs }, at) =>
    inputs.some((input) => input.some(({ link }) => isLooping(at, link))),
  );
  if (!hasLoop) return [...records];
  const distances = rootDistances(records);
  const isLower = (link: number, at: number): boolean => {
    const difference = (distances[link] as number) - (distances[at] as number);
    if (difference !== 0) return difference < 0;
    const [target, record] = [records[link], records[at]];
    return compareBytes(target?.digest ?? "", record?.digest ?? "") < 0;
  };
  return records.map((record, at) => ({
    ...record,
    inputs: record.inputs.map((input) =>
      input.filter(({ link }) => !isLooping(at, link) || isLower(link, at)),
    ),
  }));
}

/**
 * The steps from records without inputs to each record, along the best alternative
 * of each input and the longest of the inputs.
 */
function rootDistances(records: readonly CacheRecord[]): Int32Array {
  const users: { record: number; input: number }[][] = records.map(() => []);
  const waiting = Int32Array.from(records, ({ inputs }) => inputs.length);
  const reached = records.map(({ inputs }) => new Uint8Array(inputs.length));
  records.forEach(({ inputs }, record) => {
    inputs.forEach((alternatives, input) => {
      for (const { link } of alternatives) users[link]?.push({ record, input });
    });
  });
  const distances = new Int32Array(records.length).fill(records.length);
  let level = [...records.keys()].filter((at) => waiting[at] === 0);
  for (let distance = 0; level.length > 0; distance++) {
    for (const at of level) distances[at] = distance;
    const next: number[] = [];
    for (const at of level) {
      for (const { record, input } of users[at] ?? []) {
        const seen = reached[record] as Uint8Array;
        if (seen[input] === 1) continue;
        seen[input] = 1;
        waiting[record]! -= 1;
        if (waiting[record] === 0) next.push(record);
      }
    }
    level = next;
  }
  return distances;
}

/**
 * Numbers records so that two have the same number when each is an ancestor of the
 * other (Tarjan's strongly connected components, without recursion).
 */
function findLoops(records: readonly CacheRecord[]): Int32Array {
  const links = records.map(({ inputs }) =>
    inputs.flatMap((input) => input.map(({ link }) => link)),
  );
  const component = new Int32Array(records.length).fill(-1);
  const entered = new Int32Array(records.length).fill(-1);
  const lowest = new Int32Array(records.length);
  const walked = new Int32Array(records.length);
  const pending: number[] = [];
  const open: number[] = [];
  let time = 0;

  const enter = (at: number): void => {
    entered[at] = lowest[at] = time++;
    pending.push(at);
    open.push(at);
  };
  const lower = (at: number, value: number): void => {
    lowest[at] = Math.min(lowest[at] as number, value);
  };

  for (const start of records.keys()) {
    if (entered[start] !== -1) continue;
    enter(start);
    while (open.length > 0) {
      const at = open.at(-1) as number;
      const link = links[at]?.[walked[at] as number];
      if (link !== undefined) {
        walked[at]! += 1;
        if (entered[link] === -1) enter(link);
        else if (component[link] === -1) lower(at, entered[link] as number);
        continue;
      }
      open.pop();
      const user = open.at(-1);
      if (user !== undefined) lower(user, lowest[at] as number);
      if (lowest[at] !== entered[at]) continue;
      let member: number;
      do {
        member = pending.pop() as number;
        component[member] = at;
      } while (member !== at);
    }
  }
  return component;
}
