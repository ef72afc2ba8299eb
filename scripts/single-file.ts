#!/usr/bin/env bun
/**
 * The entry of cacheport.js, the one file for people who have Bun: the program on the main
 * thread, and on every other one the thread that it starts, which is this file again.
 */

// A module without imports of its own, for the sake of `await`.
export {};

// scripts/compile.ts puts the version in the place of this name.
declare const BUILD_BUN: string;

// An older Bun lacks parts of the language and says so in the middle of the work.
if (Bun.semver.order(Bun.version, BUILD_BUN) < 0) {
  console.error(
    `error: Cannot run cacheport.js with Bun ${Bun.version}: it needs ${BUILD_BUN} or later\nhint: "bun upgrade" brings one, and the program for your system needs no Bun at all`,
  );
  process.exitCode = 1;
} else if (Bun.isMainThread) {
  await import("../src/main.ts");
} else {
  await import("../src/blob-worker.ts");
}
