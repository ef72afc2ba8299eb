import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { digestOf } from "../src/digest.ts";
import type { Digest } from "../src/digest.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { collectGarbage } from "../src/gc.ts";
import type { GarbageOptions } from "../src/gc.ts";
import {
  DOCKER_MANIFEST,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER_GZIP,
  OCI_MANIFEST,
} from "../src/media-types.ts";
import { failure } from "./helpers/errors.ts";
import { blobNames, fixtureCopy, tempFolder } from "./helpers/temp.ts";

const OPTIONS: GarbageOptions = {
  limits: DEFAULT_LIMITS,
  grace: 0,
  dryRun: false,
  jobs: 4,
  lockTimeout: 5000,
};

const gc = (layout: string, options: Partial<GarbageOptions> = {}) =>
  collectGarbage(layout, { ...OPTIONS, ...options });

const indexOf = (layout: string): any =>
  JSON.parse(readFileSync(join(layout, "index.json"), "utf8"));

const writeIndex = (layout: string, manifests: object[]): void =>
  writeFileSync(
    join(layout, "index.json"),
    JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }),
  );

/** Writes a blob and gives its descriptor. */
function put(
  layout: string,
  content: object | string,
  mediaType: string,
  algorithm: "sha256" | "sha512" = "sha256",
): { mediaType: string; digest: Digest; size: number } {
  const text = typeof content === "string" ? content : JSON.stringify(content);
  const digest = digestOf(text, algorithm);
  const folder = join(layout, "blobs", algorithm);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, digest.slice(7)), text, { mode: 0o444 });
  return { mediaType, digest, size: Buffer.byteLength(text) };
}

/** A layout with nothing in it. */
function emptyLayout(): string {
  const layout = tempFolder();
  mkdirSync(join(layout, "blobs", "sha256"), { recursive: true });
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  writeIndex(layout, []);
  return layout;
}

/** An image with one layer, of which every blob is its own. */
function putImage(layout: string, name: string, extra: object = {}) {
  const config = put(layout, { architecture: "amd64", os: name }, OCI_CONFIG);
  const layer = put(layout, `layer of ${name}`, OCI_LAYER_GZIP);
  const manifest = put(
    layout,
    {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config,
      layers: [layer],
      ...extra,
    },
    OCI_MANIFEST,
  );
  return { manifest, blobs: [config, layer, manifest] };
}

/** Every blob that a fixture's index reaches, by a walk of the test's own. */
function reachedBlobs(layout: string): string[] {
  const found = new Set<string>();
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    const { digest } = value as { digest?: string };
    const path = digest && join(layout, "blobs", digest.replace(":", "/"));
    if (path && existsSync(path) && !found.has(digest)) {
      found.add(digest);
      const bytes = readFileSync(path);
      if (bytes[0] === 0x7b) visit(JSON.parse(bytes.toString()));
    }
    for (const item of Object.values(value)) visit(item);
  };
  visit(indexOf(layout));
  return [...found].map((digest) => digest.slice(7)).toSorted();
}

const age = (path: string, milliseconds: number): void => {
  const time = (Date.now() - milliseconds) / 1000;
  utimesSync(path, time, time);
};

const blobFile = (layout: string, digest: string): string =>
  join(layout, "blobs", digest.replace(":", "/"));

