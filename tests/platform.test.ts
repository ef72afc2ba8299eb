import { describe, expect, test } from "bun:test";
import type { Platform } from "../src/descriptor.ts";
import { CacheportError } from "../src/errors.ts";
import {
  formatPlatform,
  localPlatform,
  matchPlatform,
  normalizePlatform,
  parsePlatform,
  selectPlatform,
} from "../src/platform.ts";
import { failure } from "./helpers/errors.ts";
import { random } from "./helpers/random.ts";

const LOCAL = localPlatform("linux", "x64");

/** What the user writes and its one form. */
const GOOD: [string, string][] = [
  ["linux/amd64", "linux/amd64"],
  ["linux/x86_64", "linux/amd64"],
  ["linux/x86-64", "linux/amd64"],
  ["LINUX/AMD64", "linux/amd64"],
  ["linux/amd64/v1", "linux/amd64"],
  ["linux/amd64/v3", "linux/amd64/v3"],
  ["linux/i386", "linux/386"],
  ["linux/386", "linux/386"],
  ["linux/arm64", "linux/arm64"],
  ["linux/aarch64", "linux/arm64"],
  ["linux/arm64/v8", "linux/arm64"],
  ["linux/arm64/8", "linux/arm64"],
  ["linux/arm64/V8", "linux/arm64"],
  ["linux/arm64/v9", "linux/arm64/v9"],
  ["linux/arm64/v8.2", "linux/arm64/v8.2"],
  ["linux/arm", "linux/arm/v7"],
  ["linux/arm/v7", "linux/arm/v7"],
  ["linux/arm/7", "linux/arm/v7"],
  ["linux/arm/v6", "linux/arm/v6"],
  ["linux/arm/6", "linux/arm/v6"],
  ["linux/armhf", "linux/arm/v7"],
  ["linux/armel", "linux/arm/v6"],
  ["linux/riscv64", "linux/riscv64"],
  ["linux/s390x", "linux/s390x"],
  ["macos/arm64", "darwin/arm64"],
  ["windows/amd64", "windows/amd64"],
  ["windows(10.0.17763.1)/amd64", "windows(10.0.17763.1)/amd64"],
  ["windows()/amd64", "windows/amd64"],
  ["some_os/some-arch/x.y", "some_os/some-arch/x.y"],
  ["unknown/unknown", "unknown/unknown"],
  ["constructor/__proto__", "constructor/__proto__"],
  // One word is completed by this machine.
  ["arm64", "linux/arm64"],
  ["aarch64", "linux/arm64"],
  ["arm", "linux/arm/v7"],
  ["armel", "linux/arm/v6"],
  ["386", "linux/386"],
  ["windows", "windows/amd64"],
  ["macos", "darwin/amd64"],
  ["local", "linux/amd64"],
];

const BAD = [
  "",
  "/",
  "linux/",
  "/amd64",
  "linux//v7",
  "linux/arm/v7/x",
  "linux/arm/",
  "linux/*",
  "linux/amd 64",
  "linux(1/amd64",
  "linux)/amd64",
  "linux/amd64\n",
  "z80",
  "windows(10)x/amd64",
  "arm64(1)",
  "../etc",
  "a/".repeat(100_000),
];

describe("parsePlatform", () => {
  test.each(GOOD)("reads %p as %p", (text, expected) => {
    expect(formatPlatform(parsePlatform(text, LOCAL))).toBe(expected);
  });

  test.each(BAD)("refuses %p", async (text) => {
    const error = await failure(() => parsePlatform(text, LOCAL));
    expect(error.code).toBe("USAGE");
    expect(error.message).toStartWith("Cannot parse platform ");
    expect(error.message.length).toBeLessThan(300);
    expect(error.hint).toContain("linux/amd64");
  });

  test("needs to know this machine for half a platform", async () => {
    for (const text of ["arm64", "linux", "local"])
      expect((await failure(() => parsePlatform(text))).code).toBe("USAGE");
  });

  test("parses random texts or refuses them with USAGE, and its text gives the same again", () => {
    const { pick, many } = random(5);
    for (let round = 0; round < 3000; round++) {
      const text = many(1, 6, () =>
        pick(["linux", "arm", "arm64", "amd64", "/", "/", "v8", "9", ".", "(", ")", "*"]),
      );
      try {
        const platform = parsePlatform(text, LOCAL);
        expect(normalizePlatform(platform)).toEqual(platform);
        expect(parsePlatform(formatPlatform(platform), LOCAL)).toEqual(platform);
      } catch (error) {
        if (!(error instanceof CacheportError)) throw error;
        expect(error.code).toBe("USAGE");
      }
    }
  });
});

test("localPlatform takes the names of Node, Go and uname", () => {
  expect(formatPlatform(localPlatform("linux", "x64"))).toBe("linux/amd64");
  expect(formatPlatform(localPlatform("win32", "ia32"))).toBe("windows/386");
  expect(formatPlatform(localPlatform("darwin", "arm64"))).toBe("darwin/arm64");
  expect(formatPlatform(localPlatform("linux", "aarch64"))).toBe("linux/arm64");
});

