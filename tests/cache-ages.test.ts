import { describe, expect, test } from "bun:test";
import { resultAges } from "../src/cache-ages.ts";
import { random, timeAfter } from "./helpers/generated-cache.ts";

const HOUR = 3600;
const DAY = 24 * HOUR;

describe("resultAges() counts times in spans that fit the whole", () => {
  test.each([
    ["minutes", [0, 61, 400], 60_000, 7],
    ["hours", [0, 10 * HOUR, 20 * HOUR], HOUR * 1000, 21],
    ["days", [0, 5 * DAY, 20 * DAY], DAY * 1000, 21],
    ["weeks", [0, 100 * DAY], 7 * DAY * 1000, 15],
  ])("%s", (_, seconds, length, count) => {
    const { spans } = resultAges(seconds.map(timeAfter));
    expect(spans.map((span) => span.length)).toEqual(Array(count).fill(length));
    expect(spans.reduce((sum, span) => sum + span.results, 0)).toBe(seconds.length);
    expect(spans[0]?.results).toBeGreaterThan(0);
    expect(spans.at(-1)?.results).toBeGreaterThan(0);
  });

  test("spans of days begin at midnight, spans of weeks on Mondays", () => {
    const days = resultAges([timeAfter(5 * HOUR), timeAfter(12 * DAY)]).spans;
    expect(days[0]?.from).toBe("2026-01-01T00:00:00Z");
    const weeks = resultAges([timeAfter(5 * HOUR), timeAfter(90 * DAY)]).spans;
    // 1 January 2026 is a Thursday.
    expect(weeks[0]?.from).toBe("2025-12-29T00:00:00Z");
  });

  test("thousands of years take no more spans than a day does", () => {
    const { spans } = resultAges(["0002-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]);
    expect(spans.length).toBeLessThanOrEqual(24);
    expect(spans.at(-1)?.results).toBe(1);
  });

  test("any times: the spans follow each other and hold every known time once", () => {
    const next = random(5);
    for (let round = 0; round < 300; round++) {
      const reach = 10 ** (next() * 9);
      const times = Array.from({ length: 1 + Math.floor(next() * 30) }, () =>
        timeAfter(next() * reach),
      );
      const { spans, oldest, newest } = resultAges([...times, "0001-01-01T00:00:00Z"]);
      expect(times).toContain(oldest as string);
      expect(times).toContain(newest as string);
      if (spans.length === 0) continue;
      expect(spans.length).toBeLessThanOrEqual(24);
      for (const [at, { from, length, results }] of spans.entries()) {
        const start = Date.parse(from);
        const within = times.filter((time) => {
          const moment = Date.parse(time.replace(/(\.\d{3})\d*/, "$1"));
          return moment >= start && moment < start + length;
        });
        expect(results).toBe(within.length);
        const following = spans[at + 1];
        if (following) expect(Date.parse(following.from)).toBe(start + length);
      }
    }
  });
});

describe("resultAges() gives no spans", () => {
  test.each([
    ["for no times", []],
    ["for one time", ["2026-11-21T22:01:41.111601683Z"]],
    ["for times within one minute", ["2026-11-21T22:01:01Z", "2026-11-21T22:01:59Z"]],
    ["for times that nobody knows", ["0001-01-01T00:00:00Z", "never"]],
  ])("%s", (_, times) => {
    expect(resultAges(times).spans).toEqual([]);
  });
});

test("oldest and newest are told to the nanosecond, as they were written", () => {
  const ages = resultAges([
    "2026-11-21T22:01:41.111601683Z",
    "2026-11-22T00:01:41.111601684+02:00",
    "2026-11-21T22:01:41.111601682Z",
  ]);
  expect(ages.oldest).toBe("2026-11-21T22:01:41.111601682Z");
  expect(ages.newest).toBe("2026-11-22T00:01:41.111601684+02:00");
});
