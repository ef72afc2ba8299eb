/**
 * Fuzzing of every reader of documents: whatever the bytes are, a reader gives a
 * value or a coded error with one sentence, and what it read can be worked with.
 */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { checkCacheConfig, layerDepths } from "../src/cache-check.ts";
import { encodeCacheConfig, parseCacheConfig, parseCacheRecords } from "../src/cache-config.ts";
import { encodeCacheManifest } from "../src/cache-manifest.ts";
import { digestOf } from "../src/digest.ts";
import {
  detectDocumentType,
  identify,
  parseCacheManifest,
  parseDocument,
  sniffType,
} from "../src/document.ts";
import { CacheportError } from "../src/errors.ts";
import { parseImageConfig } from "../src/image-config.ts";
import { encodeImageIndex, parseImageIndex } from "../src/image-index.ts";
import { parseImageManifest } from "../src/image-manifest.ts";
import { readInlineCache } from "../src/cache-inline.ts";
import {
  encodeLayoutIndex,
  matchesName,
  parseLayoutIndex,
  resolveEntry,
} from "../src/layout-index.ts";
import { contentTrees } from "../src/cli-tree.ts";
import type { Store } from "../src/content-store.ts";
import type { Descriptor } from "../src/descriptor.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { choosePlatform } from "../src/image-choose.ts";
import { LayoutDirectory } from "../src/layout-directory.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../src/media-types.ts";
import { findReachable } from "../src/reachable.ts";
import { verifyStore } from "../src/verify.ts";
import { walk } from "../src/walk.ts";
import { failure } from "./helpers/errors.ts";
import { addBlob, writeLayout } from "./helpers/layout.ts";
import { random as startRandom } from "./helpers/random.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const ROUNDS = 4000;

/** Each reader, and what a command would do with what it read. */
const READERS: Record<string, (bytes: Uint8Array) => unknown> = {
  parseDocument(bytes) {
    const { children, blobs, config, layers } = parseDocument(bytes, "", "document");
    expect(children.length).toBeGreaterThanOrEqual(blobs.length);
    expect(blobs.length).toBe(layers.length + (config ? 1 : 0));
  },
  identify: (bytes) => identify(bytes, "application/x", "document"),
  detectDocumentType: (bytes) => detectDocumentType(bytes, "document"),
  sniffType,
  parseCacheManifest(bytes) {
    const cache = parseCacheManifest(bytes, "document");
    if (cache && cache.layers.length > 0) {
      const { bytes: written } = encodeCacheManifest(cache, "oci-index");
      expect(parseCacheManifest(written, "again")?.layers.length).toBe(cache.layers.length);
    }
    return cache;
  },
  parseImageIndex: (bytes) => encodeImageIndex(parseImageIndex(bytes, "document")),
  parseImageManifest: (bytes) => parseImageManifest(bytes, "document"),
  parseImageConfig(bytes) {
    const image = parseImageConfig(bytes, "document");
    const layers = image.diffIds.map(() => ({
      mediaType: "",
      digest: digestOf("x"),
      size: 1,
    }));
    return readInlineCache(image, layers, "document");
  },
  parseCacheConfig(bytes) {
    const config = parseCacheConfig(bytes, "document");
    layerDepths(config);
    if (checkCacheConfig(config).length === 0) {
      const encoded = encodeCacheConfig(config);
      expect(encodeCacheConfig(parseCacheConfig(encoded, "again"))).toEqual(encoded);
    }
    return config;
  },
  parseCacheRecords: (bytes) => parseCacheRecords(bytes, "document"),
  parseLayoutIndex(bytes) {
    const index = parseLayoutIndex(bytes, "document");
    for (const entry of index.entries) matchesName(entry, "latest");
    try {
      resolveEntry(index, {}, "layout");
    } catch (error) {
      expect(error).toBeInstanceOf(CacheportError);
    }
    return encodeLayoutIndex(index);
  },
};

/** Real documents to start from. */
const SEEDS = [
  "app-image-manifest",
  "app-oci-index",
  "app-docker-list",
  "image-dir",
  "image-inline",
  "image-attested",
  "multi-cache",
].flatMap((name) => {
  const blobs = join(fixture(name), "blobs", "sha256");
  const documents = readdirSync(blobs)
    .map((file) => join(blobs, file))
    .filter((path) => statSync(path).size < 10_000 && readFileSync(path)[0] === 0x7b);
  return [join(fixture(name), "index.json"), ...documents].map((path) =>
    readFileSync(path, "utf8"),
  );
});

const JUNK = [
  null,
  true,
  0,
  -1,
  1.5,
  1e308,
  2 ** 53,
  "",
  "x",
  "sha256:../../x",
  "\u0000",
  "\ud800",
  [],
  {},
  [null],
  { length: 1 },
  JSON.parse('{"__proto__":{"x":1},"constructor":1,"toString":2}'),
];

