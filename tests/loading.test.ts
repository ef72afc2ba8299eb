/** Which source files a command loads: loading is most of the time that a small command takes. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fixtureCopy, tempFolder } from "./helpers/temp.ts";

const MAIN = join(import.meta.dir, "..", "src", "main.ts");

/** The names of the source files that a run opens, told by the system's own calls. */
function loadedFiles(...args: string[]): string[] {
  const log = join(tempFolder(), "trace");
  const trace = ["strace", "-f", "-qq", "-e", "trace=openat", "-o", log];
  const run = Bun.spawnSync([...trace, process.execPath, MAIN, ...args]);
  expect(run.stderr.toString()).toBe("");
  expect(run.exitCode).toBe(0);
  const paths = readFileSync(log, "utf8").matchAll(/\/src\/([a-z0-9-]+)\.ts"/g);
  return [...new Set([...paths].map((match) => match[1] as string))];
}

describe.skipIf(Bun.which("strace") === null)("loads nothing that it does not need", () => {
  test("tag and untag of a folder: no registry, no archive", () => {
    const layout = fixtureCopy("grown");
    for (const args of [
      ["tag", `${layout}:main`, "other"],
      ["untag", `${layout}:other`],
    ])
      expect(loadedFiles(...args).filter((name) => /^(?:registry|archive)/.test(name))).toEqual([]);
  });
});
