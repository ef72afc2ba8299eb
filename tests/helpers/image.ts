/** The image that `npm run image` makes, with the C library of this machine. */
import { existsSync } from "node:fs";
import { join } from "node:path";

const SCRIPT = join(import.meta.dir, "..", "..", "scripts", "image.ts");
const LIBC = "/lib/x86_64-linux-gnu/libc.so.6";

/** The C library of this machine does as well as one from Debian's package. */
export const canBuildImage: boolean =
  process.platform === "linux" && process.arch === "x64" && existsSync(LIBC);

/** Builds it for amd64 into `OUTDIR/image` and `OUTDIR/image.tar`. */
export function buildImage(outdir: string): { code: number; stderr: string } {
  const args = ["--only", "amd64", "--libc", "amd64=/", "--outdir", outdir];
  const child = Bun.spawnSync([process.execPath, SCRIPT, ...args]);
  return { code: child.exitCode, stderr: child.stderr.toString() };
}
