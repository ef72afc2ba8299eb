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
    [["--drop-layer=eb255a"], 2, "digest"],
    [["--drop-layer=sha256:EB255A83B5A3"], 2, "digest"],
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

/** A layout with one cache of a chain of steps, the newest last, and sizes of a few bytes. */
function chainCache(count: number, digestLength: number, layout = tempFolder()): string {
  const layers = Array.from({ length: count }, (_, at) => addBlob(layout, `layer ${at}`, LAYER));
  const order = layers
    .map((_, at) => at)
    .toSorted((a, b) => ((layers[a]?.digest ?? "") < (layers[b]?.digest ?? "") ? -1 : 1));
  const place = (at: number): number => order.indexOf(at);
  const config = {
    layers: order.map((at) => ({ blob: layers[at]?.digest, parent: -1 })),
    records: layers.map((_, at) => ({
      layers: [
        { layer: place(at), createdAt: new Date(Date.UTC(2026, 0, 1) + at * 1000).toISOString() },
      ],
      digest: `key ${String(at).padStart(digestLength, "0")}`,
      ...(at > 0 && { inputs: [[{ link: at - 1 }]] }),
    })),
  };
  const manifest = addBlob(
    layout,
    {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: addBlob(layout, config, CACHE_CONFIG),
      layers: order.map((at) => layers[at]),
    },
    OCI_MANIFEST,
  );
  writeLayout(layout, [
    { ...manifest, annotations: { "org.opencontainers.image.ref.name": "latest" } },
  ]);
  return layout;
}

const MIB = 2 ** 20;

describe("--fit", () => {
  test("brings both documents under 1 MiB, and what is left needs nothing that went", async () => {
    for (const [count, length] of [
      [400, 5000],
      [6000, 10],
    ] as const) {
      const layout = chainCache(count, length);
      const value = await prune(layout, "--fit");
      expect(value.outcome).toBe("smaller");
      const { config } = readDocument(layout, value.digest);
      const sizes = [value.size, config.size];
      for (const size of sizes) expect(size).toBeLessThanOrEqual(MIB);
      // It is near the limit: no more went than had to.
      expect(Math.max(...sizes)).toBeGreaterThan(0.97 * MIB);
      expect(layoutFaults(layout)).toEqual([]);
      // The start of the chain is left, since all that follows is built on it.
      const { records } = readDocument(layout, config.digest);
      expect(records[0].digest).toBe(`key ${"0".padStart(length, "0")}`);
      const again = await prune(layout, "--fit");
      expect(again.outcome).toBe("unchanged");
      expect(again.digest).toBe(value.digest);
    }
  }, 60_000);

  test("drops what costs the fewest bytes to build again", async () => {
    const layout = tempFolder();
    const big = addBlob(layout, "b".repeat(5000), LAYER);
    const small = addBlob(layout, "s", LAYER);
    const layers = [big, small].toSorted((a, b) => (a.digest < b.digest ? -1 : 1));
    const result = (layer: object, createdAt: string) => [
      { layer: layers.indexOf(layer as typeof big), createdAt },
    ];
    const config = {
      layers: layers.map(({ digest }) => ({ blob: digest, parent: -1 })),
      records: [
        // The older one, and both too long to fit together.
        { layers: result(big, "2026-01-01T00:00:00Z"), digest: `big${"x".repeat(700_000)}` },
        { layers: result(small, "2026-06-01T00:00:00Z"), digest: `small${"x".repeat(700_000)}` },
      ],
    };
    const manifest = addBlob(
      layout,
      {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: addBlob(layout, config, CACHE_CONFIG),
        layers,
      },
      OCI_MANIFEST,
    );
    writeLayout(layout, [
      { ...manifest, annotations: { "org.opencontainers.image.ref.name": "latest" } },
    ]);
    const value = await prune(layout, "--fit");
    expect(value.dropped).toMatchObject({ results: 1, layers: [{ digest: small.digest }] });
  });
});

describe("--all", () => {
  test("is a limit for a folder over all its names, each blob counted once", async () => {
    const layout = fixtureCopy("grown");
    const sum = async (): Promise<number> => {
      const all = ["main", "feature"].filter((name) => digestOfName(layout, name));
      const blobs = new Map(
        all.flatMap((name) =>
          cacheOf(layout, name).layers.map(({ digest, size }) => [digest, size] as const),
        ),
      );
      return blobs.values().reduce((total, size) => total + size, 0);
    };
    const before = await sum();
    const limit = Math.floor(before / 2);
    const dry = await prune(layout, "--all", `--max-size=${limit}`, "--dry-run");
    expect(await sum()).toBe(before);
    const value = await prune(layout, "--all", `--max-size=${limit}`);
    expect(value.totalSize).toBeLessThanOrEqual(limit);
    expect(await sum()).toBe(value.totalSize);
    expect(dry.totalSize).toBe(value.totalSize);
    expect(dry.moved).toEqual(value.moved);
    expect(value.dropped.bytes).toBe(before - value.totalSize);
    expect(layoutFaults(layout)).toEqual([]);
    for (const { names, digest } of value.entries)
      if (digest) expect(digestOfName(layout, names[0])).toBe(digest);
    const again = await prune(layout, "--all", `--max-size=${limit}`);
    expect(again.entries.every(({ outcome }: any) => outcome === "unchanged")).toBe(true);
  });

  test("takes the name of a cache of which nothing would be left", async () => {
    const layout = fixtureCopy("grown");
    const value = await prune(layout, "--all", "--max-size=0");
    expect(value.removed.toSorted()).toEqual(["feature", "main"]);
    expect(value.totalSize).toBe(0);
    expect(readIndex(layout).manifests).toEqual([]);
  });

  test("leaves images alone, and counts them", async () => {
    const layout = fixtureCopy("image-dir");
    const before = snapshot(layout);
    const value = await prune(layout, "--all", "--max-size=0");
    expect(value.entries).toEqual([]);
    expect(value.totalSize).toBeGreaterThan(0);
    expect(snapshot(layout)).toEqual(before);
  });

  test("goes with no name", async () => {
    const run = await cacheport(["prune", `${fixture("grown")}:main`, "--all", "--max-size=1GB"]);
    expect(run.code).toBe(2);
  });
});

