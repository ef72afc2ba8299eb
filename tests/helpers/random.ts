/** Random choices that are the same in every run. */

/** A source of random choices. */
export interface Random {
  /** A whole number from 0 up to, not including, the limit. */
  below(limit: number): number;
  /** One of several values. */
  pick<T>(values: readonly T[] | string): T;
  /** Several texts, from `min` to `max` of them, one after the other. */
  many(min: number, max: number, make: () => string): string;
}

/** Starts a sequence (mulberry32). */
export function random(seed: number): Random {
  let state = seed;
  const below = (limit: number): number => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
  return {
    below,
    pick: (values) => values[below(values.length)] as never,
    many: (min, max, make) => Array.from({ length: min + below(max - min + 1) }, make).join(""),
  };
}
