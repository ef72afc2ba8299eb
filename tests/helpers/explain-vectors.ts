/** The vectors of `explain`: builds, caches and contexts, unpacked with their modes. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { tempFolder } from "./temp.ts";

let folder: string | undefined;

/** The folder of a case; see tests/fixtures/README.md for what is in it. */
export function vector(...path: string[]): string {
  // Each test file removes its temporary folders, and several may run in one process.
  if (folder === undefined || !existsSync(folder)) folder = unpack();
  return join(folder, ...path);
}

/** A JSON document of a case. */
export function vectorJson(...path: string[]): any {
  return JSON.parse(readFileSync(vector(...path), "utf8"));
}

function unpack(): string {
  const into = tempFolder();
  const packed = join(import.meta.dir, "..", "fixtures", "explain", "vectors.tar.zst");
  const child = Bun.spawnSync(["tar", "-xpf", "-", "--no-same-owner", "-C", into], {
    stdin: Bun.zstdDecompressSync(readFileSync(packed)),
  });
  if (!child.success) throw new Error(child.stderr.toString());
  return into;
}

/** The cases with a cache of A in mode=max. */
export const VECTOR_CASES = [
  "add",
  "base-label",
  "ci-app",
  "copy-flags",
  "copy-parents",
  "git",
  "heredoc-copy",
  "multi-platform",
  "multi-stage",
  "run-basic",
  "run-mounts",
  "scratch",
] as const;
