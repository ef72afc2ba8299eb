/** Sizes and durations as people write and read them. Pure: text in, values out. */

/**
 * Bytes in one unit, by the unit's name in lower case: decimal (SI), binary (IEC), and the
 * letter alone, which is binary as in GNU's tools and in docker's options.
 */
const BYTE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** What a size looks like, for messages. */
export const BYTES_SYNTAX =
  "a size is a number of bytes or one with a unit, such as 1024, 500MB (10^6), 4MiB or 4M (2^20)";

/** What a duration looks like, for messages. */
export const DURATION_SYNTAX =
  "a duration is numbers with units from the largest to the smallest, such as 90s, 30m, 1h30m, 7d or 7days";

/**
 * Reads a size: `1024`, `500MB` (10^6), `4MiB` and `4M` (2^20), `1.5 GB`. Units are read
 * in any case.
 *
 * @returns Whole bytes, or undefined when the text is no size or is above 2^53.
 */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d{1,16}(?:\.\d{1,9})?) ?([A-Za-z]{0,3})$/.exec(text);
  if (!match) return undefined;
  const unit = BYTE_UNITS[(match[2] as string).toLowerCase()];
  if (unit === undefined) return undefined;
  const bytes = Math.round(Number(match[1]) * unit);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/**
 * Writes a size with three significant digits in decimal units: `532 B`,
 * `1.21 MB`, `45.3 GB`. What it writes, {@link parseBytes} reads.
 *
 * @param bytes At least 0.
 */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  let unit = 0;
  // 999.5 and above would round to a fourth digit.
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** Milliseconds of a day. */
export const DAY = 86_400_000;

/** Milliseconds in one unit, from the largest to the smallest. */
const TIME_UNITS = [
  ["w(?:eeks?)?", 7 * DAY],
  ["d(?:ays?)?", DAY],
  ["h(?:ours?|rs?)?", 3_600_000],
  ["m(?:in(?:ute)?s?)?", 60_000],
  ["s(?:ec(?:ond)?s?)?", 1000],
  ["ms", 1],
] as const;

const DURATION = new RegExp(
  `^${TIME_UNITS.map(([unit]) => `(?:(\\d{1,12}(?:\\.\\d{1,9})?)${unit})?`).join("")}$`,
);

/**
 * Reads a duration: `90s`, `30m`, `1h30m`, `1.5h`, `7d`, `7days`, `2w`, `250ms`, or `0`.
 *
 * @returns Whole milliseconds, or undefined when the text is no duration.
 */
export function parseDuration(text: string): number | undefined {
  if (text === "0") return 0;
  const match = text === "" ? null : DURATION.exec(text);
  if (!match) return undefined;
  let total = 0;
  TIME_UNITS.forEach(([, milliseconds], index) => {
    total += Number(match[index + 1] ?? 0) * milliseconds;
  });
  total = Math.round(total);
  return Number.isSafeInteger(total) ? total : undefined;
}

/**
 * Writes a duration in its two largest units: `850ms`, `13.2s`, `2m5s`, `1h30m`,
 * `3d4h`. What it writes, {@link parseDuration} reads.
 *
 * @param milliseconds At least 0.
 */
export function formatDuration(milliseconds: number): string {
  if (milliseconds < 999.5) return `${Math.round(milliseconds)}ms`;
  if (milliseconds < 59_950) return `${(milliseconds / 1000).toFixed(1)}s`;
  const seconds = Math.round(milliseconds / 1000);
  if (seconds < 3600) return pair(seconds, 60, "m", 1, "s");
  if (seconds < 86_400) return pair(seconds, 3600, "h", 60, "m");
  return pair(seconds, 86_400, "d", 3600, "h");
}

/** Two neighbouring units, the smaller one cut off and left out when it is 0. */
function pair(
  seconds: number,
  large: number,
  largeName: string,
  small: number,
  smallName: string,
): string {
  const rest = Math.floor((seconds % large) / small);
  const head = `${Math.floor(seconds / large)}${largeName}`;
  return rest === 0 ? head : `${head}${rest}${smallName}`;
}