describe("every reader gives a value or a coded error", () => {
  for (const [name, read] of Object.entries(READERS)) {
    test(name, () => {
      const random = startRandom(name.length * 7919);
      const outcomes = { values: 0, errors: 0 };
      for (let round = 0; round < ROUNDS; round++) {
        const seed = random.pick(SEEDS);
        const bytes =
          round % 3 === 0
            ? mutateBytes(Buffer.from(seed), random)
            : Buffer.from(JSON.stringify(mutateValue(JSON.parse(seed), random)));
        try {
          read(bytes);
          outcomes.values++;
        } catch (error) {
          if (!(error instanceof CacheportError)) {
            throw new Error(`${name} threw ${error} for ${bytes.toString()}`, {
              cause: error,
            });
          }
          expect(error.message).toMatch(/^Cannot [a-z]+ .*[^.]$/s);
          expect(error.message.length).toBeLessThan(2000);
          outcomes.errors++;
        }
      }
      expect(outcomes.values).toBeGreaterThan(0);
      if (read !== sniffType) expect(outcomes.errors).toBeGreaterThan(0);
    });
  }

  test("nesting that is deep beyond reason is no crash", () => {
    const deep = Buffer.from(`${"[".repeat(200_000)}${"]".repeat(200_000)}`);
    const wrapped = Buffer.from(`{"manifests":${deep.toString()}}`);
    for (const [name, read] of Object.entries(READERS)) {
      for (const bytes of [deep, wrapped]) {
        try {
          read(bytes);
        } catch (error) {
          expect(error, name).toBeInstanceOf(CacheportError);
        }
      }
    }
  });
});

describe("documents that share their children", () => {
  /** A layout of levels in which every index lists all of the next level, many times over. */
  const shared = (random: Random): { layout: string; documents: number; root: Descriptor } => {
    const layout = tempFolder();
    const layer = addBlob(layout, "layer", "text/plain");
    const config = addBlob(layout, "{}", "application/vnd.oci.empty.v1+json");
    let below = Array.from({ length: 1 + random.below(3) }, (_, n) =>
      addBlob(layout, { config, layers: [layer], n }, OCI_MANIFEST),
    );
    let documents = below.length;
    for (let level = 0; level < 7; level++) {
      below = Array.from({ length: level === 6 ? 1 : 1 + random.below(3) }, (_, n) => {
        const manifests = Array.from({ length: 20 }, () => random.pick(below));
        return addBlob(layout, { schemaVersion: 2, manifests, level, n }, OCI_INDEX);
      });
      documents += below.length;
    }
    const [root] = below;
    writeLayout(layout, [root as object]);
    return { layout, documents, root: root as Descriptor };
  };

  test("are read once by whatever goes through them", async () => {
    const limits = DEFAULT_LIMITS;
    const linux = { os: "linux", architecture: "amd64" };
    const walkers: Record<string, (reader: Store, root: Descriptor) => Promise<unknown>> = {
      walk: (reader, root) => walk(reader, [root], { limits }),
      contentTrees: (reader, root) =>
        contentTrees(reader, [{ descriptor: root }, { refName: "x", descriptor: root }], {
          limits,
        }),
      verifyStore: (reader) => verifyStore(reader, undefined, { limits, jobs: 1 }),
      findReachable: (reader, root) =>
        findReachable(reader, [{ descriptor: root }], new Map(), { limits }),
      choosePlatform: (reader, root) =>
        failure(() => choosePlatform(reader, root, linux, { limits })),
    };
    for (let seed = 1; seed <= 5; seed++) {
      const { layout, documents, root } = shared(startRandom(seed));
      for (const [name, through] of Object.entries(walkers)) {
        const store = await LayoutDirectory.open(layout);
        let reads = 0;
        const counting = new Proxy(store, {
          get(target, key) {
            if (key === "read") reads++;
            const value = Reflect.get(target, key) as unknown;
            return typeof value === "function" ? value.bind(target) : value;
          },
        });
        await through(counting, root);
        // A manifest may be read again for its config.
        expect([name, reads <= 2 * documents + 20]).toEqual([name, true]);
      }
    }
  });
});

type Random = ReturnType<typeof startRandom>;

/** Flips, cuts, doubles or inserts bytes. */
function mutateBytes(bytes: Buffer, random: Random): Uint8Array {
  const at = random.below(bytes.length);
  switch (random.below(4)) {
    case 0: {
      const copy = Buffer.from(bytes);
      copy[at] = random.below(256);
      return copy;
    }
    case 1:
      return bytes.subarray(0, at);
    case 2:
      return Buffer.concat([bytes, bytes.subarray(at)]);
    default:
      return Buffer.concat([
        bytes.subarray(0, at),
        Buffer.from([random.below(256)]),
        bytes.subarray(at),
      ]);
  }
}

/** Puts junk somewhere in a JSON value, or takes something out, or renames a key. */
function mutateValue(value: any, random: Random): any {
  if (typeof value !== "object" || value === null || random.below(8) === 0) {
    return random.pick(JUNK);
  }
  const keys = Object.keys(value);
  if (keys.length === 0) return random.pick(JUNK);
  const key = random.pick(keys);
  const copy = Array.isArray(value) ? [...value] : { ...value };
  switch (random.below(8)) {
    case 0:
      delete copy[key];
      return copy;
    case 1:
      if (Array.isArray(copy)) copy.push(value[key]);
      else copy[key.toUpperCase()] = random.pick(JUNK);
      return copy;
    default:
      copy[key] = mutateValue(value[key], random);
      return copy;
  }
}
