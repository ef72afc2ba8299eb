/** Temporary folders that are gone after the test file. */
import { chmodSync, cpSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FIXTURES = join(import.meta.dir, "..", "fixtures");
const folders: string[] = [];

/** Removes them all; tests/helpers/preload.ts calls it, for every test file. */
export function removeTempFolders(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

/** Makes an empty temporary folder. */
export function tempFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "cacheport-test-"));
  // Peers that run as another user look into it.
  chmodSync(folder, 0o755);
  folders.push(folder);
  return folder;
}

/** The path of a fixture; it must not be written to. */
export function fixture(name: string): string {
  return join(FIXTURES, name);
}

/** A writable copy of a fixture. */
export function fixtureCopy(name: string): string {
  const target = join(tempFolder(), name);
  cpSync(fixture(name), target, { recursive: true });
  return target;
}

/** The names of a layout's blobs in one algorithm, sorted. */
export function blobNames(layout: string, algorithm = "sha256"): string[] {
  return readdirSync(join(layout, "blobs", algorithm)).toSorted();
}
