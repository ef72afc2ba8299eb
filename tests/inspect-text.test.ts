import { describe, expect, test } from "bun:test";
import type { Inspected, InspectedCache } from "../src/inspect.ts";
import { inspectText } from "../src/inspect-text.ts";
import type { Cache } from "../src/cache-layers.ts";
import { cacheOf, fakeDigest, generateCache } from "./helpers/generated-cache.ts";
import { graphSource, inspectSources } from "./helpers/graph-source.ts";

const NOW = Date.UTC(2026, 1, 1);
const PLAIN = { colors: false, columns: 0, all: false, now: NOW };

const cacheFound = (cache: Cache): InspectedCache => inspectSources(graphSource(cache));

const show = (found: Inspected, style = {}): string[] =>
  inspectText(found, { ...PLAIN, ...style }).split("\n");

describe("layers of a cache", () => {
  test("the largest first, the longest bar for the largest", () => {
    const found = cacheFound(generateCache(5, 60));
    const rows = show(found, { all: true }).filter((line) => /^[0-9a-f]{12} /.test(line));
    expect(rows).toHaveLength(new Set(found.layers.map((l) => l.digest)).size);
    const digestOrder = rows.map((row) => row.slice(0, 12));
    const bySize = [...new Map(found.layers.map((l) => [l.digest, l])).values()]
      .toSorted((a, b) => (b.size ?? 0) - (a.size ?? 0))
      .map(({ digest }) => digest.slice(7, 19));
    expect(digestOrder).toEqual(bySize);
    const bars = rows.map((row) => (row.match(/[█▏▎▍▌▋▊▉]+/)?.[0] ?? "").length);
    expect(bars[0]).toBe(20);
    expect(bars).toEqual(bars.toSorted((a, b) => b - a));
    expect(bars.at(-1)).toBeGreaterThan(0);
  });

  test("40 rows unless all are asked for", () => {
    const found = cacheFound(generateCache(5, 200));
    const count = new Set(found.layers.map(({ digest }) => digest)).size;
    const isRow = (line: string): boolean => /^[0-9a-f]{12} /.test(line);
    const some = show(found);
    expect(some.filter(isRow)).toHaveLength(40);
    expect(some).toContain(`... and ${count - 40} more; --all shows them`);
    const all = show(found, { all: true });
    expect(all.filter(isRow)).toHaveLength(count);
    expect(all.join("\n")).not.toContain("more;");
  });

  test("a blob in several places is one row with its places and depths", () => {
    const found = cacheFound(cacheOf({ x: [[], ["twice"]], y: [[], ["base", "mid", "twice"]] }));
    const lines = show(found);
    expect(lines.find((line) => line.startsWith("LAYER"))).toContain("PLACES");
    const row = lines.find((line) => line.startsWith(fakeDigest("twice").slice(7, 19)));
    expect(row).toMatch(/ 0-2 +2 +2 /);
  });

  test("what the manifest does not list is missing, and a problem at the end", () => {
    const cache = cacheOf({ x: [[], ["base", "top"]] });
    const lines = show(cacheFound({ ...cache, layers: cache.layers.slice(0, 1) }));
    const top = fakeDigest("top");
    expect(lines.find((line) => line.startsWith(top.slice(7, 19)))).toContain(" missing ");
    expect(lines.slice(-4)).toEqual([
      "",
      "1 problem",
      `problem: The manifest does not list layer ${top}: BuildKit drops its results without a word [LAYER_NOT_LISTED]`,
      "",
    ]);
  });
});

