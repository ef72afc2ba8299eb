import { describe, expect, test } from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { blobFile, digestOfName, readDocument, readIndex, snapshot } from "./helpers/layout.ts";
import { started } from "./helpers/registry-client.ts";
import { fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

const GROWN = fixture("grown");
const PAIR = [`${GROWN}:main`, `${GROWN}:feature`] as const;

/** Runs `diff` and gives its JSON value; the run must end with 0 and say nothing else. */
async function diff(...args: string[]): Promise<any> {
  const run = await cacheport(["diff", ...args, "--json"]);
  expect(run.stderr).toBe("");
  expect(run.code).toBe(0);
  return run.json();
}

/** Digests of the layers of a cache of `grown`, straight from its manifest. */
const layersOf = (tag: string): string[] =>
  readDocument(GROWN, digestOfName(GROWN, tag) as string).layers.map(({ digest }: any) => digest);

describe("cacheport diff", () => {
  test("of two builds lists layers and records of each", async () => {
    const value = await diff(...PAIR);
    const [main, feature] = [layersOf("main"), layersOf("feature")];
    const digests = (layers: any[]) => layers.map(({ digest }) => digest);
    expect(digests(value.layers.onlyA)).toEqual(
      main.filter((digest) => !feature.includes(digest)).toSorted(),
    );
    expect(digests(value.layers.onlyB)).toEqual(
      feature.filter((digest) => !main.includes(digest)).toSorted(),
    );
    expect(value.layers.both.count).toBe(main.filter((digest) => feature.includes(digest)).length);
    expect(value).toMatchObject({
      equal: false,
      a: {
        location: PAIR[0],
        digest: digestOfName(GROWN, "main"),
        shape: "image-manifest",
        records: 14,
      },
      b: { digest: digestOfName(GROWN, "feature") },
      records: { both: 7 },
    });
    expect(value.records.onlyA).toHaveLength(7);
    expect(value.records.onlyB).toHaveLength(7);
    // Each miss leads to content that the other build does not have.
    for (const miss of [...value.records.onlyA, ...value.records.onlyB])
      expect(miss.cause.reason).toBe("content");
  });

  test("the other way round is the same with the sides changed", async () => {
    const one = await diff(...PAIR);
    const other = await diff(...PAIR.toReversed());
    const digests = (misses: any[]) => misses.map(({ digest }) => digest);
    expect(digests(other.records.onlyA)).toEqual(digests(one.records.onlyB));
    expect(other.layers.onlyB).toEqual(one.layers.onlyA);
    expect(other.size).toEqual({ a: one.size.b, b: one.size.a });
  });

  test("finds nothing between the shapes of one cache, in a folder, an archive, a pipe and a registry", async () => {
    const folder = fixture("app-image-manifest");
    const archive = join(tempFolder(), "cache.tar");
    await cacheport(["copy", fixture("app-docker-list"), archive]);
    const registry = await started(TestRegistry.start());
    const place = `${registry.domain}/app/cache:main`;
    await cacheport(["copy", fixture("app-oci-index"), place]);
    for (const [a, b] of [
      [folder, archive],
      [archive, place],
      [place, folder],
    ] as const) {
      const value = await diff(a, b);
      expect(value).toMatchObject({
        equal: true,
        records: { onlyA: [], onlyB: [], results: [] },
        layers: { onlyA: [], onlyB: [] },
      });
      expect(value.size.a).toBe(value.size.b);
    }
    const piped = await cacheport(["diff", "-", folder, "--json"], {
      stdin: readFileSync(archive),
    });
    expect(piped.json()).toMatchObject({
      equal: true,
      a: { location: "-", shape: "docker-list" },
    });
    const text = await cacheport(["diff", folder, folder]);
    expect(text.stdout).toContain("The caches have the same records, results and layers");
    expect(text.code).toBe(0);
  });

  test("between a part and a merge finds what the merge has more", async () => {
    const target = join(tempFolder(), "merged");
    await cacheport(["merge", ...PAIR, target]);
    const value = await diff(PAIR[0], target);
    expect(value.records.onlyA).toEqual([]);
    expect(value.layers.onlyA).toEqual([]);
    expect(value.records.onlyB.length).toBeGreaterThan(0);
  });

  test("between a cache and what prune left of it finds the results that went", async () => {
    const layout = fixtureCopy("grown");
    await cacheport(["prune", `${layout}:main`, "--keep-newest=2", "--tag=small"]);
    const value = await diff(`${layout}:main`, `${layout}:small`);
    expect(value.records).toMatchObject({ both: 14, onlyA: [], onlyB: [] });
    expect(value.records.results).toHaveLength(5);
    for (const { aLayer, bLayer } of value.records.results) {
      expect(aLayer).toBeString();
      expect(bLayer).toBeNull();
    }
  });

  test("--platform takes one cache out of an index", async () => {
    const index = join(tempFolder(), "index");
    await cacheport([
      "merge",
      "--as-index",
      "--platform=linux/amd64",
      "--platform=linux/arm64",
      fixture("multi-cache-amd64"),
      fixture("multi-cache-arm64"),
      index,
    ]);
    const arm64 = fixture("multi-cache-arm64");
    const one = await diff(index, arm64, "--platform=linux/arm64");
    expect(one.equal).toBe(true);
    const all = await diff(index, arm64);
    expect(all.equal).toBe(false);
    expect(all.a.shape).toBe("index-of-caches");
    const whole = await diff(index, fixture("multi-cache"));
    expect(whole.equal).toBe(true);
  });

  test("reads documents alone: layers may be missing", async () => {
    const layout = fixtureCopy("grown");
    for (const digest of layersOf("main")) rmSync(blobFile(layout, digest), { force: true });
    const before = snapshot(layout);
    await diff(`${layout}:main`, `${layout}:feature`);
    expect(snapshot(layout)).toEqual(before);
  });
});

describe("the text of cacheport diff", () => {
  test("counts first, then says of each record why", async () => {
    const { stdout, code } = await cacheport(["diff", ...PAIR]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^A: +\S+:main: image-manifest, 14 records, /m);
    expect(stdout).toMatch(/^records only in B: +7$/m);
    expect(stdout).toMatch(/^layers only in A: +4 \(41\.0 kB\)$/m);
    expect(stdout).toMatch(/^RECORD ONLY IN A +WHY +BEGINS AT +NEAREST IN BOTH +CREATED$/m);
    expect(stdout).toMatch(/^02c1c15a2f5a +other content +this record +none +-$/m);
    expect(stdout).toMatch(
      /^0bd0b7104eee +same step, other inputs +\w{12} \(other content\) +\w{12}, 1 below +2026-/m,
    );
    expect(stdout).toMatch(/^LAYER ONLY IN A +SIZE$/m);
  });

  test("is cut at 20 rows unless --all is given", async () => {
    const target = join(tempFolder(), "all");
    const all = [...PAIR, ...["app-oci-index", "dup-oci-index", "multi-cache"].map(fixture)];
    await cacheport(["merge", ...all, target]);
    const args = ["diff", target, fixture("multi-cache")];
    const { records } = await diff(...args.slice(1));
    const count = records.onlyA.length;
    expect(count).toBeGreaterThan(20);
    const cut = await cacheport(args);
    expect(cut.stdout).toContain(`... and ${count - 20} more; --all shows`);
    const whole = await cacheport([...args, "--all"]);
    expect(whole.stdout).not.toContain("... and");
    for (const { digest } of records.onlyA) expect(whole.stdout).toContain(digest.slice(7, 19));
  });
});

describe("what cannot be compared ends with one sentence", () => {
  test.each([
    [[PAIR[0]], 2, "B"],
    [[PAIR[0], `${GROWN}:nope`], 3, "nope"],
    [[PAIR[0], "./no-such-layout"], 3, "no-such-layout"],
    [[fixture("image-dir"), PAIR[0]], 4, "no build cache"],
    [["-", "-"], 2, "two archives"],
    [[...PAIR, "--platform=a b"], 2, "a b"],
  ])("%p: %d", async (args, code, words) => {
    const run = await cacheport(["diff", ...args], { stdin: "" });
    expect(run.code).toBe(code);
    expect(run.stderr).toContain(words);
    expect(run.stdout).toBe("");
  });

  test("a cache config that is missing", async () => {
    const layout = fixtureCopy("multi-cache");
    const { digest } = readIndex(layout).manifests[0];
    rmSync(blobFile(layout, readDocument(layout, digest).config.digest));
    const run = await cacheport(["diff", layout, PAIR[0], "--json"]);
    expect(run.code).toBe(4);
    expect(run.json().error.code).toBe("BLOB_MISSING");
  });
});

describe("the files of one step in both caches", () => {
  test("are compared where its inputs differ", async () => {
    const { steps, skippedSteps } = await diff(...PAIR);
    expect(skippedSteps).toBe(0);
    const copied = steps.find(({ files }: any) => files[0]?.path === "src/main.txt");
    // Straight from the layers: what tar says of them.
    const sizes = [copied.aLayer, copied.bLayer].map((layer: string) => {
      const listed = Bun.spawnSync(["tar", "-tzvf", blobFile(GROWN, layer)]).stdout.toString();
      return Number(/ (\d+) \S+ \S+ src\/main\.txt/.exec(listed)?.[1]);
    });
    expect(copied.files).toEqual([
      { path: "src/main.txt", change: "content", aSize: sizes[0], bSize: sizes[1] },
    ]);
    expect(copied.total).toBe(1);
    const run = await cacheport(["diff", ...PAIR]);
    expect(run.stdout).toContain(`  ~ src/main.txt ${sizes[0]} B -> ${sizes[1]} B\n`);
  });

  test("are compared where its results differ, and the record is named", async () => {
    const [a, b] = [fixture("donorA"), fixture("donorB")];
    const { steps } = await diff(a, b);
    expect(steps).toMatchObject([
      {
        digest: "sha256:d4a7f2aa33b26b2ceb83ca38280aad447b9214e495935f385f3126978f97d497",
        files: [{ path: "out", change: "content", aSize: 1, bSize: 1 }],
      },
    ]);
    const run = await cacheport(["diff", a, b]);
    expect(run.stdout).toContain("RECORD WITH OTHER RESULTS");
    expect(run.stdout).toContain("  ~ out 1 B, other content\n");
  });

  test("are not read with --no-files, and are skipped where a layer is not there", async () => {
    expect((await diff(...PAIR, "--no-files")).steps).toEqual([]);
    const layout = fixtureCopy("donorB");
    rmSync(
      blobFile(layout, "sha256:2e57bb73c427d5211671902ea041625efe45b8e8bd8db6fc12189c8e35a8584e"),
    );
    const value = await diff(fixture("donorA"), layout);
    expect(value.steps).toEqual([]);
    expect(value.skippedSteps).toBe(1);
  });
});
