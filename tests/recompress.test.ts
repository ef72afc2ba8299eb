import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { encodeCacheConfig } from "../src/cache-config.ts";
import type { CacheConfig } from "../src/cache-types.ts";
import { encodeCacheManifest } from "../src/cache-manifest.ts";
import type {
  BlobLocation,
  BlobSource,
  ContentReader,
  ContentWriter,
} from "../src/content-store.ts";
import type { Descriptor } from "../src/descriptor.ts";
import { digestOf } from "../src/digest.ts";
import type { Digest } from "../src/digest.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { LayoutDirectory, LayoutDirectoryWriter } from "../src/layout-directory.ts";
import { CACHE_CONFIG, layerTypeIn } from "../src/media-types.ts";
import type { Compression } from "../src/media-types.ts";
import { noProgress } from "../src/progress.ts";
import { readCache } from "../src/cache-read.ts";
import type { LoadedCache } from "../src/cache-read.ts";
import type { CompressionChoice } from "../src/recompress-layer.ts";
import { recompressCache } from "../src/recompress.ts";
import type { CacheParts, RecompressedCache } from "../src/recompress.ts";
import { failure } from "./helpers/errors.ts";
import { blobFile, layoutFaults } from "./helpers/layout.ts";
import { fixture, fixtureCopy, tempFolder } from "./helpers/temp.ts";

const UNCOMPRESSED = "containerd.io/uncompressed";
const TAR = "application/vnd.oci.image.layer.v1.tar";

/** The cache that a layout names. */
async function load(layout: string): Promise<{ store: LayoutDirectory; cache: LoadedCache }> {
  const store = await LayoutDirectory.open(layout);
  const { descriptor } = await store.resolve({});
  const { caches } = await readCache(store, descriptor, {
    limits: DEFAULT_LIMITS,
  });
  return { store, cache: caches[0] as LoadedCache };
}

/** Recompresses a layout's cache into another layout and names it there. */
async function recompress(
  from: string,
  to: string,
  choice: Partial<CompressionChoice> & { compression: Compression },
): Promise<{ result: RecompressedCache; digest: string }> {
  const { store, cache } = await load(from);
  const writer = await LayoutDirectoryWriter.open(to, { create: true });
  const scratch = tempFolder();
  try {
    const { bytes: configBytes, descriptor: configDescriptor } = cache.blob;
    const parts = { ...cache, configBytes, configDescriptor };
    const result = await recompressCache(store, parts, { force: false, ...choice }, writer, {
      jobs: 3,
      progress: noProgress,
      tempFolder: scratch,
    });
    for (const layer of result.layers) await writer.put(layer, { store });
    await writer.put(result.configDescriptor, { bytes: result.configBytes });
    const { bytes, descriptor } = encodeCacheManifest(
      { config: result.configDescriptor, layers: result.layers },
      "image-manifest",
    );
    const names = [{ kind: "set", name: { refName: "latest" } }] as const;
    await writer.publish([{ bytes, descriptor, names }]);
    expect(readdirSync(scratch)).toEqual([]);
    return { result, digest: descriptor.digest };
  } finally {
    await writer.close();
  }
}

const diffIds = (layers: readonly Descriptor[]): (string | undefined)[] =>
  layers.map(({ annotations }) => annotations?.[UNCOMPRESSED]).toSorted();

/** What the program of that name unpacks a blob to; read as it is where there is none. */
function unpack(path: string, compression: Compression): Uint8Array {
  if (compression === "uncompressed") return readFileSync(path);
  const { exitCode, stdout } = Bun.spawnSync([compression, "-dc", path]);
  expect(exitCode).toBe(0);
  return stdout;
}

/** A reader of blobs in memory, whatever digests they claim. */
class MemoryReader implements ContentReader {
  readonly location = "memory";
  readonly blobs = new Map<Digest, Uint8Array>();

  add(bytes: Uint8Array, mediaType: string, diffId?: Digest): Descriptor {
    const digest = digestOf(bytes);
    this.blobs.set(digest, bytes);
    const annotations = diffId && { [UNCOMPRESSED]: diffId };
    return { mediaType, digest, size: bytes.length, annotations };
  }
  async stat({ digest }: Descriptor): Promise<number | undefined> {
    return this.blobs.get(digest)?.length;
  }
  async read({ digest }: Descriptor): Promise<Uint8Array> {
    return this.blobs.get(digest) as Uint8Array;
  }
  async open({ digest }: Descriptor): Promise<ReadableStream<Uint8Array>> {
    return new Response(this.blobs.get(digest) as Uint8Array<ArrayBuffer>)
      .body as ReadableStream<Uint8Array>;
  }
  async locate(): Promise<undefined> {}
}

