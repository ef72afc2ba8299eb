import { describe, expect, test } from "bun:test";
import { CACHE_SHAPES } from "../src/cache-manifest.ts";
import type { Cache } from "../src/cache-layers.ts";
import type {
  BlobSource,
  ContentReader,
  ContentWriter,
  PutOutcome,
  Root,
} from "../src/content-store.ts";
import type { Descriptor, Platform } from "../src/descriptor.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { CacheportError } from "../src/errors.ts";
import { planIndex, planMerge } from "../src/merge.ts";
import type { CacheSource } from "../src/merge.ts";
import { configBlob } from "../src/plan.ts";
import { noProgress } from "../src/progress.ts";
import { failure } from "./helpers/errors.ts";
import { cacheOf, fakeDigest, generateCache } from "./helpers/generated-cache.ts";

/** A store that has some blobs, in local files or not; nothing in it can be read. */
class FakeStore implements ContentReader {
  readonly location: string;
  readonly #blobs: ReadonlySet<string>;
  readonly #isLocal: boolean;

  constructor(location: string, blobs: Iterable<string>, isLocal = true) {
    this.location = location;
    this.#blobs = new Set(blobs);
    this.#isLocal = isLocal;
  }

  async stat({ digest, size }: Descriptor) {
    return this.#blobs.has(digest) ? size : undefined;
  }

  async locate({ digest, size }: Descriptor) {
    return this.#isLocal && this.#blobs.has(digest)
      ? { path: "/", offset: 0, size, disposable: false }
      : undefined;
  }

  read(): Promise<never> {
    throw new Error("read");
  }

  open(): Promise<never> {
    throw new Error("open");
  }
}

/** Writes down what is put and published. */
class FakeWriter implements ContentWriter {
  readonly location = "target";
  /** Each digest with the location that it was taken from, or `bytes`. */
  readonly puts = new Map<string, string>();
  readonly published: Root[] = [];
  /** Media types of roots that are refused. */
  readonly refused: string[];

  constructor(...refused: string[]) {
    this.refused = refused;
  }

  async put({ digest }: Descriptor, source: BlobSource): Promise<PutOutcome> {
    expect(this.puts.has(digest)).toBe(false);
    expect(this.published).toEqual([]);
    this.puts.set(digest, "bytes" in source ? "bytes" : source.store.location);
    if (
      !("bytes" in source) &&
      (await source.store.stat({ digest, mediaType: "", size: 1 })) === undefined
    )
      throw new CacheportError("BLOB_MISSING", `Cannot read ${digest}`);
    return "copied";
  }

  async publish(roots: readonly Root[]): Promise<void> {
    for (const root of roots) {
      if (this.refused.includes(root.descriptor.mediaType))
        throw new CacheportError("REGISTRY_REJECTED", "Cannot push");
      // What a document lists is there before it is.
      const {
        config,
        layers = [],
        manifests = [],
      } = JSON.parse(new TextDecoder().decode(root.bytes));
      for (const child of [...(config ? [config] : []), ...layers, ...manifests])
        expect(this.puts.has(child.digest)).toBe(true);
      this.published.push(root);
    }
  }

  async close(): Promise<void> {}
}

const digests = ({ layers }: Cache): string[] => layers.map(({ digest }) => digest);

/** A cache as it would have been read from a store. */
function sourceOf(
  cache: Cache,
  store: ContentReader = new FakeStore("store", digests(cache)),
  shape: "image-manifest" | "inline" = "image-manifest",
): CacheSource {
  const digest = fakeDigest(JSON.stringify(cache));
  const manifest = { mediaType: "", digest, size: 1 };
  return {
    store,
    cache: {
      ...cache,
      shape,
      manifest,
      blob: configBlob(cache),
      platform: undefined,
    },
  };
}

const options = {
  limits: DEFAULT_LIMITS,
  jobs: 3,
  progress: noProgress,
  names: [{ kind: "set" as const, name: { refName: "latest" } }],
};
const AMD64: Platform = { os: "linux", architecture: "amd64" };
const ARM64: Platform = { os: "linux", architecture: "arm64", variant: "v8" };

const ONE = cacheOf({ base: [[], ["base"]], a: [["base"], ["base", "a"], 1] });
const TWO = cacheOf({ base: [[], ["base"]], b: [["base"], ["base", "b"], 2] });

describe("a plan", () => {
  test("tells what is written, in each shape", async () => {
    for (const shape of CACHE_SHAPES) {
      const plan = planMerge([sourceOf(ONE), sourceOf(TWO)], [shape])!;
      const writer = new FakeWriter();
      const made = await plan.write(writer, options);
      expect(made).toEqual({
        descriptor: plan.descriptor,
        shape,
        counts: { copied: 3, skipped: 0, bytes: expect.any(Number) },
      });
      expect(writer.published).toMatchObject([
        { descriptor: plan.descriptor, names: options.names },
      ]);
    }
  });

  test("does not depend on the order of generated caches", () => {
    const caches = [1, 2, 3].map((seed) => sourceOf(generateCache(seed, 60)));
    const digest = planMerge(caches, ["image-manifest"])?.descriptor.digest;
    expect(digest).toBeString();
    for (const [a, b, c] of [
      [2, 0, 1],
      [1, 2, 0],
    ] as const) {
      const turned = [caches[a]!, caches[b]!, caches[c]!];
      expect(planMerge(turned, ["image-manifest"])?.descriptor.digest).toBe(digest!);
    }
  });

  test("is none for caches without layers", () => {
    const empty = sourceOf(cacheOf({ a: [] }));
    expect(planMerge([empty, empty], ["image-manifest"])).toBeUndefined();
    expect(planIndex([{ ...empty, platform: AMD64 }])).toBeUndefined();
  });

  test("names the cache that BuildKit would refuse", async () => {
    const bad = sourceOf(cacheOf({ r: [["r"]] }), new FakeStore("there", []));
    for (const plan of [
      () => planMerge([sourceOf(ONE), bad], ["image-manifest"]),
      () =>
        planIndex([
          { ...sourceOf(ONE), platform: AMD64 },
          { ...bad, platform: AMD64 },
        ]),
    ]) {
      const error = await failure(plan);
      expect(error.code).toBe("CACHE_INVALID");
      expect(error.message).toBe(
        `Cannot use cache "${bad.cache.manifest.digest}" in "there": invalid looping record (in records, entry 0)`,
      );
    }
  });
});

