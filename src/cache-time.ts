/**
 * Times in caches: Go's RFC 3339 text with up to nine digits of a second. They are
 * compared as they are, since a `Date` holds milliseconds only.
 *
 * Source: the Go standard library, time (RFC3339Nano).
 */

/** A moment, comparable to the nanosecond. */
export interface CacheTime {
  /** Milliseconds since 1970; -Infinity for Go's zero time and for no time at all. */
  readonly milliseconds: number;
  /** Nanoseconds beyond those milliseconds, 0 to 999999. */
  readonly nanoseconds: number;
}

const UNKNOWN: CacheTime = { milliseconds: -Infinity, nanoseconds: 0 };
const GO_ZERO = Date.parse("0001-01-01T00:00:00Z");

/**
 * Reads a time. Go's zero time and a text that is no time come before all others.
 *
 * @param text For example `2026-11-21T22:01:41.111601683Z`.
 */
export function parseCacheTime(text: string): CacheTime {
  const match = /^([^.]*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (!match) return UNKNOWN;
  const [, seconds, fraction = "", zone] = match;
  const start = Date.parse(`${seconds}${zone}`);
  if (Number.isNaN(start) || start === GO_ZERO) return UNKNOWN;
  const digits = fraction.padEnd(9, "0");
  return {
    milliseconds: start + Number(digits.slice(0, 3)),
    nanoseconds: Number(digits.slice(3, 9)),
  };
}

/** Tells whether a time is known. */
export function isKnownTime(time: CacheTime): boolean {
  return time.milliseconds !== -Infinity;
}

/** Sorts texts of times by the moments that they stand for, the oldest first. */
export function compareTimeTexts(a: string, b: string): number {
  return a === b ? 0 : compareTimes(parseCacheTime(a), parseCacheTime(b));
}

/** Sorts times, the oldest first. */
export function compareTimes(a: CacheTime, b: CacheTime): number {
  if (a.milliseconds !== b.milliseconds) return a.milliseconds < b.milliseconds ? -1 : 1;
  return a.nanoseconds - b.nanoseconds;
}
