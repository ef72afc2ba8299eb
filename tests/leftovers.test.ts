/** What a killed run leaves, by the program's own list of what it makes. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TEMPORARIES } from "../src/layout-work.ts";
import type { Temporary } from "../src/layout-work.ts";
import { cacheport } from "./helpers/binary.ts";
import { fixtureCopy, tempFolder } from "./helpers/temp.ts";

/** Leaves a temporary as a killed run does. @returns Its path relative to the layout */
function leave(layout: string, { place, isFolder, isLocked, newName }: Temporary): string {
  const path = place === "work" ? join(".cacheport", newName()) : newName();
  if (!isFolder) {
    mkdirSync(join(layout, path, ".."), { recursive: true });
    writeFileSync(join(layout, path), "lock of cacheport\n");
    return path;
  }
  mkdirSync(join(layout, path, "sha256"), { recursive: true });
  if (isLocked) writeFileSync(join(layout, path, "lock"), "");
  return path;
}

describe("of every kind that there is", () => {
  test.each(TEMPORARIES.map((kind) => [String(kind.pattern), kind] as const))(
    "%s: verify tells of it, gc --grace 0 removes it",
    async (_title, kind) => {
      const layout = fixtureCopy("grown");
      await cacheport(["gc", layout, "--grace", "0"]);
      const before = readdirSync(layout).toSorted();
      const path = leave(layout, kind);
      const verified = await cacheport(["verify", layout, "--json"]);
      const told = verified.json().problems.map(({ message }: { message: string }) => message);
      expect(told).toEqual([expect.stringContaining(`"${path}"`)]);
      const run = await cacheport(["gc", layout, "--grace", "0"]);
      expect(run.code).toBe(0);
      expect(readdirSync(layout).toSorted()).toEqual(before);
      expect((await cacheport(["verify", layout, "--json"])).json().problems).toEqual([]);
    },
  );

  test("in a folder that is no layout the next run removes what has a lock", async () => {
    const kinds = TEMPORARIES.filter(({ place, isLocked }) => place === "anywhere" && isLocked);
    expect(kinds.length).toBeGreaterThan(1);
    for (const kind of kinds) {
      const folder = tempFolder();
      const TMPDIR = tempFolder();
      const path = leave(folder, kind);
      const elsewhere = leave(TMPDIR, kind);
      const target = join(folder, "layout");
      const run = await cacheport(["copy", fixtureCopy("image-dir"), target], { env: { TMPDIR } });
      expect(run.code).toBe(0);
      expect(existsSync(join(folder, path))).toBe(false);
      expect(readdirSync(folder)).toEqual(["layout"]);
      expect((await cacheport(["gc", target], { env: { TMPDIR } })).code).toBe(0);
      expect(existsSync(join(TMPDIR, elsewhere))).toBe(false);
    }
  });
});