describe("ages of results", () => {
  test("a histogram of spans, newest last, with the age and the number", () => {
    const day = 24 * 3600;
    const found = cacheFound(
      cacheOf({
        a: [[], ["x"], 100],
        b: [["a"], ["x", "y"], 200],
        c: [["b"], ["x", "y", "z"], 3 * day],
      }),
    );
    const lines = show(found);
    const at = lines.findIndex((line) => line.startsWith("RESULTS FROM"));
    expect(lines.slice(at + 1, -1).map((line) => line.split(/ {2,}/))).toEqual([
      ["2026-01-01 00:00", "31d", "2", "████████████████████"],
      ...["06:00", "12:00", "18:00"].map((hour, step) => [
        `2026-01-01 ${hour}`,
        `30d${18 - 6 * step}h`,
        "0",
      ]),
      ...["02", "03"].flatMap((date, days) =>
        ["00:00", "06:00", "12:00", "18:00"].map((hour, step) => [
          `2026-01-${date} ${hour}`,
          step === 0 ? `${30 - days}d` : `${29 - days}d${24 - 6 * step}h`,
          "0",
        ]),
      ),
      ["2026-01-04 00:00", "28d", "1", "██████████"],
    ]);
  });

  test("none when all were made at one moment", () => {
    const found = cacheFound(cacheOf({ a: [[], ["x"]], b: [["a"], ["x", "y"]] }));
    expect(show(found).join("\n")).not.toContain("RESULTS FROM");
  });

  test("results without a known time are counted apart", () => {
    const cache = cacheOf({ a: [[], ["x"], 0], b: [["a"], ["y"], 9999] });
    cache.config.records.push({
      digest: "c",
      chains: [],
      inputs: [],
      results: [{ layer: 0, createdAt: "0001-01-01T00:00:00Z" }],
    });
    expect(show(cacheFound(cache)).at(-2)).toMatch(/^unknown +- +1$/);
  });
});

describe("terminals", () => {
  const found = cacheFound(generateCache(5, 60));

  test("bars are left out where the table does not fit", () => {
    const wide = show(found, { columns: 100 });
    expect(wide.join("")).toContain("█");
    const tables = wide.filter((line) => !line.startsWith("problem:"));
    const width = Math.max(...tables.map((line) => Bun.stringWidth(line)));
    const table = wide.filter((line) => /^[0-9a-f]{12} |^LAYER/.test(line));
    const needed = Math.max(...table.map((line) => Bun.stringWidth(line)));
    const narrow = show(found, { columns: needed - 1 }).filter((line) =>
      /^[0-9a-f]{12} |^LAYER/.test(line),
    );
    expect(narrow.join("")).not.toContain("█");
    expect(narrow).toHaveLength(table.length);
    expect(width).toBeLessThanOrEqual(100);
  });

  test("the same text with and without colours", () => {
    const colored = inspectText(found, { ...PLAIN, colors: true });
    expect(colored).toContain("\x1b[36m");
    expect(Bun.stripANSI(colored).replaceAll(/ +$/gm, "")).toBe(inspectText(found, PLAIN));
  });

  test("long commands of an image keep to their line, and drive no terminal", () => {
    const descriptor = { mediaType: "x", digest: fakeDigest("m"), size: 1 };
    const image: Inspected = {
      kind: "image",
      manifest: descriptor,
      config: descriptor,
      platform: { os: "linux", architecture: "\x1b[2J" },
      created: null,
      history: [],
      totalSize: 1,
      inlineCache: false,
      layers: [
        {
          digest: fakeDigest("l"),
          size: 1,
          mediaType: "x",
          diffId: null,
          createdBy: `RUN \x1b]0;title\x07 ${"x".repeat(500)}`,
        },
      ],
    };
    const lines = show(image, { columns: 90 });
    expect(lines.join("")).not.toContain("\x1b");
    for (const line of lines.filter((text) => text.includes("RUN")))
      expect(Bun.stringWidth(line)).toBeLessThanOrEqual(90);
    expect(show(image).join("")).toContain("x".repeat(500));
  });
});

test("several caches: each with its platform, all problems last", () => {
  const cache = cacheOf({ x: [[], ["base", "top"]] });
  const one = (architecture: string, layers: Cache["layers"]) =>
    graphSource({ ...cache, layers }, { os: "linux", architecture });
  const found = inspectSources(one("amd64", []), one("arm64", cache.layers));
  const text = inspectText(found, PLAIN);
  expect(text).toMatch(/linux\/amd64[^]*linux\/arm64[^]*2 problems\nproblem:/);
  expect(found.layers.map(({ parent }) => parent)).toEqual([null, 0, null, 2]);
  expect(found.totalSize).toBe(cache.layers.reduce((sum, { size }) => sum + size, 0));
});