describe("what is removed", () => {
  test("of a cache that grew, exactly what no name reaches", async () => {
    const layout = fixtureCopy("grown");
    const all = blobNames(layout);
    const kept = reachedBlobs(layout);
    const index = readFileSync(join(layout, "index.json"), "utf8");
    expect(all).toHaveLength(28);
    expect(kept.length).toBeLessThan(28);

    const result = await gc(layout);

    expect(blobNames(layout)).toEqual(kept);
    expect(result.kept).toBe(kept.length);
    expect(result.removed.map(({ digest }) => digest.slice(7))).toEqual(
      all.filter((name) => !kept.includes(name)),
    );
    expect(result.removedBytes).toBe(result.removed.reduce((sum, { size }) => sum + size, 0));
    expect(result.removedBytes).toBeGreaterThan(0);
    expect(readFileSync(join(layout, "index.json"), "utf8")).toBe(index);
    expect(existsSync(join(layout, ".cacheport"))).toBe(false);
  });

  test("nothing, the second time", async () => {
    const layout = fixtureCopy("grown");
    const first = await gc(layout);
    const second = await gc(layout);
    expect(second).toMatchObject({ removed: [], removedBytes: 0 });
    expect(second.kept).toBe(first.kept);
  });

  test.each([
    "app-docker-list",
    "app-image-manifest",
    "app-oci-index",
    "app-uncompressed",
    "app-zstd-docker-list",
    "app-zstd-image-manifest",
    "app-zstd-oci-index",
    "dup-docker-list",
    "dup-image-manifest",
    "dup-oci-index",
    "image-attested",
    "image-dir",
    "image-inline",
    "multi-cache",
    "multi-cache-amd64",
    "multi-cache-arm64",
    "multi-image",
  ])("no blob of %s", async (name) => {
    const layout = fixtureCopy(name);
    const before = blobNames(layout);
    const result = await gc(layout);
    expect(result.removed).toEqual([]);
    expect(blobNames(layout)).toEqual(before);
  });

  test("everything, when nothing is named", async () => {
    const layout = fixtureCopy("app-oci-index");
    writeIndex(layout, []);
    await gc(layout);
    expect(blobNames(layout)).toEqual([]);
  });

  test("blobs in sha512 too, and only those that nothing reaches", async () => {
    const layout = emptyLayout();
    const config = put(layout, "{}", OCI_CONFIG, "sha512");
    const layer = put(layout, "layer", OCI_LAYER_GZIP, "sha512");
    put(layout, "garbage", OCI_LAYER_GZIP, "sha512");
    const manifest = put(
      layout,
      { mediaType: OCI_MANIFEST, config, layers: [layer] },
      OCI_MANIFEST,
      "sha512",
    );
    writeIndex(layout, [manifest]);
    const result = await gc(layout);
    expect(result.removed.map(({ digest }) => digest)).toEqual([digestOf("garbage", "sha512")]);
    expect(blobNames(layout, "sha512")).toHaveLength(3);
  });
});

describe("what is followed", () => {
  test("entries without a name and entries that repeat a digest", async () => {
    const layout = emptyLayout();
    const a = putImage(layout, "a");
    writeIndex(layout, [a.manifest, { ...a.manifest }]);
    expect((await gc(layout)).kept).toBe(3);
  });

  test("a manifest whose entry has no media type", async () => {
    const layout = emptyLayout();
    const { manifest } = putImage(layout, "a");
    writeIndex(layout, [{ digest: manifest.digest, size: manifest.size }]);
    expect((await gc(layout)).kept).toBe(3);
  });

  test("an index within an index, and its children without a media type", async () => {
    const layout = emptyLayout();
    const { manifest } = putImage(layout, "a");
    const { digest, size } = manifest;
    const inner = put(layout, { mediaType: OCI_INDEX, manifests: [{ digest, size }] }, OCI_INDEX);
    const outer = put(layout, { mediaType: OCI_INDEX, manifests: [inner] }, OCI_INDEX);
    writeIndex(layout, [outer]);
    expect((await gc(layout)).removed).toEqual([]);
  });

  test("Docker types", async () => {
    const layout = emptyLayout();
    const { manifest } = putImage(layout, "a", { mediaType: DOCKER_MANIFEST });
    writeIndex(layout, [{ ...manifest, mediaType: DOCKER_MANIFEST }]);
    expect((await gc(layout)).removed).toEqual([]);
  });

  test("from a listed referrer to its subject", async () => {
    const layout = emptyLayout();
    const subject = putImage(layout, "subject");
    const referrer = putImage(layout, "referrer", {
      subject: subject.manifest,
    });
    writeIndex(layout, [referrer.manifest]);
    expect((await gc(layout)).kept).toBe(6);
  });

  test("from an entry's io.containerd.manifest.subject to that manifest", async () => {
    const layout = emptyLayout();
    const subject = putImage(layout, "subject");
    const referrer = putImage(layout, "referrer");
    writeIndex(layout, [
      {
        ...referrer.manifest,
        annotations: {
          "io.containerd.manifest.subject": subject.manifest.digest,
        },
      },
    ]);
    expect((await gc(layout)).kept).toBe(6);
  });

  test("from a manifest to referrers that no entry lists, and to theirs", async () => {
    const layout = emptyLayout();
    const subject = putImage(layout, "subject");
    const referrer = putImage(layout, "referrer", {
      subject: subject.manifest,
    });
    putImage(layout, "second", { subject: referrer.manifest });
    writeIndex(layout, [subject.manifest]);
    expect((await gc(layout)).removed).toEqual([]);
    // With the subject its referrers go too.
    writeIndex(layout, []);
    expect((await gc(layout)).kept).toBe(0);
  });

  test("a subject that is not in the layout is no fault", async () => {
    const layout = emptyLayout();
    const { manifest } = putImage(layout, "a", {
      subject: {
        mediaType: OCI_MANIFEST,
        digest: digestOf("elsewhere"),
        size: 9,
      },
    });
    writeIndex(layout, [manifest]);
    expect((await gc(layout)).kept).toBe(3);
  });

  test("a manifest and its referrer that refer to each other", async () => {
    const layout = emptyLayout();
    const a = putImage(layout, "a");
    const b = putImage(layout, "b", { subject: a.manifest });
    writeIndex(layout, [b.manifest, a.manifest]);
    expect((await gc(layout)).kept).toBe(6);
  });

  test("an artifact whose config and layers are of any type", async () => {
    const layout = emptyLayout();
    const config = put(layout, "{}", "application/vnd.example.config.v9+json");
    const layer = put(layout, '{"manifests":[]}', "application/vnd.example.thing.v9+json");
    const manifest = put(
      layout,
      { mediaType: OCI_MANIFEST, config, layers: [layer] },
      OCI_MANIFEST,
    );
    writeIndex(layout, [manifest]);
    expect((await gc(layout)).kept).toBe(3);
  });

  test("a layer that is absent hinders nothing", async () => {
    const layout = fixtureCopy("grown");
    const [entry] = indexOf(layout).manifests;
    const manifest = JSON.parse(readFileSync(blobFile(layout, entry.digest), "utf8"));
    rmSync(blobFile(layout, manifest.layers[0].digest), { force: true });
    expect((await gc(layout)).removed.length).toBeGreaterThan(0);
  });
});

