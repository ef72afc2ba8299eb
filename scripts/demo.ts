/**
 * The main job, end to end, on a real cache that BuildKit wrote: shows what it was,
 * converts it with the compiled binary, shows what it became.
 */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const binary = join(root, "dist", "cacheport");
const folder = mkdtempSync(join(tmpdir(), "cacheport-demo-"));
cpSync(join(root, "tests", "fixtures", "app-oci-index"), join(folder, "cache"), {
  recursive: true,
});

function run(...args: string[]): void {
  console.log(`\n$ cacheport ${args.join(" ")}`);
  const { exitCode } = Bun.spawnSync([binary, ...args], {
    cwd: folder,
    stdout: "inherit",
    stderr: "inherit",
  });
  if (exitCode !== 0) throw new Error(`cacheport ended with exit code ${exitCode}`);
}

try {
  console.log("A cache as BuildKit wrote it before version 0.21: an index of layers.");
  run("ls", "cache");
  run("inspect", "cache");
  run("convert", "cache", "--to", "image-manifest");
  console.log("\nThe same cache, now an image manifest that every registry takes:");
  run("ls", "cache", "--digests");
  run("verify", "cache");
} finally {
  rmSync(folder, { recursive: true, force: true });
}