describe("--delete-replaced", () => {
  test("deletes the manifest that a moved tag meant, if nothing else names it", async () => {
    const registry = await started(TestRegistry.start());
    const place = `${registry.domain}/app/cache`;
    await cacheport(["copy", fixture("multi-cache"), `${place}:main`]);
    const { manifests, tags } = registry.repository("app/cache");
    const before = tags.get("main") as string;
    const args = ["prune", `${place}:main`, "--keep-newest=1", "--json", "--delete-replaced"];
    const run = await cacheport(args);
    expect(run.code).toBe(0);
    expect(run.json().deleted).toEqual([before]);
    expect(manifests.has(before)).toBe(false);
    expect(manifests.has(tags.get("main") as string)).toBe(true);
  });

  test("keeps it where another tag has it", async () => {
    const registry = await started(TestRegistry.start());
    const place = `${registry.domain}/app/cache`;
    for (const tag of ["main", "other"])
      await cacheport(["copy", fixture("app-oci-index"), `${place}:${tag}`]);
    const { manifests, tags } = registry.repository("app/cache");
    const before = tags.get("main") as string;
    const run = await cacheport(["convert", `${place}:main`, "--json", "--delete-replaced"]);
    expect(run.json().deleted).toEqual([]);
    expect(manifests.has(before)).toBe(true);
    expect(tags.get("other")).toBe(before);
  });

  test("cleans a folder of what is old enough", async () => {
    const layout = fixtureCopy("app-oci-index");
    const before = digestOfName(layout, "latest") as string;
    makeOld(layout);
    const run = await cacheport(["convert", layout, "--json", "--delete-replaced"]);
    expect(run.json().deleted).toEqual([before]);
    expect(blobNames(layout)).not.toContain(before.slice(7));
    expect(layoutFaults(layout)).toEqual([]);
  });
});

test("--drop-missing drops the results that need a blob which is not there", async () => {
  const layout = fixtureCopy("holed");
  const holed = `${layout}@sha256:9d96c0a131aa24998989681ea3cb913fd95446b2676bb0237bf3dc9cf33a0b32`;
  const value = await prune(holed, "--drop-missing", "--tag", "mended");
  expect(value).toMatchObject({ outcome: "smaller", missing: 1, dropped: { results: 1 } });
  expect(cacheOf(layout, "mended").layers).toHaveLength(1);
  const whole = await prune(`${layout}:mended`, "--drop-missing");
  expect(whole.outcome).toBe("unchanged");
});

test("a prune that leaves several leaves joins them, unless --exact is given", async () => {
  const joined = async (...options: string[]): Promise<boolean> => {
    const layout = fixtureCopy("leaves");
    const { layers } = cacheOf(layout, "latest");
    const { config } = cacheOf(layout, "latest");
    // What is on top of the newest result of a leaf.
    const leaf = config.records.findLast(({ layers: own = [] }: any) => own.length > 0);
    const layer = config.layers[leaf.layers[0].layer].blob;
    expect(layers.map(({ digest }) => digest)).toContain(layer);
    const value = await prune(layout, `--drop-layer=${layer}`, ...options);
    expect(value.outcome).toBe("smaller");
    const keys = cacheOf(layout, "latest").config.records.map(({ digest }: any) => digest);
    return keys.includes(`sha256:${"f".repeat(64)}`);
  };
  expect(await joined()).toBe(true);
  expect(await joined("--exact")).toBe(false);
});

test("copy --delete-replaced takes away what its tag meant before", async () => {
  const registry = await started(TestRegistry.start());
  const place = `${registry.domain}/app/cache:main`;
  await cacheport(["copy", fixture("app-oci-index"), place]);
  const { manifests, tags } = registry.repository("app/cache");
  const before = tags.get("main") as string;
  const run = await cacheport([
    "copy",
    fixture("multi-cache"),
    place,
    "--json",
    "--delete-replaced",
  ]);
  expect(run.json()).toMatchObject({ deleted: [before], moved: [{ name: "main", from: before }] });
  expect(manifests.has(before)).toBe(false);
});