describe("what makes it refuse, with nothing removed", () => {
  const REFUSED: [string, (layout: string) => void][] = [
    [
      "a manifest of an unknown type",
      (layout) => {
        const layer = put(layout, "precious", OCI_LAYER_GZIP);
        const type = "application/vnd.example.manifest.v9+json";
        writeIndex(layout, [put(layout, { mediaType: type, blobs: [layer] }, type)]);
      },
    ],
    [
      "an unknown type within an index",
      (layout) => {
        const type = "application/vnd.example.manifest.v9+json";
        const child = put(layout, { mediaType: type, blobs: [] }, type);
        writeIndex(layout, [put(layout, { mediaType: OCI_INDEX, manifests: [child] }, OCI_INDEX)]);
      },
    ],
    [
      "an unknown type that looks like an index",
      (layout) => {
        const type = "application/vnd.oci.image.index.v9+json";
        writeIndex(layout, [put(layout, { mediaType: type, manifests: [] }, type)]);
      },
    ],
    ["JSON of which nothing is known", (layout) => writeIndex(layout, [put(layout, { a: 1 }, "")])],
    [
      "an absent manifest",
      (layout) =>
        writeIndex(layout, [{ mediaType: OCI_MANIFEST, digest: digestOf("gone"), size: 4 }]),
    ],
    [
      "a damaged manifest",
      (layout) => {
        const { manifest } = putImage(layout, "a");
        writeIndex(layout, [manifest]);
        const path = blobFile(layout, manifest.digest);
        chmodSync(path, 0o644);
        writeFileSync(path, readFileSync(path, "utf8").replace("2", "3"));
      },
    ],
    [
      "a manifest that is no JSON",
      (layout) => writeIndex(layout, [put(layout, "{nonsense", OCI_MANIFEST)]),
    ],
    [
      "a missing child of an index",
      (layout) => {
        const { manifest } = putImage(layout, "a");
        writeIndex(layout, [
          put(layout, { mediaType: OCI_INDEX, manifests: [manifest] }, OCI_INDEX),
        ]);
        unlinkSync(blobFile(layout, manifest.digest));
      },
    ],
    [
      "a blob folder that is a symbolic link",
      (layout) => {
        const shared = join(tempFolder(), "shared");
        renameSync(join(layout, "blobs", "sha256"), shared);
        symlinkSync(shared, join(layout, "blobs", "sha256"));
      },
    ],
  ];

  test.each(REFUSED)("%s", async (_title, damage) => {
    const layout = fixtureCopy("grown");
    damage(layout);
    const before = blobNames(layout);
    const error = await failure(() => gc(layout));
    expect(error.code).toBe("GC_REFUSED");
    expect(error.exitCode).toBe(4);
    expect(error.message).toStartWith("Cannot collect garbage in ");
    expect(blobNames(layout)).toEqual(before);
    expect((await failure(() => gc(layout, { dryRun: true }))).code).toBe("GC_REFUSED");
  });

  test.each([["{"], [""], ["[]"]])("an index.json of %p", async (text) => {
    const layout = fixtureCopy("grown");
    writeFileSync(join(layout, "index.json"), text);
    const error = await failure(() => gc(layout));
    expect(error.code).toBe("DOCUMENT_INVALID");
    expect(blobNames(layout)).toHaveLength(28);
  });

  test("no index.json", async () => {
    const layout = fixtureCopy("grown");
    unlinkSync(join(layout, "index.json"));
    expect((await failure(() => gc(layout))).code).toBe("LAYOUT_INVALID");
    expect(blobNames(layout)).toHaveLength(28);
  });
});