test("formatPlatform shows what a document says, as it is", () => {
  expect(formatPlatform({ os: "linux", architecture: "arm64", variant: "v8" })).toBe(
    "linux/arm64/v8",
  );
  expect(formatPlatform({ os: "", architecture: "" })).toBe("unknown");
  expect(formatPlatform({ os: "linux", architecture: "" })).toBe("linux");
});

test("normalizePlatform keeps the other fields", () => {
  expect(
    normalizePlatform({
      os: "windows",
      architecture: "x86_64",
      "os.version": "10.0.1",
      "os.features": ["win32k"],
    }),
  ).toEqual({
    os: "windows",
    architecture: "amd64",
    "os.version": "10.0.1",
    "os.features": ["win32k"],
  });
});

/** A platform from its text, not normalised: as a document may have it. */
function written(text: string): Platform {
  const [, os = "", version, architecture = "", variant] =
    /^([^/(]*)(?:\(([^)]*)\))?\/([^/]*)(?:\/(.*))?$/.exec(text) ?? [];
  return { os, architecture, variant, "os.version": version };
}

test.each([
  ["linux/amd64", "linux/amd64", true],
  ["linux/amd64", "linux/x86_64/v1", true],
  ["linux/arm64", "linux/arm64/v8", true],
  ["linux/arm64/v8", "linux/arm64", true],
  ["linux/arm", "linux/arm/v7", true],
  ["linux/arm/v7", "linux/arm", true],
  ["linux/arm/v7", "linux/arm/v6", false],
  ["linux/amd64", "linux/386", false],
  ["linux/amd64", "windows/amd64", false],
  ["linux/amd64", "linux/amd64/v2", false],
  ["windows/amd64", "windows(10.0.17763.1)/amd64", true],
  ["windows(10.0.17763)/amd64", "windows(10.0.17763.1)/amd64", true],
  ["windows(10.0.17763)/amd64", "windows(10.0.177631)/amd64", false],
  ["windows(10.0.17763)/amd64", "windows/amd64", true],
  ["linux/amd64", "unknown/unknown", false],
  ["linux/amd64", "/", false],
] as const)("matchPlatform(%p, %p) is %p", (wanted, candidate, expected) => {
  expect(matchPlatform(written(wanted), written(candidate))).toBe(expected);
});

describe("selectPlatform", () => {
  const select = (wanted: string, ...candidates: string[]) =>
    selectPlatform(
      written(wanted),
      candidates.map((text) => ({ text, platform: written(text) })),
    ).map(({ text }) => text);

  test.each([
    ["linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], ["linux/arm/v6"]],
    ["linux/arm/v7", ["linux/arm/v6", "linux/arm"], ["linux/arm"]],
    ["linux/arm/v6", ["linux/arm/v7"], []],
    ["linux/arm", ["linux/arm/v6"], ["linux/arm/v6"]],
    ["linux/arm64", ["linux/arm64/v8"], ["linux/arm64/v8"]],
    ["linux/arm64", ["linux/arm/v8", "linux/arm/v7"], []],
    ["linux/arm64", ["linux/arm64/v9"], []],
    ["linux/arm64/v9", ["linux/arm64"], ["linux/arm64"]],
    ["linux/arm64/v9", ["linux/arm64", "linux/arm64/v8.5"], ["linux/arm64/v8.5"]],
    ["linux/arm64/v9", ["linux/arm64", "linux/arm64/v8.6"], ["linux/arm64"]],
    [
      "linux/arm64/v9.2",
      ["linux/arm64/v9", "linux/arm64/v9.1", "linux/arm64/v9.3"],
      ["linux/arm64/v9.1"],
    ],
    ["linux/arm64/v9.2", ["linux/arm64/v8.1", "linux/arm64/v8.7"], ["linux/arm64/v8.7"]],
    ["linux/arm64/v8.3", ["linux/arm64", "linux/arm64/v8.2"], ["linux/arm64/v8.2"]],
    ["linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], ["linux/amd64/v2"]],
    ["linux/amd64/v3", ["linux/amd64"], ["linux/amd64"]],
    ["linux/amd64", ["linux/386"], []],
    ["linux/amd64", ["linux/amd64/v2"], []],
    ["linux/riscv64/rva22", ["linux/riscv64"], []],
    // Equal ones are all given, in their own order.
    [
      "linux/amd64",
      ["linux/amd64", "linux/arm64", "linux/x86_64"],
      ["linux/amd64", "linux/x86_64"],
    ],
  ])("%p of %p", (wanted, candidates, expected) => {
    expect(select(wanted, ...candidates)).toEqual(expected);
  });

  test("takes no document without a platform", () => {
    expect(selectPlatform(LOCAL, [{}, { platform: undefined }])).toEqual([]);
  });

  test("a variant from outside costs no time", () => {
    expect(select("linux/arm/v99999999999", "linux/arm/v7")).toEqual([]);
    expect(select("linux/amd64/v1e9", "linux/amd64")).toEqual(["linux/amd64"]);
  });
});