describe("writing a merge", () => {
  test("takes the next shape where the target refuses one", async () => {
    const plan = planMerge([sourceOf(ONE)], ["oci-index", "image-manifest"])!;
    expect(plan.shape).toBe("oci-index");
    const writer = new FakeWriter(plan.descriptor.mediaType);
    const made = await plan.write(writer, options);
    expect(made.shape).toBe("image-manifest");
    expect(made.descriptor).toEqual(writer.published[0]!.descriptor);
  });

  test("takes each blob once, from a local file where there is one", async () => {
    const remote = new FakeStore("remote", digests(ONE), false);
    const local = new FakeStore("local", digests(TWO));
    const plan = planMerge([sourceOf(ONE, remote), sourceOf(TWO, local)], ["image-manifest"])!;
    const writer = new FakeWriter();
    await plan.write(writer, options);
    const { cache } = plan.parts[0]!;
    expect(Object.fromEntries(writer.puts)).toEqual({
      [fakeDigest("base")]: "local",
      [fakeDigest("a")]: "remote",
      [fakeDigest("b")]: "local",
      [configBlob(cache).descriptor.digest]: "bytes",
    });
  });

  test("goes round a store that has lost a blob that another one has", async () => {
    const broken = new FakeStore("broken", [fakeDigest("a")]);
    const sources = [sourceOf(ONE, broken), sourceOf(TWO)];
    const writer = new FakeWriter();
    await planMerge(sources, ["image-manifest"])!.write(writer, options);
    expect(writer.puts.get(fakeDigest("base"))).toBe("store");
  });

  test("names nothing when a blob is nowhere", async () => {
    const broken = new FakeStore("broken", [fakeDigest("base")]);
    const sources = [sourceOf(ONE, broken), sourceOf(TWO)];
    const writer = new FakeWriter();
    const error = await failure(() =>
      planMerge(sources, ["image-manifest"])!.write(writer, options),
    );
    expect(error.code).toBe("BLOB_MISSING");
    expect(writer.published).toEqual([]);
  });

  test("does nothing more once it is interrupted", async () => {
    const writer = new FakeWriter();
    const signal = AbortSignal.abort();
    const plan = planMerge([sourceOf(ONE)], ["image-manifest"])!;
    await expect(plan.write(writer, { ...options, signal })).rejects.toThrow();
    expect(writer.puts.size + writer.published.length).toBe(0);
  });
});

describe("an index", () => {
  test("has one cache for each platform, written before it is", async () => {
    const sources = [
      { ...sourceOf(ONE), platform: ARM64 },
      { ...sourceOf(TWO), platform: AMD64 },
      { ...sourceOf(TWO), platform: { ...ARM64, variant: undefined } },
    ];
    const plan = planIndex(sources)!;
    expect(plan.parts.map(({ platform }) => platform)).toEqual([
      { ...AMD64, variant: undefined },
      { ...ARM64, variant: undefined },
    ]);
    const [amd64, arm64] = plan.parts;
    expect(amd64!.config.descriptor).toEqual(sourceOf(TWO).cache.blob.descriptor);
    expect(arm64!.manifest).toEqual(
      planMerge([sourceOf(ONE), sourceOf(TWO)], ["image-manifest"])!.parts[0]!.manifest,
    );
    expect(planIndex(sources.toReversed())!.descriptor).toEqual(plan.descriptor);
  });

  test("keeps the config of a cache that is alone on its platform byte by byte", () => {
    const source = sourceOf(ONE);
    const configBytes = new TextEncoder().encode("as it is stored");
    source.cache.blob.bytes = configBytes;
    const plan = planIndex([{ ...source, platform: AMD64 }])!;
    expect(plan.parts[0]!.config.bytes).toBe(configBytes);
    const inline = sourceOf(ONE, undefined, "inline");
    inline.cache.blob.bytes = configBytes;
    const made = planIndex([{ ...inline, platform: AMD64 }])!;
    expect(made.parts[0]!.config.bytes).not.toBe(configBytes);
  });

  test("is not named when a blob of one platform is nowhere", async () => {
    const broken = new FakeStore("broken", []);
    const sources = [
      { ...sourceOf(ONE), platform: AMD64 },
      { ...sourceOf(TWO, broken), platform: ARM64 },
    ];
    const writer = new FakeWriter();
    writer.put = async ({ digest }, source) => {
      if ("store" in source && source.store === broken)
        throw new CacheportError("BLOB_MISSING", `Cannot read ${digest}`);
      return "copied";
    };
    const error = await failure(() => planIndex(sources)!.write(writer, options));
    expect(error.code).toBe("BLOB_MISSING");
    expect(writer.published).toEqual([]);
  });
});
