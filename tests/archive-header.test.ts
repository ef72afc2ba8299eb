import { describe, expect, test } from "bun:test";
import { closeSync, openSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { blobPath, digestOf } from "../src/digest.ts";
import {
  decodeTarHeader,
  encodeTarHeader,
  parsePaxRecords,
  parseTarNumber,
  tarPadding,
} from "../src/archive-header.ts";
import { scanTar } from "../src/archive-scan.ts";
import { paxRecords } from "./helpers/archives.ts";
import { tempFolder } from "./helpers/temp.ts";

describe("encodeTarHeader", () => {
  const PATHS = [blobPath(digestOf("x")), blobPath(digestOf("x", "sha512"))];

  test.each([0, 1, 512, 8 ** 11 - 1, 8 ** 11, 20 * 2 ** 30 + 1])(
    "writes a size of %p that this program and GNU tar read",
    (size) => {
      for (const path of PATHS) {
        const file = join(tempFolder(), "a.tar");
        const header = encodeTarHeader({ path, mode: 0o444, size });
        writeFileSync(file, header);
        // A hole: the content takes no space.
        const end = header.length + size + tarPadding(size);
        truncateSync(file, end + 1024);
        const fd = openSync(file, "r");
        const { members } = scanTar(fd, "a.tar");
        closeSync(fd);
        const offset = header.length;
        expect([...members.values()]).toEqual([{ path, type: "file", offset, size }]);
        const listed = Bun.spawnSync(["tar", "-tvf", file]).stdout.toString();
        expect(listed).toMatch(/^-r--r--r-- 0\/0 /);
        expect(listed).toContain(` ${size} `);
        expect(listed).toContain(path);
      }
    },
  );

  test("needs a PAX header only for what ustar cannot hold", () => {
    const sizeOf = (path: string, size: number): number =>
      encodeTarHeader({ path, mode: 0o644, size }).length;
    expect(sizeOf("index.json", 8 ** 11 - 1)).toBe(512);
    expect(sizeOf("index.json", 8 ** 11)).toBe(1536);
    expect(sizeOf("x".repeat(100), 0)).toBe(512);
    expect(sizeOf("x".repeat(101), 0)).toBe(1536);
  });

  test("writes folders", () => {
    const header = decodeTarHeader(encodeTarHeader({ path: "blobs/", mode: 0o755, size: 0 }));
    expect(header).toMatchObject({ name: "blobs/", typeflag: "5", size: 0 });
  });
});

describe("parseTarNumber", () => {
  test.each([
    ["0000644\0", 0o644],
    ["   644 \0", 0o644],
    ["644", 0o644],
    ["\0\0\0\0", 0],
    ["    ", 0],
    ["77777777777", 8 ** 11 - 1],
    ["8", undefined],
    ["-1", undefined],
    ["1 2", undefined],
    ["0x1", undefined],
  ])("reads %p as %p", (text, value) => {
    expect(parseTarNumber(Buffer.from(text))).toBe(value as never);
  });

  test.each([
    ["800000000000000000000005", 5],
    ["80000000001fffffffffffff", Number.MAX_SAFE_INTEGER],
    ["800000000020000000000000", undefined],
    ["ffffffffffffffffffffffff", undefined],
    ["810000000000000000000000", undefined],
  ])("reads base-256 %p as %p", (hex, value) => {
    expect(parseTarNumber(Buffer.from(hex, "hex"))).toBe(value as never);
  });
});

describe("parsePaxRecords", () => {
  test("reads records of any length, the last of a key wins", () => {
    const long = "x".repeat(90);
    for (let length = 80; length < 110; length++) {
      const records = { path: "y".repeat(length), comment: long };
      expect(parsePaxRecords(Buffer.from(paxRecords(records)))).toEqual(
        new Map(Object.entries(records)),
      );
    }
    const twice = Buffer.from("8 a=one\n8 a=two\n");
    expect(parsePaxRecords(twice)).toEqual(new Map([["a", "two"]]));
  });

  test.each([
    "a=b\n",
    "6 a=b",
    "5 a=b\n",
    "7 a=b\n",
    "6 a-b\n",
    "5 =b\n",
    "0 a=b\n",
    "-6 a=b\n",
    "06 a=b\n",
    "6a=b\n",
    "2 \n",
    "99999999999 a=b\n",
    "\0\0\0\0",
  ])("refuses %p", (text) => {
    expect(parsePaxRecords(Buffer.from(text))).toBeUndefined();
  });
});