/** A writer that keeps what it is given and looks at how it comes. */
class MemoryWriter implements ContentWriter {
  readonly location = "memory";
  readonly blobs = new Map<Digest, Uint8Array>();
  readonly locations: BlobLocation[] = [];

  async put(descriptor: Descriptor, source: BlobSource): Promise<"copied"> {
    if ("bytes" in source) throw new Error("Expected a stream");
    const found = await source.store.locate(descriptor);
    if (found) this.locations.push(found);
    const bytes = await source.store.read(descriptor, 1e9);
    const streamed = await source.store.open(descriptor);
    expect(digestOf(await new Response(streamed).bytes())).toBe(descriptor.digest);
    this.blobs.set(descriptor.digest, bytes);
    return "copied";
  }
  async publish(): Promise<void> {}
  async close(): Promise<void> {}
}

/** A cache with one record whose result is the topmost of these layers. */
function cacheOf(layers: Descriptor[]): CacheParts {
  const createdAt = "2024-01-01T00:00:00Z";
  const config: CacheConfig = {
    layers: layers.map(({ digest }, at) => ({ blob: digest, parent: at - 1 })),
    records: [
      {
        results: [{ layer: layers.length - 1, createdAt }],
        chains: [],
        digest: digestOf("record"),
        inputs: [],
      },
    ],
  };
  const configBytes = encodeCacheConfig(config);
  return {
    config,
    configBytes,
    configDescriptor: {
      mediaType: CACHE_CONFIG,
      digest: digestOf(configBytes),
      size: configBytes.length,
    },
    layers,
  };
}

/** Recompresses what is in memory. */
async function inMemory(
  reader: ContentReader,
  layers: Descriptor[],
  choice: Partial<CompressionChoice> = {},
  options: { signal?: AbortSignal; tempFolder?: string } = {},
) {
  const writer = new MemoryWriter();
  const folder = options.tempFolder ?? tempFolder();
  const result = await recompressCache(
    reader,
    cacheOf(layers),
    { compression: "zstd", force: false, ...choice },
    writer,
    { jobs: 2, progress: noProgress, ...options, tempFolder: folder },
  );
  return { result, writer };
}

const CONTENT = new TextEncoder().encode("content ".repeat(5000));
const DIFF_ID = digestOf(CONTENT);

