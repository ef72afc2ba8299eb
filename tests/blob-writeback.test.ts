import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { closeSync, openSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { digestOf } from "../src/digest.ts";
import { reserveBlocks, Writeback } from "../src/blob-writeback.ts";
import { BINARY } from "./helpers/binary.ts";
import { layoutOf } from "./helpers/layer-cache.ts";
import { tempFolder } from "./helpers/temp.ts";

const MIB = 2 ** 20;

/** Does not compress. */
const LAYER = new Uint8Array(randomBytes(50 * MIB));

const isLinux = process.platform === "linux";

/** Runs something with a new, empty file, and says what the file is then. */
function withFile(run: (fd: number, path: string) => void): { size: number; taken: number } {
  const path = join(tempFolder(), "file");
  const fd = openSync(path, "wx");
  try {
    run(fd, path);
  } finally {
    closeSync(fd);
  }
  const { size, blocks } = statSync(path);
  return { size, taken: blocks * 512 };
}

describe.skipIf(!isLinux)("blocks that are taken before", () => {
  test("are there while the file is as long as what was written", () => {
    const { size, taken } = withFile((fd, path) => {
      reserveBlocks(fd, path, 8 * MIB);
      writeSync(fd, "begun");
    });
    expect(size).toBe(5);
    expect(taken).toBeGreaterThanOrEqual(8 * MIB);
  });

  test.each([
    ["a petabyte", 2 ** 50],
    ["more than any disk", Number.MAX_SAFE_INTEGER],
  ])("of a claim of %s are none", (_, claim) => {
    const { taken } = withFile((fd, path) => reserveBlocks(fd, path, claim));
    expect(taken).toBe(0);
  });
});

test("what is handed to the disk early is what was written, whatever the pieces", async () => {
  const path = join(tempFolder(), "file");
  const fd = openSync(path, "wx");
  const bytes = new Uint8Array(20 * MIB + 17).map((_, at) => at * 7);
  const writeback = new Writeback(fd, 0);
  for (let at = 0; at < bytes.length; at += 1_000_003) {
    const piece = bytes.subarray(at, at + 1_000_003);
    writeSync(fd, piece);
    writeback.written(piece.length);
  }
  closeSync(fd);
  expect(digestOf(await Bun.file(path).bytes())).toBe(digestOf(bytes));
});

/** Runs a command on a new btrfs of 300 MB in a file, mounted where nobody else sees it. */
function onBtrfs(command: string, ...args: string[]): { code: number; lines: string[] } {
  const script = `
    truncate -s 300M disk && mkfs.btrfs disk >mkfs.log 2>&1 && mkdir on && mount -o loop disk on && cd on &&
    ${command}`;
  const run = Bun.spawnSync(["unshare", "--mount", "sh", "-c", script, "sh", ...args], {
    cwd: tempFolder(),
  });
  return { code: run.exitCode, lines: run.stdout.toString().split("\n") };
}

const canClone = isLinux && Bun.which("mkfs.btrfs") !== null && onBtrfs("true").code === 0;

test.skipIf(!canClone)("where the file system clones, a copy takes no space", () => {
  const { code, lines } = onBtrfs(
    `cp -r "$2" source && sync && df --output=used . | tail -1 &&
    "$1" copy -q source copy >told && sync && df --output=used . | tail -1 &&
    diff -r source/blobs copy/blobs && echo same`,
    BINARY,
    layoutOf(LAYER).layout,
  );
  const [before, after, last] = lines;
  expect({ code, last }).toEqual({ code: 0, last: "same" });
  expect(Number(after) - Number(before)).toBeLessThan(10_000);
});

test.skipIf(!canClone)("a clone of a damaged blob is refused like any copy", () => {
  const { lines } = onBtrfs(
    `cp -r "$2" source && blob=$(find source/blobs -size +1M) && chmod u+w $blob &&
    printf x | dd of=$blob bs=1 seek=40000000 conv=notrunc status=none
    "$1" copy -q source copy 2>&1; echo "exit $?"; ls -A`,
    BINARY,
    layoutOf(LAYER).layout,
  );
  expect(lines[0]).toMatch(/^cacheport: Cannot use blob .*: its bytes have the digest sha256:/);
  expect(lines.slice(-3)).toEqual(["exit 4", "source", ""]);
});
