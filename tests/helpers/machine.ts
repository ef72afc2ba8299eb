/**
 * What this machine lets a test do. A test that cannot run here is skipped by
 * `test.skipIf(!...)`, where the last line counts it; it never returns early.
 */
import { tempFolder } from "./temp.ts";

/** The tests run as root. */
export const isRoot: boolean = process.getuid?.() === 0;

/** Tells whether a program is installed. */
export function has(program: string): boolean {
  return Bun.which(program) !== null;
}

/** A mounted file system in memory that ends with the `using` block. */
export interface SmallDisk {
  /** Its folder. */
  path: string;
  [Symbol.dispose](): void;
}

/** Mounts a file system of a given size (as tmpfs takes it: `1m`, `400k`). */
export function smallDisk(size: string): SmallDisk {
  const path = tempFolder();
  const command = ["mount", "-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path];
  const { exitCode, stderr } = Bun.spawnSync(command, { stderr: "pipe" });
  if (exitCode !== 0) throw new Error(`Cannot mount a tmpfs: ${stderr.toString()}`);
  return { path, [Symbol.dispose]: () => unmount(path) };
}

function unmount(path: string): void {
  Bun.spawnSync(["umount", "--lazy", path]);
}

/** File systems can be mounted: root in a container may not. */
export const canMount: boolean = isRoot && probe();

function probe(): boolean {
  try {
    using _ = smallDisk("64k");
    return true;
  } catch {
    return false;
  }
}