describe("recompressCache on BuildKit's caches", () => {
  const FIXTURES = [
    "app-image-manifest",
    "app-docker-list",
    "app-zstd-oci-index",
    "app-uncompressed",
    "dup-oci-index",
  ];

  test.each(FIXTURES)("%s through every compression keeps diffIDs and graph", async (name) => {
    const { cache } = await load(fixture(name));
    let from = fixture(name);
    for (const compression of ["zstd", "gzip", "uncompressed"] as const) {
      const to = join(tempFolder(), compression);
      const { result } = await recompress(from, to, { compression });
      expect(layoutFaults(to)).toEqual([]);
      expect(diffIds(result.layers)).toEqual(diffIds(cache.layers));
      expect(result.layers.map(({ digest }) => digest)).toEqual(
        result.config.layers.map(({ blob }) => blob),
      );
      expect(result.config.records.length).toBe(cache.config.records.length);
      for (const layer of result.layers) {
        expect(layer.mediaType).toBe(layerTypeIn(layer.mediaType, compression));
        const path = blobFile(to, layer.digest);
        expect(digestOf(unpack(path, compression))).toBe(
          layer.annotations?.[UNCOMPRESSED] as Digest,
        );
      }
      from = to;
    }
  });

  test.each(["app-zstd-image-manifest", "app-zstd-docker-list"])(
    "%s to uncompressed has the digest that BuildKit's own export has",
    async (name) => {
      const { digest } = await recompress(fixture(name), join(tempFolder(), "target"), {
        compression: "uncompressed",
      });
      const store = await LayoutDirectory.open(fixture("app-uncompressed"));
      expect((await store.resolve({})).descriptor.digest).toBe(digest as Digest);
    },
  );

  test("the result does not depend on what the layers were compressed with, nor on the run", async () => {
    const configs = await Promise.all(
      ["app-zstd-oci-index", "app-uncompressed", "app-uncompressed"].map(async (name) => {
        const to = join(tempFolder(), "target");
        return (await recompress(fixture(name), to, { compression: "gzip" })).digest;
      }),
    );
    expect(new Set(configs).size).toBe(1);
  });

  test.each([
    ["app-image-manifest", "gzip"],
    ["app-zstd-oci-index", "zstd"],
    ["app-uncompressed", "uncompressed"],
  ] as const)("%s stays as it is when it is %s already", async (name, compression) => {
    const { cache } = await load(fixture(name));
    const target = join(tempFolder(), "target");
    const { result } = await recompress(fixture(name), target, {
      compression,
    });
    expect(result.changed).toBe(0);
    expect(result.configBytes).toEqual(cache.blob.bytes);
    expect(result.layers).toEqual(cache.layers);
  });

  test("force recompresses what has the compression already, at the level", async () => {
    const sizes = [];
    for (const level of [1, 9]) {
      const to = join(tempFolder(), "target");
      const { result } = await recompress(fixture("app-zstd-oci-index"), to, {
        compression: "zstd",
        level,
        force: true,
      });
      expect(layoutFaults(to)).toEqual([]);
      sizes.push(result.layers.reduce((sum, { size }) => sum + size, 0));
    }
    expect(sizes[1]).toBeLessThan(sizes[0] as number);
  });

  test("in place, the new blobs stand beside the old ones", async () => {
    const layout = fixtureCopy("app-image-manifest");
    const { result } = await recompress(layout, layout, {
      compression: "zstd",
    });
    expect(result.changed).toBe(8);
    expect(layoutFaults(layout)).toEqual([]);
    const { cache } = await load(layout);
    expect(cache.blob.bytes).toEqual(result.configBytes);
    const again = await recompress(layout, layout, { compression: "zstd" });
    expect(again.result.changed).toBe(0);
  });
});

