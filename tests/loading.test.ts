/** Which source files a command loads, and how often it waits for the disk: most of the time that a small command takes. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { BINARY } from "./helpers/binary.ts";
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

describe.skipIf(Bun.which("strace") === null)(
  "waits for the disk no more often than the promise needs",
  () => {
    test("convert in place: the manifest and its folder, the index and its folder", () => {
      const log = join(tempFolder(), "trace");
      const trace = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,syncfs", "-o", log];
      const run = Bun.spawnSync([...trace, BINARY, "convert", fixtureCopy("app-oci-index")]);
      expect(run.exitCode).toBe(0);
      const calls = readFileSync(log, "utf8").matchAll(/\b(fsync|fdatasync|syncfs)\(/g);
      expect([...calls].map(([, call]) => call)).toEqual(Array(4).fill("fsync"));
    });
  },
);

describe.skipIf(Bun.which("strace") === null)("loads nothing that it does not need", () => {
  test("tag and untag of a folder: no registry, no archive", () => {
    const layout = fixtureCopy("grown");
    for (const args of [
      ["tag", `${layout}:main`, "other"],
      ["untag", `${layout}:other`],
    ])
      expect(loadedFiles(...args).filter((name) => /^(?:registry|archive)/.test(name))).toEqual([]);
  });

  test("ls and resolve of a folder: nothing that writes, locks or knows builds", () => {
    const layout = fixtureCopy("app-oci-index");
    const others =
      /^(?:registry|archive|object-(?!place)|explain|inspect|cache-(?!manifest)|image-config|reachable|layout-(?:directory|lock|work|writer)|system-calls)/;
    for (const command of ["ls", "resolve"])
      expect(loadedFiles(command, layout).filter((name) => others.test(name))).toEqual([]);
  });

  test("convert in place: nothing that merges, heals, prunes, recompresses or explains", () => {
    const layout = fixtureCopy("app-oci-index");
    const others =
      /^(?:registry|archive|object-(?!place)|explain|inspect|merge|prune|recompress|cache-(?:donors|heal|import|inline|loops|losses|merge|order|prune|same))/;
    const loaded = loadedFiles("convert", layout);
    expect(loaded).toContain("convert");
    expect(loaded.filter((name) => others.test(name))).toEqual([]);
  });
});
