import { describe, expect, test } from "bun:test";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { isCacheportError } from "../src/errors.ts";
import { collectGarbage } from "../src/gc.ts";
import { cacheport } from "./helpers/binary.ts";
import { snapshot } from "./helpers/layout.ts";
import { blobNames, fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";

const gc = (layout: string) =>
  collectGarbage(layout, {
    limits: DEFAULT_LIMITS,
    grace: 0,
    dryRun: false,
    jobs: 4,
    lockTimeout: 5000,
  });

/** Another layout, whose blobs are to stay where they are. */
function victim(name = "app-zstd-oci-index"): string {
  const layout = fixtureCopy(name);
  // What a run there may hold at this moment.
  mkdirSync(join(layout, ".cacheport", "run-living"), { recursive: true });
  writeFileSync(join(layout, ".cacheport", "run-living", "lock"), "");
  writeFileSync(join(layout, ".cacheport", "run-living", "half"), "half a blob");
  mkdirSync(join(layout, "ingest", "upload"), { recursive: true });
  writeFileSync(join(layout, "ingest", "upload", "data"), "half a blob");
  return layout;
}

/** Puts a link to somewhere in the place of whatever a layout has there. */
function linkTo(target: string, layout: string, path: string): void {
  const place = join(layout, path);
  mkdirSync(dirname(place), { recursive: true });
  rmSync(place, { recursive: true, force: true });
  symlinkSync(target, place);
}

/** Every folder that gc lists, moves from or removes in, with what a link there could lead to. */
const LINKS: [path: string, to: string][] = [
  [".cacheport", ".cacheport"],
  [".cacheport/trash-x", "blobs"],
  [".cacheport/trash-x/sha256", "blobs/sha256"],
  [".cacheport/trash-x/sha512", "blobs/sha256"],
  [".cacheport/run-x", ".cacheport/run-living"],
  [".cacheport/run-x", "blobs"],
  [".cacheport/run-x/inner", "blobs/sha256"],
  [".cacheport/run-x/lock", ".cacheport/run-living/lock"],
  [".cacheport/gc.lock", "index.json"],
  ["ingest", "ingest"],
  ["ingest", "blobs"],
  ["ingest/upload", "blobs/sha256"],
  ["ingest/upload/inner", "blobs/sha256"],
  ["blobs", "blobs"],
  ["blobs/sha256", "blobs/sha256"],
  ["blobs/sha512", "blobs/sha256"],
  [".umoci-x", "blobs"],
  ["oci-put-blob1", "index.json"],
  [".cacheport-run-01234567-89ab-cdef-0123-456789abcdef", "blobs"],
  [".cacheport-AbCd12", "blobs/sha256"],
  ["index.json.cacheport-1", "index.json"],
];

describe("a link in a layout leads gc nowhere", () => {
  test.each(LINKS)("%s to %s", async (path, to) => {
    // Caches that share no blob, and two copies of one cache.
    for (const name of ["app-zstd-oci-index", "grown"]) {
      const other = victim(name);
      const before = snapshot(other);
      const layout = fixtureCopy("grown");
      linkTo(join(other, to), layout, path);
      const failed = await gc(layout).then(
        () => undefined,
        (error: unknown) => error,
      );
      expect(snapshot(other)).toEqual(before);
      if (failed !== undefined) {
        expect(isCacheportError(failed)).toBe(true);
        expect((failed as Error).message).not.toContain("/proc/");
        expect(lstatSync(join(layout, path)).isSymbolicLink()).toBe(true);
      }
    }
  });

  test("a folder of blobs that is moved between two looks is not taken for another", async () => {
    const layout = fixtureCopy("grown");
    const other = victim();
    const before = snapshot(other);
    const trash = join(layout, ".cacheport", "trash-x");
    mkdirSync(join(trash, "sha256"), { recursive: true });
    // Of a blob that both have under one name, in what was moved aside.
    const [name] = blobNames(other);
    symlinkSync(
      join(other, "blobs", "sha256", name as string),
      join(trash, "sha256", name as string),
    );
    symlinkSync(other, join(layout, ".cacheport", "trash-y"));
    const report = await gc(layout);
    // Each is named once, whoever met it.
    expect(report.leftAlone).toEqual([".cacheport/trash-y", `.cacheport/trash-x/sha256/${name}`]);
    expect(snapshot(other)).toEqual(before);
  });
});

describe("what is no folder of a layout", () => {
  test.each([
    ["gc", ["--grace", "0"]],
    ["prune", ["--keep-newest=1", "--gc", "--grace=0"]],
  ])("%s leaves it alone and says so", async (command, options) => {
    const other = victim();
    const before = snapshot(other);
    const layout = fixtureCopy("app-oci-index");
    linkTo(join(other, "blobs", "sha256"), layout, ".cacheport/trash-x/sha256");
    const run = await cacheport([command, layout, ...options]);
    expect(run.code).toBe(0);
    expect(run.stderr).toContain(".cacheport/trash-x/sha256");
    expect(run.stderr).toContain("left alone");
    expect(snapshot(other)).toEqual(before);
  });

  test.each([["blobs"], ["blobs/sha256"], [".cacheport"]])(
    "a link at %s is refused, with nothing removed",
    async (path) => {
      const layout = fixtureCopy("grown");
      const moved = join(tempFolder(), "moved");
      if (existsSync(join(layout, path))) renameSync(join(layout, path), moved);
      else mkdirSync(moved);
      symlinkSync(moved, join(layout, path));
      const before = snapshot(moved);
      const run = await cacheport(["gc", layout, "--grace", "0"]);
      expect(run.code).toBe(4);
      expect(run.stderr).toContain(`"${path}" is a symbolic link`);
      expect(run.stdout).toBe("");
      expect(snapshot(moved)).toEqual(before);
    },
  );

  test("a file at blobs is refused", async () => {
    const layout = fixtureCopy("grown");
    rmSync(join(layout, "blobs"), { recursive: true });
    writeFileSync(join(layout, "blobs"), "");
    const run = await cacheport(["gc", layout, "--grace", "0"]);
    expect(run.code).toBe(4);
    expect(run.stderr).toContain('"blobs" is a file');
  });

  test("a stray file among what was moved aside does not stop gc", async () => {
    const layout = fixtureCopy("grown");
    const trash = join(layout, ".cacheport", "trash-x");
    mkdirSync(join(trash, "sha256"), { recursive: true });
    cpSync(fixture("grown/index.json"), join(trash, "notes"));
    writeFileSync(join(trash, "sha256", "README"), "mine");
    const [name] = blobNames(layout);
    renameSync(
      join(layout, "blobs", "sha256", name as string),
      join(trash, "sha256", name as string),
    );
    const clean = fixtureCopy("grown");
    const expected = await gc(clean);
    const report = await gc(layout);
    expect(report.removed).toEqual(expected.removed);
    expect(blobNames(layout)).toEqual(blobNames(clean));
    expect(report.leftAlone.toSorted()).toEqual([
      ".cacheport/trash-x/notes",
      ".cacheport/trash-x/sha256/README",
    ]);
    expect(readdirSync(trash).toSorted()).toEqual(["notes", "sha256"]);
  });
});