describe("recompressCache", () => {
  test("keeps large layers whole too, whatever they come as", async () => {
    const content = new Uint8Array(9_000_000).map((_, at) => at * (at >>> 9));
    for (const packed of [content, Bun.zstdCompressSync(content, { level: 1 })]) {
      const reader = new MemoryReader();
      const layer = reader.add(packed, TAR, digestOf(content));
      const { result, writer } = await inMemory(reader, [layer], {
        level: 1,
        force: true,
      });
      const { digest } = result.layers[0] as Descriptor;
      const bytes = writer.blobs.get(digest) as Uint8Array;
      expect(digestOf(Bun.zstdDecompressSync(bytes))).toBe(digestOf(content));
    }
  });

  test("takes gzip of several members whole", async () => {
    const reader = new MemoryReader();
    const half = CONTENT.length / 2;
    const members = Buffer.concat([
      gzipSync(CONTENT.subarray(0, half)),
      gzipSync(CONTENT.subarray(half)),
    ]);
    const layer = reader.add(members, `${TAR}+gzip`, DIFF_ID);
    const { result, writer } = await inMemory(reader, [layer], {
      compression: "uncompressed",
    });
    expect(result.layers[0]?.digest).toBe(DIFF_ID);
    expect(writer.blobs.get(DIFF_ID)?.length).toBe(CONTENT.length);
  });

  test("hands each blob over as a file that may be moved away", async () => {
    const reader = new MemoryReader();
    const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`, DIFF_ID);
    const { result, writer } = await inMemory(reader, [layer]);
    expect(writer.locations).toEqual([
      {
        path: expect.any(String),
        offset: 0,
        size: result.layers[0]?.size as number,
        disposable: true,
        hashed: true,
      },
    ]);
  });

  test("keeps the files for a target that reads them later, until it is told", async () => {
    const reader = new MemoryReader();
    const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`, DIFF_ID);
    const folder = tempFolder();
    const later: [Descriptor, ContentReader][] = [];
    const writer: ContentWriter = {
      location: "memory",
      defers: true,
      async put(descriptor, source) {
        if ("store" in source) later.push([descriptor, source.store]);
        return "copied";
      },
      async publish() {},
      async close() {},
    };
    const result = await recompressCache(
      reader,
      cacheOf([layer]),
      { compression: "uncompressed", force: false },
      writer,
      { jobs: 1, progress: noProgress, tempFolder: folder },
    );
    const [[descriptor, store]] = later as [[Descriptor, ContentReader]];
    expect(await store.read(descriptor, 1e6)).toEqual(Buffer.from(CONTENT));
    expect(await store.stat(descriptor)).toBe(CONTENT.length);
    expect(result.changedBytes).toBe(CONTENT.length);
    await result.dispose();
    expect(readdirSync(folder)).toEqual([]);
  });

  test("adds the diffID where a descriptor has none", async () => {
    const reader = new MemoryReader();
    const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`);
    const { result } = await inMemory(reader, [layer]);
    expect(result.layers[0]?.annotations).toEqual({ [UNCOMPRESSED]: DIFF_ID });
  });

  test("keeps annotations, but not what they say of the old bytes", async () => {
    const reader = new MemoryReader();
    const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`, DIFF_ID);
    layer.data = "AAAA";
    layer.annotations = {
      ...layer.annotations,
      "buildkit/createdat": "2024-01-01T00:00:00Z",
      "containerd.io/snapshot/stargz/toc.digest": DIFF_ID,
      "io.containers.estargz.uncompressed-size": "5",
      "io.github.containers.zstd-chunked.manifest-checksum": "x",
      "containerd.io/distribution.source.docker.io": "library/alpine",
    };
    const { result } = await inMemory(reader, [layer]);
    expect(result.layers[0]?.annotations).toEqual({
      "buildkit/createdat": "2024-01-01T00:00:00Z",
      [UNCOMPRESSED]: DIFF_ID,
    });
    expect(result.layers[0]?.data).toBeUndefined();
  });

  test("two blobs of one content become one blob", async () => {
    const reader = new MemoryReader();
    const gzip = reader.add(gzipSync(CONTENT), `${TAR}+gzip`, DIFF_ID);
    const plain = reader.add(CONTENT, TAR, DIFF_ID);
    const { result, writer } = await inMemory(reader, [gzip, plain]);
    expect(writer.blobs.size).toBe(1);
    expect(result.changed).toBe(1);
    expect(result.layers).toHaveLength(2);
    expect(result.config.layers).toHaveLength(2);
  });

  test("the bytes decide what a layer is compressed with, not its media type", async () => {
    const reader = new MemoryReader();
    const layer = reader.add(Bun.zstdCompressSync(CONTENT), `${TAR}+gzip`, DIFF_ID);
    const { result } = await inMemory(reader, [layer], {
      compression: "uncompressed",
    });
    expect(result.layers[0]?.digest).toBe(DIFF_ID);
  });

  test("leaves alone what is no layer, what has URLs and what no record can reach", async () => {
    const reader = new MemoryReader();
    const layers = [
      reader.add(new TextEncoder().encode("{}"), "application/json"),
      { ...reader.add(gzipSync(CONTENT), `${TAR}+gzip`), urls: ["https://x"] },
    ];
    const { result, writer } = await inMemory(reader, layers);
    expect(result.changed).toBe(0);
    expect(result.layers).toEqual(layers);
    expect(writer.blobs.size).toBe(0);

    const stray = reader.add(gzipSync("stray"), `${TAR}+gzip`);
    const cache = cacheOf([reader.add(gzipSync(CONTENT), `${TAR}+gzip`)]);
    const other = await recompressCache(
      reader,
      { ...cache, layers: [...cache.layers, stray] },
      { compression: "zstd", force: false },
      new MemoryWriter(),
      { jobs: 1, progress: noProgress, tempFolder: tempFolder() },
    );
    expect(other.layers).toHaveLength(1);
  });

  test("an entry of the config that the manifest lacks stays, without a descriptor", async () => {
    const reader = new MemoryReader();
    const layers = [
      reader.add(gzipSync(CONTENT), `${TAR}+gzip`),
      reader.add(gzipSync("gone"), `${TAR}+gzip`),
    ];
    const cache = cacheOf(layers);
    const result = await recompressCache(
      reader,
      { ...cache, layers: layers.slice(0, 1) },
      { compression: "zstd", force: false },
      new MemoryWriter(),
      { jobs: 1, progress: noProgress, tempFolder: tempFolder() },
    );
    expect(result.config.layers).toHaveLength(2);
    expect(result.layers).toHaveLength(1);
  });

  test("an object-store cache's own annotations follow", async () => {
    const reader = new MemoryReader();
    const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`, DIFF_ID);
    const cache = cacheOf([layer]);
    const [entry] = cache.config.layers;
    if (entry)
      entry.annotations = {
        mediaType: `${TAR}+gzip`,
        diffID: DIFF_ID,
        size: layer.size,
        createdAt: "2024-01-01T00:00:00Z",
      };
    const result = await recompressCache(
      reader,
      cache,
      { compression: "zstd", force: false },
      new MemoryWriter(),
      { jobs: 1, progress: noProgress, tempFolder: tempFolder() },
    );
    expect(result.config.layers[0]?.annotations).toEqual({
      mediaType: `${TAR}+zstd`,
      diffID: DIFF_ID,
      size: result.layers[0]?.size as number,
      createdAt: "2024-01-01T00:00:00Z",
    });
  });

  test("tells progress in stored bytes", async () => {
    const reader = new MemoryReader();
    const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`);
    const told: unknown[] = [];
    await recompressCache(
      reader,
      cacheOf([layer, layer]),
      { compression: "zstd", force: false },
      new MemoryWriter(),
      {
        jobs: 1,
        tempFolder: tempFolder(),
        progress: {
          expect: (work) => told.push(work),
          start: (action, digest, size) => {
            told.push([action, digest, size]);
            return {
              advance: (bytes) => told.push(bytes),
              end: (outcome) => told.push(outcome),
            };
          },
        },
      },
    );
    expect(told).toEqual([
      { tasks: 1, bytes: layer.size },
      ["recompress", layer.digest, layer.size],
      layer.size,
      "done",
    ]);
  });
});

