import { describe, expect, test } from "bun:test";
import { rmSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import {
  addBlob,
  blobFile,
  digestOfName,
  layoutFaults,
  readDocument,
  readIndex,
  snapshot,
  writeLayout,
} from "./helpers/layout.ts";
import { started } from "./helpers/registry-client.ts";
import { blobNames, fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0";
const LAYER = "application/vnd.oci.image.layer.v1.tar";
const HOUR = 3_600_000;

/** The document of a name, with its layers and its config. */
function cacheOf(layout: string, name: string) {
  const document = readDocument(layout, digestOfName(layout, name) as string);
  const { config, manifests } = document;
  return {
    document,
    layers: (document.layers ?? manifests.slice(0, -1)) as {
      digest: string;
      size: number;
    }[],
    config: readDocument(layout, (config ?? manifests.at(-1)).digest),
  };
}

/** The times of all results of a cache, the newest first. */
function times({ config }: ReturnType<typeof cacheOf>): string[] {
  return config.records
    .flatMap(({ layers = [] }: any) => layers)
    .map(({ createdAt }: any) => createdAt)
    .toSorted()
    .toReversed();
}

/** Bytes of the layers of a cache, each counted once. */
function sizeOf({ layers }: ReturnType<typeof cacheOf>): number {
  return new Map(layers.map(({ digest, size }) => [digest, size]))
    .values()
    .reduce((sum, size) => sum + size, 0);
}

/** Runs `prune` and gives its JSON value; the run must end with 0 and say nothing else. */
async function prune(...args: string[]): Promise<any> {
  const run = await cacheport(["prune", ...args, "--json"]);
  expect(run.stderr).toBe("");
  expect(run.code).toBe(0);
  return run.json();
}

/** A layout with a chain of steps, each a layer of 100 bytes, made so many hours ago. */
function agedCache(...hours: number[]): string {
  const layout = tempFolder();
  const layers = hours.map((_, n) => addBlob(layout, `${n}`.padStart(100, "0"), LAYER));
  const order = layers
    .map((layer, at) => ({ ...layer, at }))
    .toSorted((a, b) => (a.digest < b.digest ? -1 : 1));
  const place = (at: number) => order.findIndex((each) => each.at === at);
  const config = {
    layers: order.map(({ digest, at }) => ({
      blob: digest,
      parent: at === 0 ? -1 : place(at - 1) || undefined,
    })),
    records: hours.map((ago, at) => ({
      layers: [
        {
          layer: place(at),
          createdAt: new Date(Date.now() - ago * HOUR).toISOString(),
        },
      ],
      digest: `sha256:${String(at).padStart(64, "0")}`,
      inputs: at === 0 ? undefined : [[{ link: at - 1 }]],
    })),
  };
  const manifest = addBlob(
    layout,
    {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: addBlob(layout, config, CACHE_CONFIG),
      layers: order.map(({ at: _at, ...layer }) => layer),
    },
    OCI_MANIFEST,
  );
  writeLayout(layout, [
    {
      ...manifest,
      annotations: { "org.opencontainers.image.ref.name": "latest", x: "y" },
    },
  ]);
  return layout;
}

/** Makes every blob look as if it were two hours old. */
function makeOld(layout: string): void {
  const time = (Date.now() - 2 * HOUR) / 1000;
  for (const name of blobNames(layout))
    utimesSync(join(layout, "blobs", "sha256", name), time, time);
}

describe("limits", () => {
  test("--max-size drops results until the layers fit", async () => {
    const layout = fixtureCopy("grown");
    const before = cacheOf(layout, "main");
    const main = digestOfName(layout, "main");
    const feature = digestOfName(layout, "feature");
    const blobs = blobNames(layout);
    const value = await prune(`${layout}:main`, "--max-size", "100kB");
    const after = cacheOf(layout, "main");
    const left = after.layers.map(({ digest }) => digest);
    const gone = before.layers
      .map(({ digest }) => digest)
      .filter((digest) => !left.includes(digest));
    expect(value).toEqual({
      mediaType: OCI_MANIFEST,
      digest: digestOfName(layout, "main"),
      size: readIndex(layout).manifests.find(({ digest }: any) => digest === value.digest).size,
      shape: "image-manifest",
      names: ["main"],
      blobs: { copied: 0, skipped: 2, bytes: 0 },
      to: { kind: "folder", location: layout, new: false },
      moved: [{ name: "main", from: main, to: value.digest }],
      records: after.config.records.length,
      totalSize: 20_446,
      dropped: {
        records: 0,
        results: 5,
        layers: gone.toSorted().map((digest) => expect.objectContaining({ digest })),
        bytes: sizeOf(before) - 20_446,
      },
      outcome: "smaller",
      gc: null,
      dryRun: false,
    });
    expect(sizeOf(after)).toBe(20_446);
    expect(left).toEqual(after.config.layers.map(({ blob }: any) => blob));
    // The other name is not touched, and blobs stay until gc.
    expect(digestOfName(layout, "feature")).toBe(feature);
    expect(blobNames(layout)).toEqual(expect.arrayContaining(blobs));
    expect(layoutFaults(layout)).toEqual([]);
    const verified = await cacheport(["verify", layout, "--json"]);
    expect(verified.json().ok).toBe(true);
  });

  test("--keep-newest alone keeps that many and what costs nothing more", async () => {
    const layout = fixtureCopy("grown");
    const before = times(cacheOf(layout, "main"));
    expect(before).toHaveLength(7);
    const value = await prune(`${layout}:main`, "--keep-newest", "2");
    expect(value.dropped.results).toBe(5);
    expect(times(cacheOf(layout, "main"))).toEqual(before.slice(0, 2));
    // The third stands on layers of three older ones, which stay with it.
    const other = fixtureCopy("grown");
    await prune(`${other}:main`, "--keep-newest=3");
    const kept = times(cacheOf(other, "main"));
    expect(kept.length).toBeGreaterThan(3);
    expect(kept.slice(0, 3)).toEqual(before.slice(0, 3));
  });

  test("--max-age drops what is older, --keep-newest spares the newest of it", async () => {
    const young = agedCache(5, 30, 20, 1);
    // The second result has to go, but the third stands on its layer.
    expect(await prune(young, "--max-age", "1d")).toMatchObject({
      outcome: "unchanged",
    });
    const old = agedCache(5, 30, 40);
    const value = await prune(old, "--max-age", "1d");
    expect(value.dropped).toMatchObject({ results: 2, records: 2, bytes: 200 });
    expect(times(cacheOf(old, "latest"))).toHaveLength(1);
    const spared = agedCache(5, 30, 40);
    const kept = await prune(spared, "--max-age=1d", "--keep-newest=2");
    expect(kept.dropped).toMatchObject({ results: 1, bytes: 100 });
  });

  test("--drop-layer drops every result on that layer, and no other", async () => {
    const layout = fixtureCopy("grown");
    const { layers } = cacheOf(layout, "main");
    const base = layers.find(({ size }) => size > 1_000_000)!.digest;
    const value = await prune(`${layout}:main`, "--drop-layer", base);
    expect(value.dropped.layers.map(({ digest }: any) => digest)).toContain(base);
    const left = cacheOf(layout, "main");
    expect(times(left)).toHaveLength(2);
    expect(sizeOf(left)).toBe(20_446);
    const again = await cacheport(["prune", `${layout}:main`, "--drop-layer", base, "--json"]);
    expect(again.code).toBe(0);
    expect(again.json()).toMatchObject({
      outcome: "unchanged",
      digest: value.digest,
    });
    expect(again.stderr).toContain(`no layer ${base}`);
  });

  test("the result is one that is in BuildKit's order, in the shape that it had", async () => {
    for (const shape of ["oci-index", "docker-list"]) {
      const layout = fixtureCopy(`app-${shape}`);
      const value = await prune(layout, "--keep-newest=3");
      expect(value.shape).toBe(shape);
      const { document, config } = cacheOf(layout, "latest");
      expect(value.mediaType).toBe(document.mediaType);
      const text = JSON.stringify(config);
      await cacheport(["merge", layout, `${layout}:again`]);
      expect(JSON.stringify(cacheOf(layout, "again").config)).toBe(text);
    }
  });
});

describe("limits that hold nothing back", () => {
  test.each([
    "app-image-manifest",
    "app-oci-index",
    "app-docker-list",
    "dup-docker-list",
    "multi-cache",
  ])("write nothing to %s", async (name) => {
    const layout = fixtureCopy(name);
    const before = snapshot(layout);
    for (const limit of ["--max-size=1GB", "--keep-newest=99"]) {
      const value = await prune(layout, limit);
      expect(value).toMatchObject({
        digest: digestOfName(layout, "latest"),
        outcome: "unchanged",
        names: ["latest"],
        dropped: { records: 0, results: 0, layers: [], bytes: 0 },
      });
    }
    expect(snapshot(layout)).toEqual(before);
  });

  test("still give a name that --tag asks for", async () => {
    const layout = fixtureCopy("app-oci-index");
    const digest = digestOfName(layout, "latest");
    const value = await prune(layout, "--max-size=1GB", "--tag=copy");
    expect(value).toMatchObject({ digest, names: ["copy"] });
    expect(digestOfName(layout, "copy")).toBe(digest);
  });

  test("keep the digest of a document that is written in another way", async () => {
    const layout = agedCache(1);
    const { document } = cacheOf(layout, "latest");
    const odd = addBlob(layout, JSON.stringify(document, null, 3), OCI_MANIFEST);
    writeLayout(layout, [odd]);
    const value = await prune(layout, "--max-age=1w", "-t", "same");
    expect(value.digest).toBe(odd.digest);
    expect(digestOfName(layout, "same")).toBe(odd.digest);
  });
});

describe("limits that leave nothing", () => {
  test("leave the cache as it is, with a note and exit code 0", async () => {
    const layout = fixtureCopy("grown");
    const before = snapshot(layout);
    const digest = digestOfName(layout, "main");
    for (const tag of [[], ["--tag=none"]]) {
      const run = await cacheport(["prune", `${layout}:main`, "--max-size=0", ...tag, "--json"]);
      expect(run.code).toBe(0);
      expect(run.stderr).toContain("No result would be left");
      expect(run.stderr).toContain(`cacheport untag ${layout}:main`);
      expect(run.json()).toMatchObject({
        digest,
        outcome: "empty",
        names: ["main"],
        records: 14,
        dropped: { results: 0, layers: [] },
      });
    }
    expect(snapshot(layout)).toEqual(before);
  });
});

describe("where the result goes", () => {
  test("the name is moved and the entry keeps its place and annotations", async () => {
    const layout = agedCache(1, 2, 3);
    const { digest } = await prune(layout, "--keep-newest=1");
    expect(readIndex(layout).manifests).toEqual([
      expect.objectContaining({
        digest,
        annotations: { "org.opencontainers.image.ref.name": "latest", x: "y" },
      }),
    ]);
  });

  test("--tag keeps the old name", async () => {
    const layout = fixtureCopy("grown");
    const before = digestOfName(layout, "main");
    const { digest, names } = await prune(
      `${layout}:main`,
      "--keep-newest=2",
      "--tag=small",
      "-t",
      "reg.example/app:small2",
    );
    expect(names).toEqual(["small", "reg.example/app:small2"]);
    expect(digestOfName(layout, "main")).toBe(before);
    expect(digestOfName(layout, "small")).toBe(digest);
    expect(layoutFaults(layout)).toEqual([]);
  });

  test("a digest has no name that could be moved", async () => {
    const layout = fixtureCopy("grown");
    const names = new Set(readIndex(layout).manifests.map(({ digest }: any) => digest));
    const digest = blobNames(layout)
      .map((name) => `sha256:${name}`)
      .find((each) => {
        if (names.has(each)) return false;
        try {
          return readDocument(layout, each).schemaVersion === 2;
        } catch {
          return false;
        }
      });
    const args = ["prune", `${layout}@${digest}`, "--keep-newest=2"];
    const run = await cacheport(args);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("--tag");
    expect((await cacheport([...args, "--tag=found"])).code).toBe(0);
    expect(digestOfName(layout, "found")).toBeString();
  });

  test("an archive is added to", async () => {
    const archive = join(tempFolder(), "cache.tar");
    await cacheport(["copy", `${fixture("grown")}:main`, archive]);
    const layout = fixtureCopy("grown");
    const { digest } = await prune(`${layout}:main`, "--keep-newest=2");
    const value = await prune(archive, "--keep-newest=2");
    expect(value).toMatchObject({ digest, names: ["main"] });
    const verified = await cacheport(["verify", archive, "--json"]);
    expect(verified.json().ok).toBe(true);
  });

  test("a registry gets two documents and no blob", async () => {
    const registry = await started(TestRegistry.start());
    const place = `${registry.domain}/app/cache:main`;
    await cacheport(["copy", `${fixture("grown")}:main`, place]);
    const repository = registry.repository("app/cache");
    const blobs = repository.blobs.size;
    const dry = await prune(place, "--keep-newest=2", "--dry-run");
    const sent = registry.seen.length;
    const value = await prune(place, "--keep-newest=2");
    expect(value.digest).toBe(dry.digest);
    expect(repository.tags.get("main")).toBe(value.digest);
    expect(repository.blobs.size).toBe(blobs + 1);
    const writes = registry.seen.slice(sent).filter(({ method }) => method === "PUT");
    expect(writes).toHaveLength(2);
    const same = registry.seen.length;
    await prune(place, "--keep-newest=2");
    expect(
      registry.seen.slice(same).every(({ method }) => method === "GET" || method === "HEAD"),
    ).toBe(true);
  });
});

describe("--dry-run", () => {
  test("tells what is done without it, and writes nothing", async () => {
    const layout = fixtureCopy("grown");
    const before = snapshot(layout);
    const args = [`${layout}:main`, "--max-size=100kB"];
    const dry = await prune(...args, "--dry-run");
    expect(snapshot(layout)).toEqual(before);
    const real = await prune(...args);
    expect(dry).toEqual({
      ...real,
      blobs: { copied: 0, skipped: 0, bytes: 0 },
      dryRun: true,
    });
    const text = await cacheport([
      "prune",
      `${fixture("grown")}:main`,
      "--max-size=100kB",
      "--dry-run",
    ]);
    expect(text.stdout).toMatch(/^would drop: +5 results, 0 records, 6 layers \(1\.16 MB\)$/m);
    expect(text.stdout).toMatch(/^left: +14 records, 2 layers \(20\.4 kB\)$/m);
  });

  test("with --gc says that gc's share is not known yet", async () => {
    const layout = fixtureCopy("grown");
    const before = snapshot(layout);
    const run = await cacheport([
      "prune",
      `${layout}:main`,
      "--keep-newest=2",
      "--gc",
      "--grace=0",
      "--dry-run",
      "--json",
    ]);
    expect(run.code).toBe(0);
    expect(run.json().gc).toBeNull();
    expect(run.stderr).toContain(`cacheport gc ${layout} --dry-run`);
    expect(snapshot(layout)).toEqual(before);
  });
});

describe("--gc", () => {
  test("removes in the same run what no name reaches any more", async () => {
    const layout = fixtureCopy("grown");
    makeOld(layout);
    const value = await prune(`${layout}:main`, "--keep-newest=2", "--gc");
    expect(value.gc.removed.length).toBeGreaterThan(0);
    expect(value.gc).toMatchObject({
      kept: blobNames(layout).length,
      dryRun: false,
    });
    expect(layoutFaults(layout)).toEqual([]);
    // What the other name reaches is there still.
    const feature = cacheOf(layout, "feature");
    const main = cacheOf(layout, "main");
    const reached = new Set([
      ...feature.layers.map(({ digest }) => digest),
      ...main.layers.map(({ digest }) => digest),
    ]);
    expect(blobNames(layout)).toHaveLength(reached.size + 4);
  });

  test("keeps what is young, and says so", async () => {
    const layout = fixtureCopy("grown");
    const run = await cacheport(["prune", `${layout}:main`, "--keep-newest=2", "--gc"]);
    expect(run.code).toBe(0);
    expect(run.stderr).toContain("younger than --grace");
    expect(run.stdout).toMatch(/^collected: +0 blobs \(0 B\)$/m);
    const zero = await prune(`${layout}:main`, "--keep-newest=2", "--gc", "--grace=0");
    expect(zero.outcome).toBe("unchanged");
    expect(zero.gc.removed.length).toBeGreaterThan(0);
  });

  test.each([fixture("image.tar"), "docker://registry.invalid/app"])(
    "is for folders, not for %s",
    async (location) => {
      const args = ["prune", location, "--keep-newest=2", "--gc"];
      const run = await cacheport(args);
      expect(run.code).toBe(2);
      expect(run.stderr).toContain("it is for layout folders");
    },
  );
});

describe("what is wrong is answered with one sentence, and nothing is changed", () => {
  test("a layer that would stay is missing; one that goes may be", async () => {
    const layout = agedCache(1, 2);
    const [first, second] = [0, 1].map(
      (n) => addBlob(layout, `${n}`.padStart(100, "0")).digest,
    ) as [string, string];
    rmSync(blobFile(layout, first));
    const before = snapshot(layout);
    const run = await cacheport(["prune", layout, "--keep-newest=1"]);
    expect(run.code).toBe(4);
    expect(run.stderr).toContain(`its layer ${first} is missing`);
    expect(run.stderr).toContain("--drop-layer");
    expect(snapshot(layout)).toEqual(before);
    addBlob(layout, "0".padStart(100, "0"));
    rmSync(blobFile(layout, second));
    const value = await prune(layout, "--drop-layer", second);
    expect(value.dropped.results).toBe(1);
    expect(layoutFaults(layout)).toEqual([]);
  });

  test("caches that cannot be written back as they are", async () => {
    const image = await cacheport(["prune", fixture("image-inline"), "--max-size=1kB"]);
    expect(image.code).toBe(2);
    expect(image.stderr).toContain("part of an image");
    expect(image.stderr).toContain("cacheport convert");
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
    const run = await cacheport(["prune", index, "--max-size=1kB"]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("an index of several caches");
  });

  test.each([
    [[], 2, "--keep-newest"],
    [["--max-size=much"], 2, "max-size"],
    [["--max-age=-1h"], 2, "max-age"],
    [["--keep-newest=-1"], 2, "keep-newest"],
    [["--keep-newest=1.5"], 2, "keep-newest"],
    [["--drop-layer=eb255a83b5a3"], 4, "digest"],
    [["--keep-newest=1", "--grace=0"], 2, "--gc"],
  ])("%p ends with exit code %d", async (options, code, words) => {
    const layout = fixtureCopy("grown");
    const before = snapshot(layout);
    const run = await cacheport(["prune", `${layout}:main`, ...options]);
    expect(run.code).toBe(code);
    expect(run.stderr).toContain(words);
    expect(run.stderr.trim().split("\n").length).toBeLessThanOrEqual(2);
    expect(run.stdout).toBe("");
    expect(snapshot(layout)).toEqual(before);
  });

  test.each([
    ["./no-such-layout", 3],
    [`${fixture("grown")}:nope`, 3],
    [fixture("grown"), 3],
    [fixture("image-dir"), 4],
    ["-", 2],
  ])("%s ends with exit code %d", async (location, code) => {
    const args = ["prune", location, "--max-size=1kB"];
    const run = await cacheport(args, { stdin: "" });
    expect(run.stderr).not.toMatch(/\bat .*\.ts/);
    expect(run.code).toBe(code);
  });
});