describe("grace", () => {
  test("keeps what was written since, and says how much that is", async () => {
    const layout = fixtureCopy("grown");
    const total = 28 - reachedBlobs(layout).length;
    const result = await gc(layout, { grace: 3_600_000 });
    expect(result).toMatchObject({ removed: [], kept: 28, young: total });
    expect(blobNames(layout)).toHaveLength(28);
  });

  test("is over for each blob by itself", async () => {
    const layout = emptyLayout();
    const old = put(layout, "old", OCI_LAYER_GZIP);
    const young = put(layout, "young", OCI_LAYER_GZIP);
    age(blobFile(layout, old.digest), 7_200_000);
    age(blobFile(layout, young.digest), 3_000_000);
    const result = await gc(layout, { grace: 3_600_000 });
    expect(result.removed.map(({ digest }) => digest)).toEqual([old.digest]);
    expect(blobNames(layout)).toEqual([young.digest.slice(7)]);
  });

  test("holds for leftovers of writers as well", async () => {
    const layout = emptyLayout();
    const paths = [
      "ingest/0a/data",
      "blobs/sha256/whatever.tmp",
      `blobs/sha256/${"a".repeat(64)}123456`,
      ".umoci-abc/file",
      "oci-put-blob1",
      "index.json.1.tmp",
      "index.json.cacheport-00000000-0000-4000-8000-000000000000",
    ];
    for (const path of paths) {
      mkdirSync(join(layout, path, ".."), { recursive: true });
      writeFileSync(join(layout, path), "left over");
    }
    expect((await gc(layout, { grace: 60_000 })).leftovers).toEqual([]);
    const tops = paths.map((path) => path.replace("/data", "").replace("/file", ""));
    for (const path of [...paths, ...tops]) age(join(layout, path), 120_000);
    const result = await gc(layout, { grace: 60_000 });
    expect(result.leftovers.map(({ path }) => path).toSorted()).toEqual(tops.toSorted());
    for (const path of tops) expect(existsSync(join(layout, path))).toBe(false);
    expect(existsSync(join(layout, "ingest"))).toBe(true);
  });

  test("a slow write keeps its ingest folder, however old that is", async () => {
    const layout = emptyLayout();
    mkdirSync(join(layout, "ingest", "0a"), { recursive: true });
    writeFileSync(join(layout, "ingest", "0a", "data"), "being written");
    age(join(layout, "ingest", "0a"), 120_000);
    expect((await gc(layout, { grace: 60_000 })).leftovers).toEqual([]);
  });

  test("what is no blob and no known leftover stays", async () => {
    const layout = emptyLayout();
    writeFileSync(join(layout, "blobs", "sha256", "README"), "mine");
    mkdirSync(join(layout, "blobs", "blake3"));
    const outside = join(tempFolder(), "outside");
    writeFileSync(outside, "outside");
    symlinkSync(outside, join(layout, "blobs", "sha256", "a".repeat(64)));
    const result = await gc(layout);
    expect(result).toMatchObject({ removed: [], leftovers: [] });
    expect(blobNames(layout)).toEqual(["README", "a".repeat(64)].toSorted());
    expect(readFileSync(outside, "utf8")).toBe("outside");
  });
});