describe("recompressCache refuses and leaves no temporary file", () => {
  const BAD: [title: string, code: string, make: (reader: MemoryReader) => Descriptor][] = [
    [
      "a wrong diffID",
      "DIGEST_MISMATCH",
      (reader) => reader.add(gzipSync(CONTENT), `${TAR}+gzip`, digestOf("other")),
    ],
    [
      "a diffID that is no digest",
      "DIGEST_INVALID",
      (reader) => reader.add(gzipSync(CONTENT), `${TAR}+gzip`, "x" as Digest),
    ],
    [
      "truncated gzip",
      "COMPRESSION_INVALID",
      (reader) => reader.add(gzipSync(CONTENT).subarray(0, -3), `${TAR}+gzip`),
    ],
    [
      "truncated zstd",
      "COMPRESSION_INVALID",
      (reader) => reader.add(Bun.zstdCompressSync(CONTENT).subarray(0, -3), `${TAR}+zstd`),
    ],
    [
      "junk after gzip",
      "COMPRESSION_INVALID",
      (reader) =>
        reader.add(Buffer.concat([gzipSync(CONTENT), Buffer.from("junk")]), `${TAR}+gzip`),
    ],
    [
      "stored bytes with another digest",
      "DIGEST_MISMATCH",
      (reader) => {
        const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`);
        reader.blobs.set(layer.digest, gzipSync(CONTENT.toReversed()));
        return { ...layer, size: gzipSync(CONTENT.toReversed()).length };
      },
    ],
    [
      "stored bytes with another digest, large enough for the other thread",
      "DIGEST_MISMATCH",
      (reader) => {
        const layer = reader.add(new Uint8Array(2_000_000), TAR);
        reader.blobs.set(layer.digest, new Uint8Array(2_000_000).fill(1));
        return layer;
      },
    ],
    [
      "a wrong diffID of a large blob",
      "DIGEST_MISMATCH",
      (reader) => reader.add(new Uint8Array(2_000_000), TAR, digestOf("other")),
    ],
    [
      "a blob that was cut short",
      "SIZE_MISMATCH",
      (reader) => {
        const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`);
        reader.blobs.set(layer.digest, gzipSync(CONTENT).subarray(0, -3));
        return layer;
      },
    ],
  ];

  test.each(BAD)("%s: %s", async (_title, code, make) => {
    const folder = tempFolder();
    const reader = new MemoryReader();
    const good = reader.add(gzipSync("good"), `${TAR}+gzip`);
    const layers = [good, make(reader)];
    const error = await failure(() =>
      inMemory(reader, layers, { compression: "gzip", force: true }, { tempFolder: folder }),
    );
    expect(error.code as string).toBe(code);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("an interruption, at once and halfway", async () => {
    const folder = tempFolder();
    const reader = new MemoryReader();
    const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`);
    const atOnce = await failure(() =>
      inMemory(
        reader,
        [layer],
        {},
        {
          signal: AbortSignal.abort(),
          tempFolder: folder,
        },
      ),
    );
    expect(atOnce.code).toBe("INTERRUPTED");

    // A layer that never ends.
    const controller = new AbortController();
    let pulls = 0;
    reader.open = async () =>
      new ReadableStream<Uint8Array>({
        pull(stream) {
          if (++pulls === 50) controller.abort();
          stream.enqueue(new Uint8Array(100_000));
        },
      });
    const endless = { ...layer, size: Number.MAX_SAFE_INTEGER };
    const halfway = await failure(() =>
      inMemory(
        reader,
        [endless],
        {},
        {
          signal: controller.signal,
          tempFolder: folder,
        },
      ),
    );
    expect(halfway.code).toBe("INTERRUPTED");
    expect(readdirSync(folder)).toEqual([]);
  });

  test("a target that fails, and a folder that cannot be used", async () => {
    const folder = tempFolder();
    const reader = new MemoryReader();
    const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`);
    const writer = new MemoryWriter();
    writer.put = async () => {
      throw Object.assign(new Error("full"), { code: "ENOSPC" });
    };
    const options = { jobs: 1, progress: noProgress };
    const choice = { compression: "zstd", force: false } as const;
    const full = await failure(() =>
      recompressCache(reader, cacheOf([layer]), choice, writer, {
        ...options,
        tempFolder: folder,
      }),
    );
    expect(full.code).toBe("NO_SPACE");
    expect(readdirSync(folder)).toEqual([]);

    writeFileSync(join(folder, "file"), "");
    mkdirSync(join(folder, "empty"));
    const noFolder = await failure(() =>
      recompressCache(reader, cacheOf([layer]), choice, new MemoryWriter(), {
        ...options,
        tempFolder: join(folder, "file"),
      }),
    );
    expect(noFolder.code).toBe("IO_FAILED");
  });

  test("a compression or a level that does not exist, before anything is read", async () => {
    const reader = new MemoryReader();
    const layer = reader.add(gzipSync(CONTENT), `${TAR}+gzip`);
    reader.open = async () => {
      throw new Error("Nothing is to be read");
    };
    const estargz = await failure(() =>
      inMemory(reader, [layer], { compression: "estargz" as Compression }),
    );
    expect(estargz.code).toBe("NOT_SUPPORTED");
    const level = await failure(() => inMemory(reader, [layer], { level: 23 }));
    expect(level.code).toBe("USAGE");
  });
});

describe("layerTypeIn", () => {
  const DOCKER = "application/vnd.docker.image.rootfs";
  const FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar";

  test.each([
    [`${TAR}+gzip`, "zstd", `${TAR}+zstd`],
    [`${TAR}+zstd`, "uncompressed", TAR],
    [TAR, "gzip", `${TAR}+gzip`],
    [`${TAR}+gzip`, "gzip", `${TAR}+gzip`],
    [`${DOCKER}.diff.tar.gzip`, "zstd", `${DOCKER}.diff.tar.zstd`],
    [`${DOCKER}.diff.tar`, "gzip", `${DOCKER}.diff.tar.gzip`],
    [`${FOREIGN}+gzip`, "zstd", `${FOREIGN}+zstd`],
    [`${DOCKER}.foreign.diff.tar.gzip`, "uncompressed", `${DOCKER}.foreign.diff.tar`],
    // Docker has no such type.
    [`${DOCKER}.foreign.diff.tar.gzip`, "zstd", `${FOREIGN}+zstd`],
    ["application/json", "zstd", "application/json"],
  ] as const)("%s as %s is %s", (mediaType, compression, expected) => {
    expect(layerTypeIn(mediaType, compression)).toBe(expected);
  });
});
