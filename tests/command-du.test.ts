import { describe, expect, test } from "bun:test";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { measureLayout } from "../src/du.ts";
import { measureUnreached } from "../src/reachable.ts";
import { LayoutDirectory } from "../src/layout-directory.ts";
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

describe("ls of a layout folder", () => {
  test("says in one line what no name reaches and how to remove it; its JSON stays a list of names", async () => {
    const layout = fixtureCopy("grown");
    const { unreachable } = (await cacheport(["du", layout, "--json"])).json();
    for (const options of [[], ["--tree"], ["--json"]]) {
      const run = await cacheport(["ls", layout, ...options]);
      expect([run.code, run.stderr]).toEqual([
        0,
        expect.stringMatching(
          new RegExp(
            `^No name reaches ${unreachable.blobs} blobs \\([\\d.]+ [kM]?B\\): "cacheport gc ${layout}" removes what is older than its grace\n$`,
          ),
        ),
      ]);
    }
    const names = (await cacheport(["ls", layout, "--json"])).json();
    expect(names.map(({ refName }: any) => refName)).toEqual(["main", "feature"]);
    await cacheport(["gc", layout, "--grace", "0"]);
    expect((await cacheport(["ls", layout])).stderr).toBe("");
  });

  test("says nothing of it where one name is asked for, or the names alone, or in an archive", async () => {
    const layout = fixtureCopy("grown");
    for (const args of [[`${layout}:main`], [layout, "--names"], [fixture("image.tar")]])
      expect((await cacheport(["ls", ...args])).stderr).toBe("");
  });

  test("does not count what refers to a named manifest, and is silent where gc would refuse", async () => {
    const layout = tempFolder();
    const config = addBlob(layout, {}, "application/vnd.oci.empty.v1+json");
    const mediaType = "application/vnd.oci.image.manifest.v1+json";
    const manifest = (extra: object) => ({
      ...addBlob(layout, { schemaVersion: 2, mediaType, config, layers: [], ...extra }),
      mediaType,
    });
    const named = manifest({});
    manifest({ subject: named });
    writeLayout(layout, [named]);
    expect((await cacheport(["ls", layout])).stderr).toBe("");
    addBlob(layout, "nobody's");
    expect((await cacheport(["ls", layout])).stderr).toStartWith("No name reaches 1 blob (8 B): ");
    const odd = { ...addBlob(layout, { odd: [config] }), mediaType: "application/x.odd+json" };
    writeLayout(layout, [named, odd]);
    expect((await cacheport(["ls", layout])).stderr).toBe("");
  });

  test("opens no layer for it", async () => {
    const layout = fixtureCopy("grown");
    const store = await LayoutDirectory.open(layout, OPTIONS);
    const opened: string[] = [];
    const watched = new Proxy(store, {
      get(target, key) {
        const value = Reflect.get(target, key);
        if (typeof value !== "function") return value;
        return (...args: any[]) => {
          if (key === "open" || key === "read") opened.push(args[0].digest);
          return value.apply(target, args);
        };
      },
    });
    const amount = await measureUnreached(watched, layout, await store.list(), OPTIONS);
    expect(amount).toEqual((await measureLayout(layout, OPTIONS)).unreachable);
    await store.close();
    const layers = readIndex(layout)
      .manifests.flatMap(({ digest }: any) => [...reach(layout, digest)])
      .filter((digest: string) => readFileSync(blobFile(layout, digest))[0] !== 0x7b);
    expect(layers.length).toBeGreaterThan(0);
    expect(new Set(opened).intersection(new Set(layers)).size).toBe(0);
    expect(opened.length).toBeGreaterThan(0);
  });
});
