import { describe, expect, test } from "bun:test";
import type { CacheRecord } from "../src/cache-types.ts";
import { uniteRecords } from "../src/cache-same.ts";
import { random } from "./helpers/generated-cache.ts";

/** A record with these links in each input. */
const record = (digest: string, ...inputs: number[][]): CacheRecord => ({
  digest,
  results: [],
  chains: [],
  inputs: inputs.map((links) => links.map((link) => ({ selector: "", link }))),
});

/** The rule as it is written, at whatever cost: unite any two that fit until none do. */
function slowClasses(lists: CacheRecord[][]): number[][] {
  const nodes = lists.flatMap((records, list) =>
    records.map(({ digest, inputs }) => ({ digest, inputs, list })),
  );
  const offsets = lists.map((_, list) =>
    lists.slice(0, list).reduce((sum, { length }) => sum + length, 0),
  );
  const classes = nodes.map((_, at) => at);
  const alternatives = (own: number, input: number): Set<string> =>
    new Set(
      nodes.flatMap(({ inputs, list }, at) =>
        classes[at] === own
          ? inputs[input]!.map(
              ({ selector, link }) => `${classes[link + offsets[list]!]} ${selector}`,
            )
          : [],
      ),
    );
  for (let changed = true; changed;) {
    changed = false;
    nodes.forEach((a, i) =>
      nodes.forEach((b, j) => {
        const [own, other] = [classes[i]!, classes[j]!];
        if (own === other || a.digest !== b.digest) return;
        if (a.inputs.length !== b.inputs.length) return;
        const fits = a.inputs.every(
          (_, input) => !alternatives(own, input).isDisjointFrom(alternatives(other, input)),
        );
        if (!fits) return;
        classes.forEach((number, at) => {
          if (number === other) classes[at] = own;
        });
        changed = true;
      }),
    );
  }
  const numbers = new Map<number, number>();
  return lists.map((records, list) =>
    records.map((_, at) => {
      const root = classes[at + offsets[list]!]!;
      if (!numbers.has(root)) numbers.set(root, numbers.size);
      return numbers.get(root)!;
    }),
  );
}

/** Records that link to the ones before them, in an order of their own. */
function randomRecords(next: () => number, size: number): CacheRecord[] {
  const pick = (count: number): number => Math.floor(next() * count);
  const [digests, most, selectors, reach] = [1 + pick(3), 1 + pick(4), 1 + pick(3), 1 + pick(40)];
  const records = Array.from({ length: size }, (_, at): CacheRecord => {
    const isRoot = at < 3 || next() < 0.2;
    const inputs = Array.from({ length: isRoot ? 0 : 1 + pick(2) }, () =>
      Array.from({ length: 1 + pick(most) }, () => ({
        selector: String(pick(selectors)),
        link: Math.max(0, at - 1 - pick(reach)),
      })),
    );
    const digest = isRoot ? `root ${pick(20)}` : `step ${pick(digests)}`;
    return { digest, results: [], chains: [], inputs };
  });
  const order = records.map((_, at) => at).toSorted(() => next() - 0.5);
  const places = new Map(order.map((at, place) => [at, place]));
  return order.map((at) => ({
    ...records[at]!,
    inputs: records[at]!.inputs.map((input) =>
      input.map(({ selector, link }) => ({
        selector,
        link: places.get(link)!,
      })),
    ),
  }));
}

describe("uniteRecords", () => {
  test("does what the rule says for random records", () => {
    for (let seed = 0; seed < 150; seed++) {
      const next = random(seed);
      const lists = Array.from({ length: 1 + (seed % 3) }, () =>
        randomRecords(next, 2 + Math.floor(next() * 20)),
      );
      const { classes } = uniteRecords(lists);
      expect(classes.map((numbers) => [...numbers])).toEqual(slowClasses(lists));
    }
  });

  test("does so too where one step was built on very many inputs", () => {
    for (let seed = 0; seed < 6; seed++) {
      const next = random(seed);
      const roots = Array.from({ length: 40 }, (_, at) => record(`root ${at}`));
      const pick = (): number => Math.floor(next() * 40);
      const steps = Array.from({ length: 45 }, (_, at) =>
        at % 2 === 0
          ? record("step", [pick()], [pick(), pick()])
          : record("step", [pick(), pick()]),
      );
      const lists = [[...roots, ...steps], roots.concat(steps.toReversed())];
      const { classes } = uniteRecords(lists);
      expect(classes.map((numbers) => [...numbers])).toEqual(slowClasses(lists));
    }
  });

  test("unites what a later record shows to be the same, and what is above it", () => {
    const records = [
      record("a"),
      record("b"),
      record("step", [0]),
      record("step", [1]),
      record("above", [2]),
      record("above", [3]),
      record("step", [0, 1]),
    ];
    const [classes] = uniteRecords([records]).classes;
    expect([...classes!]).toEqual([0, 1, 2, 2, 3, 3, 2]);
    // Without the one that has both, nothing shows it.
    expect(uniteRecords([records.slice(0, 6)]).count).toBe(6);
  });

  test("unites 20,000 records of one step one after another", () => {
    const count = 20_000;
    const root = record("base");
    const contents = Array.from({ length: count }, (_, at) => record(`content ${at}`));
    // Each shares the base with all others, and a content with the next one.
    const steps = contents.map((_, at) => record("step", [0], [1 + at, 1 + ((at + 1) % count)]));
    const above = steps.map((_, at) => record("above", [1 + count + at]));
    const { count: classes, classes: numbers } = uniteRecords([
      [root, ...contents, ...steps, ...above],
      [root, ...contents, ...steps.toReversed()],
    ]);
    expect(classes).toBe(1 + count + 2);
    expect(new Set(numbers[0]?.subarray(1 + count)).size).toBe(2);
  });

  test("keeps 20,000 records of one step on one base apart", () => {
    const count = 20_000;
    const contents = Array.from({ length: count }, (_, at) => record(`content ${at}`));
    const steps = contents.map((_, at) => record("step", [0], [1 + at]));
    const list = [record("base"), ...contents, ...steps];
    expect(uniteRecords([list, list]).count).toBe(list.length);
  });

  test("compares long lists of alternatives", () => {
    const roots = Array.from({ length: 300 }, (_, at) => record(`root ${at}`));
    const some = (start: number): number[] => Array.from({ length: 100 }, (_, at) => start + at);
    const lists = [
      [...roots, record("step", some(0))],
      [...roots, record("step", some(99))],
      [...roots, record("step", some(200))],
    ];
    const { classes } = uniteRecords(lists);
    expect(classes.map((numbers) => numbers[300])).toEqual([300, 300, 301]);
  });

  test("keeps one digest with another number of inputs or another selector apart", () => {
    const lists = [
      [record("a"), record("step", [0]), record("step", [0], [0])],
      [
        record("a"),
        {
          ...record("step"),
          inputs: [[{ selector: "x", link: 0 }]],
        },
      ],
    ];
    const { count, classes } = uniteRecords(lists);
    expect(count).toBe(4);
    expect(classes.map((numbers) => [...numbers])).toEqual([
      [0, 1, 2],
      [0, 3],
    ]);
  });

  test("joins twenty caches with twenty thousand records in all in a moment", () => {
    const records = [record("root")];
    for (let at = 1; at < 1000; at++) records.push(record(`s${at}`, [at - 1]));
    const lists = Array.from({ length: 20 }, () => records);
    expect(uniteRecords(lists).count).toBe(1000);
  });
});
