import { describe, expect, test } from "bun:test";
import { mapLimit } from "../src/concurrency.ts";

/** Items that each wait for their turn to be ended by the test. */
class Items {
  readonly running: number[] = [];
  readonly #ends = new Map<number, (error?: Error) => void>();
  readonly #leaves = new Map<number, () => void>();

  readonly run = (_: string, index: number, leave: () => void): Promise<number> => {
    this.running.push(index);
    this.#leaves.set(index, leave);
    return new Promise((resolve, reject) => {
      this.#ends.set(index, (error) => (error ? reject(error) : resolve(index * 10)));
    });
  };

  async end(index: number, error?: Error): Promise<void> {
    this.#ends.get(index)?.(error);
    await settled();
  }

  async leave(index: number): Promise<void> {
    this.#leaves.get(index)?.();
    await settled();
  }
}

/** Lets everything run that waits for nothing but its turn. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const NAMES = ["a", "b", "c", "d", "e", "f", "g"];

describe("mapLimit", () => {
  test("runs no more than the limit, in order, and gives results in the items' order", async () => {
    const items = new Items();
    const results = mapLimit(NAMES.slice(0, 4), 2, items.run);
    await settled();
    expect(items.running).toEqual([0, 1]);
    await items.end(1);
    expect(items.running).toEqual([0, 1, 2]);
    await items.end(2);
    await items.end(0);
    await items.end(3);
    expect(await results).toEqual([0, 10, 20, 30]);
  });

  test("lets the next one begin when one has left, but no more than twice the limit are unfinished", async () => {
    const items = new Items();
    const results = mapLimit(NAMES, 2, items.run);
    await settled();
    for (const index of [0, 1, 2, 3]) await items.leave(index);
    expect(items.running).toEqual([0, 1, 2, 3]);
    await items.end(2);
    expect(items.running).toEqual([0, 1, 2, 3, 4]);
    await items.end(3);
    expect(items.running).toEqual([0, 1, 2, 3, 4, 5]);
    await items.end(0);
    expect(items.running).toEqual([0, 1, 2, 3, 4, 5]);
    for (const index of [1, 4, 5, 6]) await items.end(index);
    expect(await results).toEqual([0, 10, 20, 30, 40, 50, 60]);
  });

  test("leaving twice gives one place", async () => {
    const items = new Items();
    const results = mapLimit(NAMES.slice(0, 4), 1, items.run);
    await settled();
    await items.leave(0);
    await items.leave(0);
    expect(items.running).toEqual([0, 1]);
    for (const index of [0, 1, 2, 3]) await items.end(index);
    await results;
  });

  test("starts nothing after a failure, waits for what runs, and throws the first", async () => {
    const items = new Items();
    const results = mapLimit(NAMES, 2, items.run);
    results.catch(() => {});
    await settled();
    await items.leave(0);
    expect(items.running).toEqual([0, 1, 2]);
    await items.end(0, new Error("first"));
    await items.leave(1);
    await items.end(1, new Error("second"));
    expect(items.running).toEqual([0, 1, 2]);
    await items.end(2);
    expect(results).rejects.toThrow("first");
  });

  test("of nothing gives nothing", async () => {
    expect(await mapLimit([], 3, async () => 1)).toEqual([]);
  });
});
