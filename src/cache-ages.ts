/** When the results of a cache were made, counted in spans of equal length. */
import { compareTimes, isKnownTime, parseCacheTime } from "./cache-time.ts";
import type { CacheTime } from "./cache-time.ts";

/** The results of one span of time. */
export interface AgeSpan {
  /** Start, RFC 3339 in UTC. */
  from: string;
  /** Milliseconds. */
  length: number;
  results: number;
}

/** When results were made. */
export interface ResultAges {
  /** RFC 3339 as it was given; null when no time is known. */
  oldest: string | null;
  newest: string | null;
  /** From the oldest to the newest without a gap; none when all fall into one span of a minute. */
  spans: AgeSpan[];
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const WEEK = 7 * DAY;
/** What a span may be long; over the last one it doubles. */
const LENGTHS = [
  ...[1, 5, 15, 30].map((minutes) => minutes * MINUTE),
  ...[1, 3, 6, 12].map((hours) => hours * HOUR),
  ...[1, 2].map((days) => days * DAY),
  ...[1, 4, 13, 52].map((weeks) => weeks * WEEK),
];
const MOST_SPANS = 24;
/** 1970 began on a Thursday; spans of weeks begin on Mondays. */
const FIRST_MONDAY = 4 * DAY;

/**
 * Counts times in the shortest spans, from minutes over hours and days to weeks,
 * of which 24 reach over all of them. Spans begin on whole hours, days and Mondays
 * of UTC, so the same times always give the same spans.
 *
 * @param times RFC 3339; Go's zero time and what is no time are left out.
 */
export function resultAges(times: Iterable<string>): ResultAges {
  const moments: number[] = [];
  const ages: ResultAges = { oldest: null, newest: null, spans: [] };
  let first: CacheTime | undefined;
  let last: CacheTime | undefined;
  for (const text of times) {
    const time = parseCacheTime(text);
    if (!isKnownTime(time)) continue;
    moments.push(time.milliseconds);
    if (!first || compareTimes(time, first) < 0) [first, ages.oldest] = [time, text];
    if (!last || compareTimes(time, last) > 0) [last, ages.newest] = [time, text];
  }
  if (!first || !last) return ages;
  const { start, length, count } = spanOver(first.milliseconds, last.milliseconds);
  if (count < 2) return ages;
  const results = new Uint32Array(count);
  for (const moment of moments) results[Math.floor((moment - start) / length)]! += 1;
  ages.spans = Array.from(results, (number, index) => ({
    from: new Date(start + index * length).toISOString().replace(".000", ""),
    length,
    results: number,
  }));
  return ages;
}

/** The spans that reach over two moments. */
function spanOver(first: number, last: number): { start: number; length: number; count: number } {
  for (let step = 0; ; step++) {
    const length = LENGTHS[step] ?? (LENGTHS.at(-1) as number) * 2 ** (step - LENGTHS.length + 1);
    const offset = length >= WEEK ? FIRST_MONDAY : 0;
    const start = Math.floor((first - offset) / length) * length + offset;
    const count = Math.floor((last - start) / length) + 1;
    if (count <= MOST_SPANS) return { start, length, count };
  }
}