test("a dry run tells the same and changes nothing", async () => {
  const layout = fixtureCopy("grown");
  const planned = await gc(layout, { dryRun: true });
  expect(blobNames(layout)).toHaveLength(28);
  const done = await gc(layout);
  expect(planned).toEqual({ ...done, dryRun: true });
});

describe("beside other programs", () => {
  /** The unnamed manifest of `grown` that can be named again, with all that it needs. */
  function makeOld(layout: string) {
    const { manifests } = indexOf(layout);
    const [main, feature] = manifests;
    writeIndex(layout, [main]);
    for (const name of blobNames(layout)) age(join(layout, "blobs", "sha256", name), 60_000);
    return { main, feature };
  }

  test("what is named while the layout is watched comes back", async () => {
    const layout = fixtureCopy("grown");
    const both = reachedBlobs(layout);
    const { main, feature } = makeOld(layout);
    const running = gc(layout, { grace: 300 });
    await waitUntil(() => blobNames(layout).length < 28);
    writeIndex(layout, [main, feature]);
    const result = await running;
    expect(blobNames(layout)).toEqual(both);
    expect(result.removed).toHaveLength(28 - both.length);
  });

  test("a layout that does not come to rest keeps everything", async () => {
    const layout = fixtureCopy("grown");
    makeOld(layout);
    mkdirSync(join(layout, "ingest", "0a"), { recursive: true });
    let count = 0;
    const writer = setInterval(
      () => writeFileSync(join(layout, "ingest", "0a", "data"), `${count++}`),
      10,
    );
    const result = await gc(layout, { grace: 200, lockTimeout: 600 });
    clearInterval(writer);
    expect(result.removed).toEqual([]);
    expect(result.postponed).toBeGreaterThan(0);
    expect(result.kept).toBe(28);
    expect(blobNames(layout)).toHaveLength(28);
  });

  test("an interrupt puts everything back", async () => {
    const layout = fixtureCopy("grown");
    makeOld(layout);
    const controller = new AbortController();
    const running = gc(layout, { grace: 2000, signal: controller.signal });
    await waitUntil(() => blobNames(layout).length < 28);
    controller.abort();
    await expect(running).rejects.toThrow();
    expect(blobNames(layout)).toHaveLength(28);
    expect(existsSync(join(layout, ".cacheport"))).toBe(false);
  });

  test("what a gc that died had moved aside comes back first", async () => {
    const layout = fixtureCopy("grown");
    const kept = reachedBlobs(layout);
    const trash = join(layout, ".cacheport", "trash-dead", "sha256");
    mkdirSync(trash, { recursive: true });
    for (const name of blobNames(layout).slice(0, 20))
      renameSync(join(layout, "blobs", "sha256", name), join(trash, name));
    const dead = join(layout, ".cacheport", "run-dead");
    mkdirSync(dead);
    writeFileSync(join(dead, "half"), "half a blob");
    writeFileSync(join(dead, "lock"), "");
    const torn = join(layout, ".cacheport", "run-torn");
    mkdirSync(torn);
    writeFileSync(join(torn, "half"), "half a blob");
    const result = await gc(layout);
    expect(blobNames(layout)).toEqual(kept);
    expect(result.leftovers.map(({ path }) => path)).toEqual([
      ".cacheport/run-dead",
      ".cacheport/run-torn",
    ]);
    expect(existsSync(join(layout, ".cacheport"))).toBe(false);
  });

  test("two at once remove the same as one", async () => {
    const layout = fixtureCopy("grown");
    const kept = reachedBlobs(layout);
    const results = await Promise.all([gc(layout), gc(layout), gc(layout)]);
    expect(blobNames(layout)).toEqual(kept);
    const removed = results.flatMap((result) => result.removed);
    expect(removed).toHaveLength(28 - kept.length);
  });
});

async function waitUntil(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(1);
}
