import { describe, expect, test } from "bun:test";
import { formatBytes, formatDuration, parseBytes, parseDuration } from "../src/units.ts";

describe("parseBytes", () => {
  test.each([
    ["0", 0],
    ["1024", 1024],
    ["500MB", 500_000_000],
    ["500mb", 500_000_000],
    ["4MiB", 4_194_304],
    ["4mib", 4_194_304],
    ["1.5GB", 1_500_000_000],
    ["1.5 GiB", 1_610_612_736],
    ["1kB", 1000],
    ["1KiB", 1024],
    ["7B", 7],
    ["5K", 5120],
    ["5M", 5_242_880],
    ["5G", 5_368_709_120],
    ["10g", 10_737_418_240],
    ["1.5T", 1_649_267_441_664],
    ["2TB", 2e12],
    ["0.1kB", 100],
    ["9007199254740991", Number.MAX_SAFE_INTEGER],
  ])("reads %p", (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  test.each([
    "",
    " ",
    "-1",
    "+1",
    "1e3",
    "0x10",
    "MB",
    "1..5MB",
    "1.MB",
    ".5MB",
    "5GG",
    "5iB",
    "5Gi",
    "1 0",
    "10  MB",
    "10MB ",
    " 10MB",
    "10XB",
    "NaN",
    "9007199254740992",
    "99999TB",
    "1,5GB",
    "10MB\n",
    "１０",
    "9".repeat(10_000),
  ])("refuses %p", (text) => {
    expect(parseBytes(text)).toBeUndefined();
  });
});

describe("formatBytes", () => {
  test.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.00 kB"],
    [1234, "1.23 kB"],
    [9994, "9.99 kB"],
    [9995, "10.0 kB"],
    [99_949, "99.9 kB"],
    [99_950, "100 kB"],
    [999_499, "999 kB"],
    [999_500, "1.00 MB"],
    [1_210_000_000, "1.21 GB"],
    [5e12, "5.00 TB"],
    [5e15, "5000 TB"],
  ])("writes %p", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});

describe("parseDuration", () => {
  test.each([
    ["0", 0],
    ["0s", 0],
    ["90s", 90_000],
    ["30m", 1_800_000],
    ["1h30m", 5_400_000],
    ["1.5h", 5_400_000],
    ["7d", 604_800_000],
    ["2w", 1_209_600_000],
    ["7days", 604_800_000],
    ["1day", 86_400_000],
    ["2weeks", 1_209_600_000],
    ["1hour30min", 5_400_000],
    ["2hrs", 7_200_000],
    ["90seconds", 90_000],
    ["5minutes", 300_000],
    ["250ms", 250],
    ["1w2d3h4m5s6ms", 788_645_006],
  ])("reads %p", (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds);
  });

  test.each([
    "",
    "s",
    "10",
    "1h 30m",
    "-1s",
    "30m1h",
    "1h1h",
    "1y",
    "7dayz",
    "7days7days",
    "3mo",
    "1M",
    "1e3s",
    "1.s",
    ".5s",
    "5S",
    "9".repeat(12) + "w",
    "1s\n",
    "0.0",
    "1".repeat(10_000) + "s",
  ])("refuses %p", (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });
});

describe("formatDuration", () => {
  test.each([
    [0, "0ms"],
    [850, "850ms"],
    [999.4, "999ms"],
    [999.6, "1.0s"],
    [13_240, "13.2s"],
    [59_949, "59.9s"],
    [59_951, "1m"],
    [125_000, "2m5s"],
    [3_599_600, "1h"],
    [5_400_000, "1h30m"],
    [86_399_999, "1d"],
    [270_000_000, "3d3h"],
  ])("writes %p", (milliseconds, text) => {
    expect(formatDuration(milliseconds)).toBe(text);
  });
});

test("what is written is read again within the digits that are shown", () => {
  for (let value = 1; value < 1e13; value = Math.ceil(value * 1.37)) {
    const bytes = parseBytes(formatBytes(value)) as number;
    expect(Math.abs(bytes - value) / value).toBeLessThan(0.0051);
    const duration = parseDuration(formatDuration(value)) as number;
    expect(Math.abs(duration - value) / value).toBeLessThan(0.05);
  }
});
