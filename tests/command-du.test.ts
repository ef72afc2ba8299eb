import { describe, expect, test } from "bun:test";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { measureLayout } from "../src/du.ts";
import { cacheport } from "./helpers/binary.ts";
import { addBlob, blobFile, readIndex, writeLayout } from "./helpers/layout.ts";
import { blobNames, fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";

const OPTIONS = { limits: DEFAULT_LIMITS, jobs: 4 };

/** What an entry reaches, by a walk of the test's own over whatever has a digest. */
function reach(layout: string, digest: string, found = new Set<string>()): Set<string> {
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    const { digest: next } = value as { digest?: string };
    if (next && blobNames(layout).includes(next.slice(7)) && !found.has(next))
      reach(layout, next, found);
    for (const item of Object.values(value)) visit(item);
  };
  found.add(digest);
  const bytes = readFileSync(blobFile(layout, digest));
  if (bytes[0] === 0x7b) visit(JSON.parse(bytes.toString()));
  return found;
}

const bytesOf = (layout: string, digests: Iterable<string>): number =>
  [...digests].reduce((sum, digest) => sum + statSync(blobFile(layout, digest)).size, 0);

describe("cacheport du", () => {
  test("each blob counts once: by name, shared, unreachable, and all together", async () => {
    const layout = fixtureCopy("grown");
    const run = await cacheport(["du", layout, "--json"]);
    expect(run.code).toBe(0);
    const usage = run.json();
    const [one, two] = readIndex(layout).manifests.map(({ digest }: any) => reach(layout, digest));
    expect(usage.names.map(({ bytes }: any) => bytes)).toEqual([
      bytesOf(layout, one),
      bytesOf(layout, two),
    ]);
    expect(usage.names[0].alone.bytes).toBe(bytesOf(layout, one.difference(two)));
    expect(usage.shared).toEqual({
      blobs: one.intersection(two).size,
      bytes: bytesOf(layout, one.intersection(two)),
    });
    const all = blobNames(layout).map((name) => `sha256:${name}`);
    const rest = new Set(all).difference(one.union(two));
    expect(usage.unreachable).toEqual({ blobs: rest.size, bytes: bytesOf(layout, rest) });
    expect(usage.total).toEqual({ blobs: all.length, bytes: bytesOf(layout, all) });
    const { removedBytes } = (await cacheport(["gc", layout, "--grace=0", "--json"])).json();
    expect(usage.unreachable.bytes).toBe(removedBytes);
    expect((await cacheport(["du", layout, "--json"])).json().unreachable.bytes).toBe(0);
  });

  test("prints a table, and leaves everything as it is", async () => {
    const layout = fixtureCopy("grown");
    const { code, stdout } = await cacheport(["du", layout]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^NAME +BLOBS +SIZE +ALONE\n/);
    for (const line of ["shared by several names", "reached by no name", "older than", "total"])
      expect(stdout).toContain(line);
  });

  test("an entry that cannot be followed hides only what nobody can know", async () => {
    const layout = tempFolder();
    const config = addBlob(layout, {}, "application/vnd.oci.empty.v1+json");
    const manifest = {
      ...addBlob(layout, { schemaVersion: 2, config, layers: [] }),
      mediaType: "application/vnd.oci.image.manifest.v1+json",
    };
    const strange = { ...addBlob(layout, { odd: [config] }), mediaType: "application/x.odd+json" };
    const name = (descriptor: object, ref: string) => ({
      ...descriptor,
      annotations: { "org.opencontainers.image.ref.name": ref },
    });
    writeLayout(layout, [name(manifest, "good"), name(strange, "odd"), name(manifest, "twin")]);
    const run = await cacheport(["du", layout, "--json"]);
    expect(run.code).toBe(0);
    const { names, unreachable } = run.json();
    expect(names.map((each: any) => each.names)).toEqual([["good", "twin"], ["odd"]]);
    expect(names[0]).toMatchObject({ blobs: 2, problem: null });
    expect(names[1].problem).toContain("application/x.odd+json");
    expect(names[1].problem).not.toContain("garbage");
    expect(unreachable).toBeNull();
  });

  test("ages are those of the files, and the present is not looked at twice", async () => {
    const layout = fixtureCopy("app-oci-index");
    const newest = Math.max(
      ...blobNames(layout).map((name) => statSync(blobFile(layout, `sha256:${name}`)).mtimeMs),
    );
    const later = await measureLayout(layout, { ...OPTIONS, now: newest + 8 * 86_400_000 });
    expect(later.ages.map(({ blobs }) => blobs)).toEqual([0, 0, later.total.blobs, 0]);
    const sums = later.ages.reduce((sum, { bytes }) => sum + bytes, 0);
    expect(sums).toBe(later.total.bytes);
  });

  test("counts what interrupted writers left", async () => {
    const layout = fixtureCopy("app-oci-index");
    writeFileSync(join(layout, "index.json.cacheport-1"), "12345");
    expect((await measureLayout(layout, OPTIONS)).leftovers).toEqual({ files: 0, bytes: 0 });
    const name = "index.json.cacheport-01234567-89ab-cdef-0123-456789abcdef";
    writeFileSync(join(layout, name), "12345");
    expect((await measureLayout(layout, OPTIONS)).leftovers).toEqual({ files: 1, bytes: 5 });
  });

  test.each([
    [fixture("image.tar"), 2],
    [`${fixture("grown")}:main`, 2],
    ["/nowhere/at/all", 3],
  ])("%s cannot be measured", async (location, code) => {
    const run = await cacheport(["du", location]);
    expect(run.code).toBe(code);
    expect(run.stderr.split("\n")[0]).toContain("Cannot");
  });
});
