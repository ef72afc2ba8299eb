import { describe, expect, test } from "bun:test";
import { encodeCacheConfig, parseCacheConfig } from "../src/cache-config.ts";
import { readPlainConfig } from "../src/cache-plain.ts";
import type { CacheConfig } from "../src/cache-types.ts";
import type { Digest } from "../src/digest.ts";
import { outcomeOf } from "./helpers/errors.ts";
import { CACHE_FIXTURES, fixtureCaches } from "./helpers/fixture-caches.ts";
import { generateCache, random } from "./helpers/generated-cache.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;
const TIME = "2026-01-01T00:00:00Z";
const isTime = (text: string): boolean => /^\d{4}-.*Z$/.test(text);

const parse = (value: unknown) =>
  parseCacheConfig(new TextEncoder().encode(JSON.stringify(value)), "it");

/** The same through the schema: a field that is spelled in another way sends it there. */
const parseBySchema = (value: object) => parse({ ...value, OTHER: 1 });

describe("the short way to read a cache config", () => {
  test.each(fixtureCaches(...CACHE_FIXTURES).map((cache) => [cache.name, cache] as const))(
    "is taken for what BuildKit writes: %s",
    (_name, { configBytes }) => {
      const value = JSON.parse(new TextDecoder().decode(configBytes));
      const plain = readPlainConfig(configBytes, isTime);
      expect(plain).toBeDefined();
      expect(plain).toEqual(parseBySchema(value));
      expect(encodeCacheConfig(plain!)).toEqual(new Uint8Array(configBytes));
    },
  );

  test("gives what the schema gives for generated configs", () => {
    for (const seed of [1, 2, 3]) {
      const bytes = encodeCacheConfig(generateCache(seed, 200).config);
      const value = JSON.parse(new TextDecoder().decode(bytes));
      expect(readPlainConfig(bytes, isTime)).toEqual(parseBySchema(value));
    }
  });

  test("agrees with the schema on anything else: values, and errors by their words", async () => {
    const next = random(11);
    const pick = <T>(items: readonly T[]): T => items[Math.floor(next() * items.length)] as T;
    const ODD = [
      undefined,
      null,
      0,
      -1,
      1.5,
      2 ** 53,
      "",
      "x",
      "0",
      true,
      [],
      {},
      [null],
      DIGEST,
      TIME,
      "2026-01-01",
      "2026-01-01T00:00:00.5+02:00",
    ];
    const maybe = (value: unknown): unknown => (next() < 0.04 ? pick(ODD) : value);
    const some = (make: () => unknown): unknown =>
      maybe(Array.from({ length: Math.floor(next() * 3) }, () => maybe(make())));
    const named = (object: object): object =>
      Object.fromEntries(
        Object.entries(object).flatMap(([key, value]) =>
          next() < 0.03
            ? [[pick([key.toUpperCase(), "other", `${key} `]), value]]
            : [[key, maybe(value)]],
        ),
      );
    let refused = 0;
    for (let round = 0; round < 3000; round++) {
      const config = named({
        layers: some(() => named({ blob: DIGEST, parent: pick([-1, 0, 1]) })),
        records: some(() =>
          named({
            layers: some(() => named({ layer: 0, createdAt: TIME })),
            chains: some(() => named({ layers: [0, 1], createdAt: TIME })),
            digest: DIGEST,
            inputs: some(() => some(() => named({ selector: "s", link: 1 }))),
          }),
        ),
      });
      const expected = await outcomeOf(() => parseBySchema(config));
      expect(await outcomeOf(() => parse(config))).toEqual(expected);
      if (typeof expected === "string") refused++;
    }
    expect(refused).toBeGreaterThan(500);
    expect(refused).toBeLessThan(2500);
  });

  test.each([
    [[]],
    [null],
    [{ layers: {} }],
    [{ Layers: [] }],
    [{ layers: [{ blob: DIGEST, annotations: { createdAt: TIME } }] }],
    [{ layers: [{ blob: "x" }] }],
    [{ records: [{ layers: [{ layer: 0 }] }] }],
    [{ records: [{ inputs: [null] }] }],
    [{ records: [{ chains: [{ layers: ["0"], createdAt: TIME }] }] }],
  ])("is not taken for %j", (value) => {
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    expect(readPlainConfig(bytes, isTime)).toBeUndefined();
  });
});

describe("the bytes of a cache config", () => {
  const TEXTS = [
    "",
    DIGEST,
    TIME,
    "random:x",
    'a "quoted" \\ one',
    "<a>&b",
    "tab\tand\nline\u0000\u001f\u007f",
    "\u00e9\u2028\u2029\u{1f600}",
    "lone \ud800 half",
    "\udc00",
  ];
  const NUMBERS = [0, -1, 1, 9, 10, 99, 100, 12_345, -10, 2 ** 31, 2 ** 53 - 1];

  /** The same in Go's order, by the runtime's own encoder. */
  function asGo({ layers, records }: CacheConfig): string {
    const some = <T>(items: T[]): T[] | undefined => (items.length > 0 ? items : undefined);
    const value = {
      layers: some(
        layers.map(({ blob, parent, annotations }) => ({
          blob,
          parent: parent === 0 ? undefined : parent,
          annotations: annotations && {
            mediaType: annotations.mediaType || undefined,
            diffID: annotations.diffID || undefined,
            size: annotations.size || undefined,
            createdAt: annotations.createdAt,
          },
        })),
      ),
      records: some(
        records.map(({ results, chains, digest, inputs }) => ({
          layers: some(results.map(({ layer, createdAt }) => ({ layer, createdAt }))),
          chains: some(
            chains.map((chain) => ({ layers: chain.layers, createdAt: chain.createdAt })),
          ),
          digest: digest || undefined,
          inputs: some(
            inputs.map((input) =>
              input.map(({ selector, link }) => ({ selector: selector || undefined, link })),
            ),
          ),
        })),
      ),
    };
    const whole = (_key: string, item: unknown): unknown =>
      typeof item === "string" ? item.toWellFormed() : item;
    return JSON.stringify(value, whole).replace(
      /[<>&\u2028\u2029]/g,
      (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );
  }

  test("are Go's, whatever texts, numbers and empty lists there are", () => {
    const next = random(5);
    const below = (limit: number): number => Math.floor(next() * limit);
    const pick = <T>(items: readonly T[]): T => items[below(items.length)] as T;
    const some = <T>(most: number, make: () => T): T[] => Array.from({ length: below(most) }, make);
    for (let round = 0; round < 3000; round++) {
      const config: CacheConfig = {
        layers: some(3, () => ({
          blob: pick(TEXTS) as Digest,
          parent: pick(NUMBERS),
          annotations: pick([
            undefined,
            {
              mediaType: pick([undefined, ...TEXTS]),
              diffID: pick([undefined, ...TEXTS]),
              size: pick([undefined, ...NUMBERS]),
              createdAt: pick(TEXTS),
            },
          ]),
        })),
        records: some(4, () => ({
          results: some(3, () => ({ layer: pick(NUMBERS), createdAt: pick(TEXTS) })),
          chains: some(3, () => ({
            layers: some(3, () => pick(NUMBERS)),
            createdAt: pick(TEXTS),
          })),
          digest: pick(TEXTS),
          inputs: some(3, () => some(3, () => ({ selector: pick(TEXTS), link: pick(NUMBERS) }))),
        })),
      };
      expect(new TextDecoder().decode(encodeCacheConfig(config))).toBe(asGo(config));
    }
  });
});
