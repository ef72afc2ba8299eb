import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BINARY, cacheport } from "./helpers/binary.ts";
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
import { blobNames, fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";
import { has } from "./helpers/machine.ts";

const SHAPES = ["image-manifest", "oci-index", "docker-list"];
const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
const CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0";
const LAYER = "application/vnd.oci.image.layer.v1.tar";

const fixtureDigest = (name: string): string => readIndex(fixture(name)).manifests[0].digest;

const pairs = (family: string, shapes: string[]) =>
  shapes.flatMap((from) =>
    shapes.filter((to) => to !== from).map((to) => [`${family}-${from}`, to, `${family}-${to}`]),
  );

describe("convert gives BuildKit's own digest", () => {
  test.each([
    ...pairs("app", SHAPES),
    ...pairs("app-zstd", SHAPES),
    ...pairs("dup", ["oci-index", "docker-list"]),
  ] as [string, string, string][])("%s --to %s is %s, and back", async (from, to, target) => {
    const layout = fixtureCopy(from);
    const before = blobNames(layout);
    const run = await cacheport(["convert", layout, "--to", to, "--json"]);
    expect(run.stderr).toBe("");
    expect(run.code).toBe(0);
    const result = run.json();
    expect(result.digest).toBe(fixtureDigest(target));
    expect(result.shape).toBe(to);
    expect(result.names).toEqual(["latest"]);
    expect(result.blobs).toMatchObject({ copied: 0, bytes: 0 });
    expect(digestOfName(layout, "latest")).toBe(fixtureDigest(target));
    expect(layoutFaults(layout)).toEqual([]);
    // The old manifest stays until gc; nothing but the new one is added.
    expect(blobNames(layout)).toEqual(
      [...before, fixtureDigest(target).slice("sha256:".length)].toSorted(),
    );

    const shape = from.replace(/^(app-zstd|app|dup)-/, "");
    const back = await cacheport(["convert", layout, "--to", shape, "--json"]);
    expect(back.json().digest).toBe(fixtureDigest(from));
  });
});

describe("convert to another place", () => {
  test("another tag of the same layout leaves the old one", async () => {
    const layout = fixtureCopy("app-oci-index");
    const run = await cacheport(["convert", layout, "--tag", "new", "-t", "newer"]);
    expect(run.code).toBe(0);
    expect(digestOfName(layout, "latest")).toBe(fixtureDigest("app-oci-index"));
    expect(digestOfName(layout, "new")).toBe(fixtureDigest("app-image-manifest"));
    expect(digestOfName(layout, "newer")).toBe(fixtureDigest("app-image-manifest"));
    expect(layoutFaults(layout)).toEqual([]);
  });

  test("another layout gets all blobs, and the source stays as it was", async () => {
    const layout = fixtureCopy("app-docker-list");
    const before = snapshot(layout);
    const target = join(tempFolder(), "deep", "target");
    const run = await cacheport(["convert", layout, `${target}:v1`, "--to", "oci-index", "--json"]);
    expect(run.code).toBe(0);
    expect(run.json().blobs).toMatchObject({ copied: 8, skipped: 0 });
    expect(digestOfName(target, "v1")).toBe(fixtureDigest("app-oci-index"));
    expect(layoutFaults(target)).toEqual([]);
    expect(snapshot(layout)).toEqual(before);
    expect(existsSync(join(target, ".cacheport"))).toBe(false);
  });

  test("BuildKit's own attribute text chooses place, tag and shape", async () => {
    const target = join(tempFolder(), "target");
    const run = await cacheport([
      "convert",
      `type=local,src=${fixture("app-image-manifest")},tag=latest`,
      `type=local,dest=${target},tag=x,image-manifest=false,mode=max`,
    ]);
    expect(run.code).toBe(0);
    expect(digestOfName(target, "x")).toBe(fixtureDigest("app-oci-index"));
  });

  test("image-manifest with Docker types fails with BuildKit's words", async () => {
    const run = await cacheport([
      "convert",
      fixture("app-image-manifest"),
      `type=local,dest=${tempFolder()},image-manifest=true,oci-mediatypes=false`,
    ]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain(
      "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format",
    );
  });
});

test("converting what has the shape already changes nothing", async () => {
  const layout = fixtureCopy("app-image-manifest");
  const before = snapshot(layout);
  const run = await cacheport(["convert", layout, "--json"]);
  expect(run.code).toBe(0);
  expect(run.json().digest).toBe(fixtureDigest("app-image-manifest"));
  expect(snapshot(layout)).toEqual(before);
});

test("--dry-run tells the digest and writes nothing", async () => {
  const layout = fixtureCopy("app-oci-index");
  const before = snapshot(layout);
  const run = await cacheport(["convert", layout, "--dry-run", "--json"]);
  expect(run.code).toBe(0);
  expect(run.json()).toMatchObject({
    digest: fixtureDigest("app-image-manifest"),
    dryRun: true,
  });
  expect(snapshot(layout)).toEqual(before);
});

test.skipIf(!has("strace"))("in place no blob is opened", async () => {
  const layout = fixtureCopy("app-oci-index");
  const cache = readDocument(layout, fixtureDigest("app-oci-index"));
  const log = join(tempFolder(), "trace");
  const child = Bun.spawn(
    [
      "strace",
      "-f",
      "-e",
      "trace=open,openat,openat2,copy_file_range",
      "-o",
      log,
      BINARY,
      "convert",
      layout,
    ],
    { stdout: "ignore", stderr: "ignore" },
  );
  expect(await child.exited).toBe(0);
  const trace = readFileSync(log, "utf8");
  expect(trace).toContain(fixtureDigest("app-oci-index").slice(7));
  for (const { digest, mediaType } of cache.manifests) {
    if (mediaType !== CACHE_CONFIG) expect(trace).not.toContain(digest.slice(7));
  }
});

describe("inline caches", () => {
  test("an image's inline cache becomes a cache with the image's layers", async () => {
    const target = join(tempFolder(), "target");
    const run = await cacheport(["convert", fixture("image-inline"), target, "--json"]);
    expect(run.code).toBe(0);
    expect(run.json().names).toEqual(["latest"]);
    const manifest = readDocument(target, run.json().digest);
    expect(manifest.config.mediaType).toBe(CACHE_CONFIG);
    const config = readDocument(target, manifest.config.digest);
    expect(manifest.layers.map((layer: any) => layer.digest)).toEqual(
      config.layers.map((layer: any) => layer.blob),
    );
    expect(manifest.layers[0].annotations["containerd.io/uncompressed"]).toMatch(/^sha256:/);
    expect(config.records).toHaveLength(14);
    expect(layoutFaults(target)).toEqual([]);
  });

  test("in place a name is asked for, so that the image keeps its own", async () => {
    const layout = fixtureCopy("image-inline");
    const before = snapshot(layout);
    const run = await cacheport(["convert", layout]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("--tag");
    expect(snapshot(layout)).toEqual(before);
  });
});

test("an index of one cache per platform becomes one cache, or that of one platform", async () => {
  const layout = tempFolder();
  const children = ["amd64", "arm64"].map((architecture) => {
    const source = fixture(`multi-cache-${architecture}`);
    for (const name of blobNames(source)) {
      addBlob(layout, readFileSync(blobFile(source, `sha256:${name}`)));
    }
    const [entry] = readIndex(source).manifests;
    const { annotations: _annotations, ...descriptor } = entry;
    return { ...descriptor, platform: { os: "linux", architecture } };
  });
  const index = addBlob(
    layout,
    { schemaVersion: 2, mediaType: OCI_INDEX, manifests: children },
    OCI_INDEX,
  );
  writeLayout(layout, [
    {
      ...index,
      annotations: { "org.opencontainers.image.ref.name": "latest" },
    },
  ]);
  const one = join(tempFolder(), "one");
  const arm = await cacheport(["convert", layout, one, "--platform", "linux/arm64", "--json"]);
  expect(arm.code).toBe(0);
  expect(arm.json().digest).toBe(fixtureDigest("multi-cache-arm64"));

  const both = join(tempFolder(), "both");
  const merged = await cacheport(["convert", layout, both, "--json"]);
  expect(merged.code).toBe(0);
  expect(merged.json().source.shape).toBe("index-of-caches");
  const config = readDocument(both, readDocument(both, merged.json().digest).config.digest);
  const parts = children.map(({ digest }) =>
    readDocument(layout, readDocument(layout, digest).config.digest),
  );
  const keys = (records: any[]): string[] => records.map((record) => record.digest).toSorted();
  expect(new Set(keys(config.records))).toEqual(
    new Set(parts.flatMap((part) => keys(part.records))),
  );
  expect(layoutFaults(both)).toEqual([]);
});

/** A layout with one cache, made from a cache config that may be broken. */
function brokenCache(config: object, layers = 1): string {
  const layout = tempFolder();
  const blobs = Array.from({ length: layers }, (_, i) => addBlob(layout, `layer ${i}`, LAYER));
  const manifest = addBlob(
    layout,
    {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: addBlob(layout, config, CACHE_CONFIG),
      layers: blobs,
    },
    OCI_MANIFEST,
  );
  writeLayout(layout, [
    {
      ...manifest,
      annotations: { "org.opencontainers.image.ref.name": "latest" },
    },
  ]);
  return layout;
}

const BLOB = `sha256:${new Bun.CryptoHasher("sha256").update("layer 0").digest("hex")}`;
const key = (text: string): string =>
  `sha256:${new Bun.CryptoHasher("sha256").update(text).digest("hex")}`;

describe("a cache that BuildKit would refuse is refused, with its words and exit code 4", () => {
  test.each([
    [
      "a loop of parents",
      { layers: [{ blob: BLOB, parent: 1 }, { blob: BLOB }] },
      "invalid looping layer",
    ],
    ["a parent out of range", { layers: [{ blob: BLOB, parent: 7 }] }, "invalid layer index 7"],
    [
      "a result out of range",
      {
        layers: [{ blob: BLOB, parent: -1 }],
        records: [
          {
            digest: key("a"),
            layers: [{ layer: 3, createdAt: "2026-01-01T00:00:00Z" }],
          },
        ],
      },
      "invalid layer index 3",
    ],
    [
      "a link out of range",
      {
        layers: [{ blob: BLOB, parent: -1 }],
        records: [{ digest: key("a"), inputs: [[{ link: 5 }]] }],
      },
      "invalid record ID: 5",
    ],
    [
      "an empty input list",
      {
        layers: [{ blob: BLOB, parent: -1 }],
        records: [{ digest: key("a"), inputs: [[]] }],
      },
      "invalid empty input for record 0",
    ],
    [
      "records in a loop",
      {
        layers: [{ blob: BLOB, parent: -1 }],
        records: [{ digest: key("a"), inputs: [[{ link: 0 }]] }],
      },
      "invalid looping record",
    ],
    ["a config that is no object", [], "Expected Object"],
    ["a blob that is no digest", { layers: [{ blob: "x" }] }, "layers.0.blob"],
    [
      "a time that is none",
      {
        records: [{ digest: key("a"), layers: [{ layer: 0, createdAt: "now" }] }],
      },
      "RFC 3339",
    ],
  ])("%s", async (_what, config, words) => {
    const layout = brokenCache(config);
    const before = snapshot(layout);
    const run = await cacheport(["convert", layout, "--to", "oci-index"]);
    expect(run.stderr).toContain(words);
    expect(run.stderr.trim().split("\n").length).toBeLessThanOrEqual(2);
    expect(run.stderr).not.toMatch(/\bat .*\.ts/);
    expect(run.code).toBe(4);
    expect(snapshot(layout)).toEqual(before);
  });

  test("a cache without layers is exported by nobody", async () => {
    const layout = brokenCache({ records: [{ digest: key("a") }] });
    const before = snapshot(layout);
    const run = await cacheport(["convert", layout, "--to", "oci-index"]);
    expect(run.code).toBe(0);
    expect(run.stderr).toContain("skipping cache export for empty result");
    expect(snapshot(layout)).toEqual(before);
  });
});

/** Changes a fixture and says what the answer must be. */
const DAMAGE: [string, (layout: string) => void, number, RegExp][] = [
  [
    "index.json missing and no oci-layout",
    (layout) => {
      rmSync(join(layout, "index.json"));
      rmSync(join(layout, "oci-layout"));
    },
    4,
    /index\.json|layout/,
  ],
  ["index.json missing", (layout) => rmSync(join(layout, "index.json")), 4, /index\.json/],
  ["index.json empty", (layout) => writeFileSync(join(layout, "index.json"), ""), 4, /index\.json/],
  [
    "index.json torn",
    (layout) => writeFileSync(join(layout, "index.json"), '{"schemaVersion":2,"man'),
    4,
    /not valid JSON/,
  ],
  [
    "index.json not an object",
    (layout) => writeFileSync(join(layout, "index.json"), "[]"),
    4,
    /Expected Object/,
  ],
  [
    "a digest that climbs out",
    (layout) => {
      const text = readFileSync(join(layout, "index.json"), "utf8");
      writeFileSync(join(layout, "index.json"), text.replace(/sha256:[0-9a-f]+/, "sha256:../../x"));
    },
    4,
    /entry 1 of 1: field digest/,
  ],
  [
    "a missing manifest",
    (layout) => rmSync(blobFile(layout, fixtureDigest("app-oci-index"))),
    4,
    /is not|missing/,
  ],
  [
    "a missing layer",
    (layout) => {
      const { manifests } = readDocument(layout, fixtureDigest("app-oci-index"));
      rmSync(blobFile(layout, manifests[0].digest));
    },
    4,
    /is missing/,
  ],
  [
    "a missing cache config",
    (layout) => {
      const { manifests } = readDocument(layout, fixtureDigest("app-oci-index"));
      rmSync(blobFile(layout, manifests.at(-1).digest));
    },
    4,
    /is not|missing/,
  ],
  [
    "a manifest with other bytes",
    (layout) => {
      const path = blobFile(layout, fixtureDigest("app-oci-index"));
      const text = readFileSync(path, "utf8");
      rmSync(path);
      writeFileSync(path, text.replace('"size":977', '"size":978'));
    },
    4,
    /its bytes have the digest/,
  ],
  [
    "an index entry with a lying size",
    (layout) => {
      const text = readFileSync(join(layout, "index.json"), "utf8");
      writeFileSync(join(layout, "index.json"), text.replace('"size":2862', '"size":2861'));
    },
    4,
    /2862 bytes and its descriptor says 2861/,
  ],
  [
    "a layer of another size",
    (layout) => {
      const { manifests } = readDocument(layout, fixtureDigest("app-oci-index"));
      const path = blobFile(layout, manifests[0].digest);
      rmSync(path);
      writeFileSync(path, "short");
    },
    4,
    /5 bytes and its descriptor says 977/,
  ],
];

describe("damage is answered with one sentence and nothing is changed", () => {
  test.each(DAMAGE)("%s", async (_what, damage, code, reason) => {
    const layout = fixtureCopy("app-oci-index");
    damage(layout);
    const before = snapshot(layout);
    const run = await cacheport(["convert", layout]);
    expect(run.stderr).toMatch(reason);
    expect(run.stderr).toMatch(/^(cacheport: |error: )?Cannot /i);
    expect(run.stderr.trim().split("\n").length).toBeLessThanOrEqual(2);
    expect(run.stdout).toBe("");
    expect(run.code).toBe(code);
    expect(snapshot(layout)).toEqual(before);
  });

  test("a manifest of 100 MB is refused before it is read", async () => {
    const layout = tempFolder();
    const big = Buffer.alloc(100_000_000, " ");
    big.write('{"manifests":[]}');
    const manifest = addBlob(layout, big, OCI_INDEX);
    writeLayout(layout, [manifest]);
    const run = await cacheport(["convert", layout]);
    expect(run.code).toBe(4);
    expect(run.stderr).toContain("100000000 bytes and the limit is 4194304");
    expect(run.stderr).toContain("--max-document");
  });

  test("a manifest with config and manifests is ambiguous", async () => {
    const layout = tempFolder();
    const manifest = addBlob(layout, { config: {}, manifests: [] }, OCI_INDEX);
    writeLayout(layout, [manifest]);
    const run = await cacheport(["convert", layout]);
    expect(run.code).toBe(4);
    expect(run.stderr).toContain("invalid ambiguous manifest and manifest list");
  });

  test("indexes nested beyond the limit are refused", async () => {
    const layout = tempFolder();
    let child: any = addBlob(layout, { schemaVersion: 2, manifests: [] }, OCI_INDEX);
    for (let level = 0; level < 10; level++) {
      child = addBlob(layout, { schemaVersion: 2, manifests: [child] }, OCI_INDEX);
    }
    writeLayout(layout, [child]);
    const run = await cacheport(["convert", layout]);
    expect(run.code).toBe(4);
    expect(run.stderr).toContain("nested more than 8 levels deep");
  });

  test("an index that names itself is refused", async () => {
    const layout = tempFolder();
    const digest = `sha256:${"a".repeat(64)}`;
    const bytes = JSON.stringify({
      manifests: [{ mediaType: OCI_INDEX, digest, size: 150 }],
    });
    addBlob(layout, "x");
    writeFileSync(blobFile(layout, digest), bytes.padEnd(150));
    writeLayout(layout, [{ mediaType: OCI_INDEX, digest, size: 150 }]);
    const run = await cacheport(["convert", layout]);
    expect(run.code).toBe(4);
  });

  test("what is no cache is said to be none", async () => {
    const layout = fixtureCopy("image-dir");
    const before = snapshot(layout);
    const run = await cacheport(["convert", `${layout}:1.0`]);
    expect(run.code).toBe(4);
    expect(run.stderr).toContain("is no build cache");
    expect(snapshot(layout)).toEqual(before);
  });

  test.each([
    [["convert", "./nowhere"], 3],
    [["convert", `${fixture("app-oci-index")}:nope`], 3],
    [["convert", fixture("app-oci-index"), "--to", "nope"], 2],
    [["convert", fixture("app-oci-index"), "--too", "x"], 2],
    [["convert"], 2],
    [["convert", "a", "b", "c"], 2],
  ])("%p ends with exit code %d", async (args, code) => {
    const run = await cacheport(args as string[]);
    expect(run.code).toBe(code as number);
    expect(run.stderr).not.toBe("");
    expect(run.stdout).toBe("");
  });
});

describe("healing", () => {
  const LEAVES = fixture("leaves");

  test.each(["heal", "convert --heal"])("%s adds one record and keeps the rest", async (words) => {
    const layout = fixtureCopy("leaves");
    const before = readIndex(layout).manifests[0];
    const [command, ...options] = words.split(" ") as [string];
    const run = await cacheport([command, layout, ...options, "--json"]);
    expect(run.code).toBe(0);
    const value = run.json();
    expect(value).toMatchObject({
      healed: true,
      joinedLeaves: 2,
      shape: "image-manifest",
      to: { kind: "folder", location: layout, new: false },
      moved: [{ name: "latest", from: before.digest, to: value.digest }],
    });
    const [old, made] = [before.digest, value.digest].map((digest) => readDocument(layout, digest));
    expect(made.layers).toEqual(old.layers);
    const [was, is] = [old, made].map(({ config }) => readDocument(layout, config.digest));
    expect(is.layers).toEqual(was.layers);
    expect(is.records.slice(0, -1)).toEqual(was.records);
    expect(is.records.at(-1).digest).toBe(`sha256:${"f".repeat(64)}`);
    expect(layoutFaults(layout)).toEqual([]);
    // Again: nothing is left to heal, and nothing changes.
    const snap = snapshot(layout);
    const again = await cacheport([command, layout, ...options, "--json"]);
    expect(again.json()).toMatchObject({ digest: value.digest, healed: false, moved: [] });
    expect(snapshot(layout)).toEqual(snap);
  });

  test("a healthy cache keeps its digest and its shape, and is said to be healthy", async () => {
    for (const name of ["app-oci-index", "app-docker-list", "multi-cache"]) {
      const layout = fixtureCopy(name);
      const before = snapshot(layout);
      const run = await cacheport(["heal", layout]);
      expect(run.code).toBe(0);
      expect(run.stdout).toContain("BuildKit's import loses nothing of it");
      expect(run.stdout).toContain("unchanged:");
      expect(snapshot(layout)).toEqual(before);
    }
  });

  test("goes with another shape, another place and another compression", async () => {
    const target = join(tempFolder(), "target");
    const run = await cacheport([
      "convert",
      LEAVES,
      target,
      "--heal",
      "--to=oci-index",
      "--compression=uncompressed",
      "--json",
    ]);
    expect(run.code).toBe(0);
    const value = run.json();
    expect(value).toMatchObject({ shape: "oci-index", healed: true, joinedLeaves: 2 });
    expect(layoutFaults(target)).toEqual([]);
    const config = readDocument(target, value.digest).manifests.at(-1).digest;
    const { records } = readDocument(target, config);
    expect(records.at(-1).digest).toBe(`sha256:${"f".repeat(64)}`);
    const back = await cacheport(["convert", target, "--heal", "--json"]);
    expect(back.json()).toMatchObject({ digest: value.digest, healed: false });
  });

  test("is not shown and not counted as a record", async () => {
    const layout = fixtureCopy("leaves");
    const before = (await cacheport(["inspect", layout, "--json"])).json();
    await cacheport(["heal", layout]);
    const after = (await cacheport(["inspect", layout, "--json"])).json();
    expect(after.records).toBe(before.records);
    expect([before.joinedLeaves, after.joinedLeaves]).toEqual([undefined, 2]);
    expect((await cacheport(["inspect", layout])).stdout).toMatch(/^joined leaves: +2$/m);
    const graph = (await cacheport(["inspect", layout, "--format", "json"])).json();
    expect(graph.records).toHaveLength(21);
    expect(graph.links).toHaveLength(24);
    const difference = (await cacheport(["diff", LEAVES, layout, "--json"])).json();
    expect(difference.equal).toBe(true);
  });

  test("and --exact exclude each other", async () => {
    expect((await cacheport(["convert", LEAVES, "--heal", "--exact", "--dry-run"])).code).toBe(2);
  });
});

describe("what was done is said", () => {
  test("a conversion in place names the digest that its name had", async () => {
    const layout = fixtureCopy("app-oci-index");
    const before = readIndex(layout).manifests[0].digest;
    const run = await cacheport(["convert", layout]);
    const after = readIndex(layout).manifests[0].digest;
    expect(run.stdout).toContain(`folder ${layout}\n`);
    expect(run.stdout).toMatch(new RegExp(`latest: +was ${before}, now ${after}`));
  });

  test("a dry run says the same and changes nothing", async () => {
    const layout = fixtureCopy("app-oci-index");
    const dry = (await cacheport(["convert", layout, "--dry-run", "--json"])).json();
    const wet = (await cacheport(["convert", layout, "--json"])).json();
    expect(dry.moved).toEqual(wet.moved);
    expect(dry.digest).toBe(wet.digest);
  });

  test("one that has the shape already is unchanged", async () => {
    const run = await cacheport(["convert", fixtureCopy("app-image-manifest")]);
    expect(run.stdout).toMatch(/^unchanged: +image-manifest\n/);
    expect(run.stdout).not.toContain("was sha256:");
  });

  test("a cache config over what BuildKit imports is noted, as merge does", async () => {
    const layout = tempFolder();
    const layer = addBlob(layout, "a layer", "application/vnd.oci.image.layer.v1.tar");
    const config = {
      layers: [{ blob: layer.digest, parent: -1 }],
      records: [
        { digest: "x".repeat(1_100_000) },
        {
          layers: [{ layer: 0, createdAt: "2026-01-01T00:00:00Z" }],
          digest: "y",
          inputs: [[{ link: 0 }]],
        },
      ],
    };
    const manifest = addBlob(
      layout,
      {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: addBlob(layout, config, "application/vnd.buildkit.cacheconfig.v0"),
        layers: [layer],
      },
      OCI_MANIFEST,
    );
    writeLayout(layout, [manifest]);
    const run = await cacheport(["convert", layout, "--tag", "x", "--to", "oci-index"]);
    expect(run.code).toBe(0);
    expect(run.stderr).toMatch(/The cache config sha256:[0-9a-f]{64} has 1\.10 MB/);
  });
});

test("--drop-missing drops and counts the results that need a blob which is not there", async () => {
  const layout = fixtureCopy("holed");
  const holed = "@sha256:9d96c0a131aa24998989681ea3cb913fd95446b2676bb0237bf3dc9cf33a0b32";
  const args = ["convert", `${layout}${holed}`, "--tag", "mended", "--json"];
  const refused = await cacheport(args);
  expect(refused.code).toBe(4);
  expect(refused.stderr).toContain("--drop-missing");
  const run = await cacheport([...args, "--drop-missing"]);
  expect(run.code).toBe(0);
  expect(run.json().dropped).toMatchObject({ results: 1, records: 2 });
  const { config, layers } = readDocument(layout, run.json().digest);
  expect(layers).toHaveLength(1);
  expect(readDocument(layout, config.digest).records).toHaveLength(1);
});
