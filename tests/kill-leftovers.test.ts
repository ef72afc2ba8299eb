/**
 * Every way of writing, killed without a chance to tidy up: what is left is gone after the
 * next run of the same kind and a gc, in the layout, beside it and in TMPDIR.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { cpSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { BINARY, cacheport } from "./helpers/binary.ts";
import { addBlob, layoutFaults, writeLayout } from "./helpers/layout.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";
import { OCI_LAYER, OCI_MANIFEST } from "../src/media-types.ts";

/** A layout that takes a moment to copy: two large layers and many small ones. */
function source(): string {
  const layout = join(tempFolder(), "source");
  mkdirSync(layout);
  const layers = [3_000_000, 2_000_000, ...Array.from({ length: 60 }, (_, i) => 100 + i)].map(
    (size) => addBlob(layout, randomBytes(size), OCI_LAYER),
  );
  const config = addBlob(layout, {}, "application/vnd.oci.empty.v1+json");
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers };
  const { digest, size } = addBlob(layout, manifest);
  const annotations = { "org.opencontainers.image.ref.name": "x" };
  writeLayout(layout, [{ mediaType: OCI_MANIFEST, digest, size, annotations }]);
  return layout;
}

const SOURCE = source();
const PACKED = join(tempFolder(), "source.tar.gz");

/** A shell command, in a folder with a layout `cache`; `$C` is the program. */
const WRITERS: [what: string, command: string][] = [
  ["a copy into a layout", `"$C" copy "${SOURCE}:x" cache`],
  ["a copy into a new layout", `"$C" copy "${SOURCE}:x" new`],
  ["a copy from a pipe", `cat "${PACKED}" | "$C" copy - cache`],
  ["a copy from a pipe into a new layout", `cat "${PACKED}" | "$C" copy - new`],
  ["a copy from a compressed archive", `"$C" copy "${PACKED}" cache`],
  ["a copy into an archive", `"$C" copy "${SOURCE}:x" new.tar`],
  ["a copy into a compressed archive", `"$C" copy --rewrite "${SOURCE}:x" new.tar.gz`],
  ["a conversion in place", `"$C" convert cache:main --to oci-index`],
  ["a recompression", `"$C" convert cache:main cache:zstd --compression zstd`],
  ["a recompression into an archive", `"$C" convert cache:main new.tar --compression zstd`],
  ["a merge", `"$C" merge cache:main "${fixture("app-zstd-oci-index")}" cache:both`],
  ["a prune", `"$C" prune cache:main --keep-newest=2`],
  ["a name", `"$C" tag cache:main other`],
  ["a gc", `"$C" gc cache --grace 0`],
  ["a listing of a compressed archive", `"$C" ls "${PACKED}"`],
];

const KILLS = 4;

describe("killed at any instant, the next run leaves nothing of it:", () => {
  beforeAll(async () => {
    expect((await cacheport(["copy", `${SOURCE}:x`, PACKED])).code).toBe(0);
  });

  test.each(WRITERS)("%s", async (_what, command) => {
    const folder = tempFolder();
    const TMPDIR = tempFolder();
    const env = { PATH: process.env["PATH"] ?? "", HOME: "/nonexistent", C: BINARY, TMPDIR };
    // In a process group of its own, so that no half of a pipe goes on.
    const run = () =>
      Bun.spawn(["setsid", "sh", "-c", command], {
        cwd: folder,
        env,
        stdout: "ignore",
        stderr: "ignore",
      });
    cpSync(fixture("grown"), join(folder, "cache"), { recursive: true });
    // How long it takes here tells where to kill; whatever it is, the end must be the same.
    const started = performance.now();
    expect(await run().exited).toBe(0);
    const took = performance.now() - started;
    for (let i = 0; i < KILLS; i++) {
      const child = run();
      await Bun.sleep((took * (i + 0.5)) / KILLS);
      try {
        process.kill(-child.pid, "SIGKILL");
      } catch {
        // It was done already.
      }
      await child.exited;
    }
    expect(await run().exited).toBe(0);
    expect((await cacheport(["gc", "cache", "--grace", "0"], { cwd: folder, env })).code).toBe(0);
    expect(readdirSync(TMPDIR)).toEqual([]);
    const beside = readdirSync(folder).filter(
      (name) => !/^(?:cache|new|new\.tar(?:\.gz)?)$/.test(name),
    );
    expect(beside).toEqual([]);
    // What a killed run was making is no layout yet; the run after it has made one.
    for (const layout of readdirSync(folder).filter((name) => !name.includes(".tar"))) {
      const path = join(folder, layout);
      const known = ["blobs", "index.json", "index.json.lock", "oci-layout"];
      expect(readdirSync(path).filter((name) => !known.includes(name))).toEqual([]);
      expect(layoutFaults(path)).toEqual([]);
    }
  });
});
