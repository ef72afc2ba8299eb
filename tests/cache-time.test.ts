import { expect, test } from "bun:test";
import { compareTimes, isKnownTime, parseCacheTime } from "../src/cache-time.ts";

test("times are sorted to the nanosecond, whatever their zone and digits", () => {
  const sorted = [
    "0001-01-01T00:00:00Z",
    "0999-12-31T23:59:59Z",
    "2026-11-21T22:01:41Z",
    "2026-11-21T22:01:41.000000001Z",
    "2026-11-21T22:01:41.1Z",
    "2026-11-21T22:01:41.111601682Z",
    "2026-11-21T22:01:41.111601683Z",
    "2026-11-21T16:01:42-07:00",
  ];
  const parsed = sorted.map(parseCacheTime);
  for (const [i, time] of parsed.entries())
    for (const [j, other] of parsed.entries())
      expect(Math.sign(compareTimes(time, other))).toBe(Math.sign(i - j));
});

test("the same moment in two zones is the same time", () => {
  const time = parseCacheTime("2026-11-21T22:01:41.5Z");
  const other = parseCacheTime("2026-11-22T00:01:41.500+02:00");
  expect(compareTimes(time, other)).toBe(0);
  expect(time.milliseconds).toBe(Date.UTC(2026, 10, 21, 22, 1, 41, 500));
});

test.each(["", "0001-01-01T00:00:00Z", "yesterday", "2026-99-99T00:00:00Z"])(
  "%p is no known time",
  (text) => {
    expect(isKnownTime(parseCacheTime(text))).toBe(false);
  },
);
