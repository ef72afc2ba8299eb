import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { digestOf } from "../src/digest.ts";
import type { Digest } from "../src/digest.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { LayoutDirectory } from "../src/layout-directory.ts";
import {
  CACHE_CONFIG,
  DOCKER_LAYER_GZIP,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER_GZIP,
  OCI_LAYER_ZSTD,
  OCI_MANIFEST,
} from "../src/media-types.ts";
import { verifyStore } from "../src/verify.ts";
import type { VerifyOptions } from "../src/verify.ts";
import { PROBLEMS } from "../src/verify-problem.ts";
import type { Problem, ProblemCode } from "../src/verify-problem.ts";
import { blobNames, fixture, fixtureCopy } from "./helpers/temp.ts";

const UNCOMPRESSED = "containerd.io/uncompressed";

async function verify(layout: string, options: Partial<VerifyOptions> = {}) {
  const store = await LayoutDirectory.open(layout);
  return verifyStore(store, undefined, {
    limits: DEFAULT_LIMITS,
    folder: layout,
    ...options,
  });
}

const blobFile = (layout: string, digest: string): string =>
  join(layout, "blobs", digest.replace(":", "/"));

const readJson = (path: string): any => JSON.parse(readFileSync(path, "utf8"));

/** Writes a blob and gives its descriptor. */
function put(layout: string, content: object | string | Buffer, mediaType = "") {
  const bytes = Buffer.from(
    typeof content === "string" || Buffer.isBuffer(content) ? content : JSON.stringify(content),
  );
  const digest = digestOf(bytes);
  writeFileSync(blobFile(layout, digest), bytes);
  return { mediaType, digest, size: bytes.length };
}

/** Changes index.json. */
function editIndex(layout: string, change: (index: any) => void): void {
  const path = join(layout, "index.json");
  const index = readJson(path);
  change(index);
  writeFileSync(path, JSON.stringify(index));
}

/** Changes the document of the first entry and names the result in its place. */
function editManifest(layout: string, change: (manifest: any) => void): Digest {
  const [entry] = readJson(join(layout, "index.json")).manifests;
  const manifest = readJson(blobFile(layout, entry.digest));
  change(manifest);
  const { digest, size } = put(layout, manifest);
  editIndex(layout, (index) => Object.assign(index.manifests[0], { digest, size }));
  return digest;
}

/** Changes the cache config of the first entry. */
function editConfig(layout: string, change: (config: any) => void): Digest {
  let digest = "" as Digest;
  editManifest(layout, (manifest) => {
    const old =
      manifest.config ?? manifest.manifests.find((child: any) => child.mediaType === CACHE_CONFIG);
    const config = readJson(blobFile(layout, old.digest));
    change(config);
    const written = put(layout, config);
    digest = written.digest;
    Object.assign(old, { digest, size: written.size });
  });
  return digest;
}

/** The first descriptor that is a layer. */
function someLayer(layout: string): { digest: Digest; size: number } {
  const [entry] = readJson(join(layout, "index.json")).manifests;
  const { layers, manifests } = readJson(blobFile(layout, entry.digest));
  return (layers ?? manifests)[1];
}

function damage(layout: string, digest: Digest, change: (bytes: Buffer) => void) {
  const path = blobFile(layout, digest);
  chmodSync(path, 0o644);
  const bytes = readFileSync(path);
  change(bytes);
  writeFileSync(path, bytes);
}

/** A zip of something that is no layer of any fixture. */
const OTHER_LAYER = gzipSync("other");

interface Fault {
  title: string;
  code: ProblemCode;
  base?: string;
  deep?: boolean;
  /** Plants the fault; gives the digest that must be named, null for a file. */
  plant(layout: string): string | null;
}

const FAULTS: Fault[] = [
  {
    title: "a flipped bit in a layer",
    code: "DIGEST_MISMATCH",
    plant(layout) {
      const { digest } = someLayer(layout);
      damage(layout, digest, (bytes) => (bytes[bytes.length >> 1]! ^= 1));
      return digest;
    },
  },
  {
    title: "a layer that is cut short",
    code: "SIZE_MISMATCH",
    plant(layout) {
      const { digest, size } = someLayer(layout);
      chmodSync(blobFile(layout, digest), 0o644);
      truncateSync(blobFile(layout, digest), size - 1);
      return digest;
    },
  },
  {
    title: "a layer that is not there",
    code: "BLOB_MISSING",
    base: "app-oci-index",
    plant(layout) {
      const { digest } = someLayer(layout);
      unlinkSync(blobFile(layout, digest));
      return digest;
    },
  },
  {
    title: "a flipped bit in the cache config",
    code: "DIGEST_MISMATCH",
    plant(layout) {
      const [entry] = readJson(join(layout, "index.json")).manifests;
      const { config } = readJson(blobFile(layout, entry.digest));
      damage(layout, config.digest, (bytes) => (bytes[40]! ^= 1));
      return config.digest;
    },
  },
  {
    title: "an index.json that names an absent manifest",
    code: "MANIFEST_MISSING",
    plant(layout) {
      const [entry] = readJson(join(layout, "index.json")).manifests;
      unlinkSync(blobFile(layout, entry.digest));
      return entry.digest;
    },
  },
  {
    title: "a manifest that is not JSON",
    code: "DOCUMENT_INVALID",
    plant(layout) {
      const bad = put(layout, "{not json", OCI_MANIFEST);
      editIndex(layout, (index) => index.manifests.push(bad));
      return bad.digest;
    },
  },
  {
    title: "a manifest that is an index as well",
    code: "DOCUMENT_INVALID",
    plant: (layout) => editManifest(layout, (manifest) => (manifest.manifests = [])),
  },
  {
    title: "a manifest over the limit for documents",
    code: "DOCUMENT_TOO_LARGE",
    plant: (layout) =>
      editManifest(layout, (manifest) => (manifest.annotations = { a: "x".repeat(4 << 20) })),
  },
  {
    title: "indexes nested too deeply",
    code: "INDEX_TOO_DEEP",
    plant(layout) {
      let top = put(layout, { manifests: [] }, OCI_INDEX);
      for (let depth = 0; depth < 12; depth++)
        top = put(layout, { mediaType: OCI_INDEX, manifests: [top] }, OCI_INDEX);
      editIndex(layout, (index) => index.manifests.push(top));
      return top.digest;
    },
  },
  {
    title: "one blob with two sizes",
    code: "DUPLICATE_SIZE",
    base: "app-docker-list",
    plant(layout) {
      const { digest } = someLayer(layout);
      editManifest(layout, (list) => list.manifests.unshift({ ...list.manifests[1], size: 1 }));
      return digest;
    },
  },
  {
    title: "embedded data that is other data",
    code: "DATA_MISMATCH",
    plant(layout) {
      editManifest(layout, (manifest) => (manifest.config.data = "e30="));
      const [entry] = readJson(join(layout, "index.json")).manifests;
      return readJson(blobFile(layout, entry.digest)).config.digest;
    },
  },
  {
    title: "a record that links to no record",
    code: "RECORD_INDEX",
    plant: (layout) =>
      editConfig(layout, (config) => {
        config.records.at(-1).inputs = [[{ link: 9999 }]];
      }),
  },
  {
    title: "records in a loop",
    code: "RECORD_LOOP",
    base: "app-docker-list",
    plant: (layout) =>
      editConfig(layout, (config) => {
        config.records[0].inputs = [[{ link: 1 }]];
        config.records[1].inputs = [[{ link: 0 }]];
      }),
  },
  {
    title: "an input without alternatives",
    code: "INPUT_EMPTY",
    plant: (layout) => editConfig(layout, (config) => (config.records[0].inputs = [[]])),
  },
  {
    title: "an input that is session-unique",
    code: "INPUT_RANDOM",
    plant: (layout) =>
      editConfig(layout, (config) => {
        config.records[0] = { digest: "random:abc" };
        config.records[1].inputs = [[{ link: 0 }]];
      }),
  },
  {
    title: "a result in a layer that is not in the table",
    code: "LAYER_INDEX",
    plant: (layout) =>
      editConfig(layout, (config) => {
        const record = config.records.find((item: any) => item.layers);
        record.layers[0].layer = 77;
      }),
  },
  {
    title: "a layer on top of itself",
    code: "LAYER_LOOP",
    plant: (layout) => editConfig(layout, (config) => (config.layers[1].parent = 1)),
  },
  {
    title: "a layer of the config that the manifest lacks",
    code: "LAYER_NOT_LISTED",
    plant(layout) {
      const { digest } = someLayer(layout);
      editManifest(layout, (manifest) => {
        manifest.layers = manifest.layers.filter((layer: any) => layer.digest !== digest);
      });
      return digest;
    },
  },
  {
    title: "a record whose result is gone",
    code: "RESULT_LOST",
    plant(layout) {
      editManifest(layout, (manifest) => (manifest.layers.length = 1));
      const [entry] = readJson(join(layout, "index.json")).manifests;
      return readJson(blobFile(layout, entry.digest)).config.digest;
    },
  },
  {
    title: "a cache config over BuildKit's limit",
    code: "OVER_IMPORT_LIMIT",
    plant: (layout) => editConfig(layout, (config) => (config.padding = "x".repeat(1 << 20))),
  },
  {
    title: "a manifest over BuildKit's limit",
    code: "OVER_IMPORT_LIMIT",
    plant: (layout) =>
      editManifest(layout, (manifest) => (manifest.annotations = { a: "x".repeat(1 << 20) })),
  },
  {
    title: "a layer without containerd.io/uncompressed",
    code: "DIFF_ID_MISSING",
    plant(layout) {
      const { digest } = someLayer(layout);
      editManifest(layout, ({ layers }) => delete layers[1].annotations);
      return digest;
    },
  },
  {
    title: "a diffID that is no digest",
    code: "DIFF_ID_INVALID",
    plant(layout) {
      const { digest } = someLayer(layout);
      editManifest(layout, ({ layers }) => (layers[1].annotations[UNCOMPRESSED] = "sha256:00"));
      return digest;
    },
  },
  {
    title: "a diffID that is another's",
    code: "DIFF_ID_MISMATCH",
    deep: true,
    plant(layout) {
      const { digest } = someLayer(layout);
      editManifest(layout, ({ layers }) => {
        layers[1].annotations[UNCOMPRESSED] = digestOf("other");
      });
      return digest;
    },
  },
  {
    title: "an uncompressed layer with another diffID",
    code: "DIFF_ID_MISMATCH",
    base: "app-uncompressed",
    plant(layout) {
      const { digest } = someLayer(layout);
      editManifest(layout, ({ layers }) => {
        layers[1].annotations[UNCOMPRESSED] = digestOf("other");
      });
      return digest;
    },
  },
  ...["app-image-manifest", "app-zstd-oci-index"].map((base): Fault => ({
    title: `a layer that cannot be decompressed in ${base}`,
    code: "COMPRESSION_INVALID",
    base,
    deep: true,
    plant(layout) {
      let cut = "" as Digest;
      editManifest(layout, ({ layers, manifests }) => {
        const layer = (layers ?? manifests)[1];
        const bytes = readFileSync(blobFile(layout, layer.digest));
        const { digest, size } = put(layout, bytes.subarray(0, -9));
        Object.assign(layer, { digest, size });
        cut = digest;
      });
      return cut;
    },
  })),
  {
    title: "a gzip layer that is announced as zstd",
    code: "LAYER_TYPE_WRONG",
    plant(layout) {
      const { digest } = someLayer(layout);
      editManifest(layout, ({ layers }) => (layers[1].mediaType = OCI_LAYER_ZSTD));
      return digest;
    },
  },
  {
    title: "a Docker layer in an OCI cache",
    code: "MIXED_LAYER_TYPES",
    plant(layout) {
      const { digest } = someLayer(layout);
      editManifest(layout, ({ layers }) => (layers[1].mediaType = DOCKER_LAYER_GZIP));
      return digest;
    },
  },
  {
    title: "an OCI layer in a Docker list",
    code: "MIXED_LAYER_TYPES",
    base: "app-docker-list",
    plant(layout) {
      const { digest } = someLayer(layout);
      editManifest(layout, ({ manifests }) => (manifests[1].mediaType = OCI_LAYER_GZIP));
      return digest;
    },
  },
  {
    title: "a layer of no layer type",
    code: "LAYER_TYPE_UNKNOWN",
    plant(layout) {
      const { digest } = someLayer(layout);
      editManifest(layout, ({ layers }) => (layers[1].mediaType = "text/plain"));
      return digest;
    },
  },
  {
    title: "two descriptions of one blob in one document",
    code: "DUPLICATE_DIFFERS",
    base: "dup-oci-index",
    plant(layout) {
      let repeated = "" as Digest;
      editManifest(layout, ({ manifests }) => {
        const digests = manifests.map((child: any) => child.digest);
        const twin = manifests.find(
          (child: any, at: number) => digests.indexOf(child.digest) !== at,
        );
        twin.annotations[UNCOMPRESSED] = digestOf("other");
        repeated = twin.digest;
      });
      return repeated;
    },
  },
  {
    title: "two cache configs in one list",
    code: "SEVERAL_CONFIGS",
    base: "app-oci-index",
    plant: (layout) =>
      editManifest(layout, ({ manifests }) => manifests.unshift(put(layout, "{}", CACHE_CONFIG))),
  },
  {
    title: "a cache config among the layers of a manifest",
    code: "CONFIG_IN_LAYERS",
    plant: (layout) =>
      editManifest(layout, (manifest) => {
        manifest.layers.push(manifest.config);
        manifest.config = put(layout, "{}", OCI_CONFIG);
      }),
  },
  {
    title: "an entry of index.json with another media type",
    code: "MEDIA_TYPE_MISMATCH",
    base: "app-oci-index",
    plant(layout) {
      editIndex(layout, ({ manifests }) => (manifests[0].mediaType = OCI_MANIFEST));
      return readJson(join(layout, "index.json")).manifests[0].digest;
    },
  },
  {
    title: "an entry of index.json without a media type",
    code: "MEDIA_TYPE_MISMATCH",
    plant(layout) {
      editIndex(layout, ({ manifests }) => delete manifests[0].mediaType);
      return readJson(join(layout, "index.json")).manifests[0].digest;
    },
  },
  {
    title: "a name that two entries have",
    code: "NAME_TWICE",
    base: "grown",
    plant(layout) {
      editIndex(layout, ({ manifests }) => {
        manifests[1].annotations = manifests[0].annotations;
      });
      return readJson(join(layout, "index.json")).manifests[1].digest;
    },
  },
  {
    title: "an image with a diffID too few",
    code: "DIFF_IDS_COUNT",
    base: "image-dir",
    plant(layout) {
      let digest = "" as Digest;
      editManifest(layout, (manifest) => {
        const config = readJson(blobFile(layout, manifest.config.digest));
        config.rootfs.diff_ids.pop();
        const written = put(layout, config);
        digest = written.digest;
        Object.assign(manifest.config, { digest, size: written.size });
      });
      return digest;
    },
  },
  {
    title: "an image's layer that unpacks to something else",
    code: "DIFF_ID_MISMATCH",
    base: "image-dir",
    deep: true,
    plant(layout) {
      const other = put(layout, OTHER_LAYER, OCI_LAYER_GZIP);
      editManifest(layout, (manifest) => (manifest.layers[0] = other));
      return other.digest;
    },
  },
  {
    title: "an inline cache that BuildKit refuses",
    code: "RECORD_INDEX",
    base: "image-inline",
    plant(layout) {
      let digest = "" as Digest;
      editManifest(layout, (manifest) => {
        const config = readJson(blobFile(layout, manifest.config.digest));
        const records = [{ digest: digestOf("a"), inputs: [[{ link: 5 }]] }];
        config["moby.buildkit.cache.v0"] = btoa(JSON.stringify(records));
        const written = put(layout, config);
        digest = written.digest;
        Object.assign(manifest.config, { digest, size: written.size });
      });
      return digest;
    },
  },
  {
    title: "an inline cache that is not base64",
    code: "CACHE_INVALID",
    base: "image-inline",
    plant(layout) {
      let digest = "" as Digest;
      editManifest(layout, (manifest) => {
        const config = readJson(blobFile(layout, manifest.config.digest));
        config["moby.buildkit.cache.v0"] = "no base64!";
        const written = put(layout, config);
        digest = written.digest;
        Object.assign(manifest.config, { digest, size: written.size });
      });
      return digest;
    },
  },
  {
    title: "a cache without layers",
    code: "EMPTY_CACHE",
    plant(layout) {
      editConfig(layout, (config) => delete config.layers);
      return editManifest(layout, (manifest) => (manifest.layers = []));
    },
  },
  {
    title: "a layer that the config does not use",
    code: "LAYER_UNUSED",
    plant(layout) {
      const layer = put(layout, OTHER_LAYER, OCI_LAYER_GZIP);
      const annotations = { [UNCOMPRESSED]: digestOf("other") };
      editManifest(layout, ({ layers }) => layers.push({ ...layer, annotations }));
      return layer.digest;
    },
  },
  {
    title: "a blob that no name reaches",
    code: "UNREFERENCED_BLOB",
    plant: (layout) => put(layout, "nobody's").digest,
  },
  ...["ingest/0a", ".umoci-1", "oci-put-blob1", "blobs/sha256/a.tmp"].map((path): Fault => ({
    title: `a left-over ${path}`,
    code: "LEFTOVER_FILE",
    plant(layout) {
      mkdirSync(join(layout, path, ".."), { recursive: true });
      writeFileSync(join(layout, path), "left over");
      return null;
    },
  })),
  {
    title: "a file under blobs that is no blob",
    code: "STRAY_FILE",
    plant(layout) {
      writeFileSync(join(layout, "blobs", "sha256", "README"), "mine");
      return null;
    },
  },
  {
    title: "a symbolic link under blobs",
    code: "STRAY_FILE",
    plant(layout) {
      symlinkSync("/etc/hostname", blobFile(layout, digestOf("link")));
      return null;
    },
  },
  {
    title: "no oci-layout",
    code: "LAYOUT_MARKER_MISSING",
    plant(layout) {
      unlinkSync(join(layout, "oci-layout"));
      return null;
    },
  },
];

describe("verify finds", () => {
  test.each(FAULTS.map((fault) => [fault.title, fault] as const))(
    "%s",
    async (_title, { code, base = "app-image-manifest", deep, plant }) => {
      const layout = fixtureCopy(base);
      const digest = plant(layout) as Digest | null;
      const { ok, problems } = await verify(layout, { deep });
      const [severity] = PROBLEMS[code];
      const found = problems.find((problem) => problem.code === code && problem.digest === digest);
      expect(problems.map((problem) => `${problem.code} ${problem.digest}`)).toContain(
        `${code} ${digest}`,
      );
      expect(found?.severity).toBe(severity);
      if (digest) expect(found?.message).toMatch(/sha256:[0-9a-f]{64}/);
      if (severity === "error") expect(ok).toBe(false);
    },
  );

  test("every fault of one layout, each in its place", async () => {
    const layout = fixtureCopy("grown");
    const { digest } = someLayer(layout);
    damage(layout, digest, (bytes) => (bytes[30]! ^= 1));
    const bad = put(layout, "{not json", OCI_MANIFEST);
    const gone = { mediaType: OCI_MANIFEST, digest: digestOf("gone"), size: 4 };
    editIndex(layout, ({ manifests }) => manifests.unshift(bad, gone));
    const { ok, problems } = await verify(layout);
    const errors = problems.filter(({ severity }) => severity === "error");
    expect(ok).toBe(false);
    expect(errors.map((problem) => [problem.code, problem.digest])).toEqual([
      ["DIGEST_MISMATCH", digest],
      ["DOCUMENT_INVALID", bad.digest],
      ["MANIFEST_MISSING", gone.digest],
    ]);
  });

  test("an archive's or a registry's faults too, where no file can be located", async () => {
    const layout = fixtureCopy("app-oci-index");
    const { digest } = someLayer(layout);
    damage(layout, digest, (bytes) => (bytes[30]! ^= 1));
    const found = await verifyStreamed(layout, true);
    expect(found.problems.map((problem) => problem.digest)).toEqual([digest]);
    expect(found.ok).toBe(false);
  });
});

/** Verifies a layout through streams alone, as a registry would give them. */
async function verifyStreamed(layout: string, deep: boolean) {
  const store = await LayoutDirectory.open(layout);
  store.locate = async () => undefined;
  return verifyStore(store, undefined, { limits: DEFAULT_LIMITS, deep });
}

const FIXTURES = [
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
  "grown",
  "image-attested",
  "image-dir",
  "image-inline",
  "multi-cache",
  "multi-cache-amd64",
  "multi-cache-arm64",
  "multi-image",
];

describe("verify finds nothing wrong in", () => {
  test.each(FIXTURES)("%s", async (name) => {
    const layout = fixture(name);
    const result = await verify(layout, { deep: true });
    const serious = ({ severity }: Problem): boolean => severity !== "note";
    expect(result.problems.filter(serious)).toEqual([]);
    expect(result.ok).toBe(true);
    const notes = result.problems.filter(({ code }) => code === "UNREFERENCED_BLOB");
    expect(notes).toHaveLength(result.problems.length);
    expect(result.blobs + notes.length).toBe(blobNames(layout).length);
    const sizes = blobNames(layout).reduce(
      (sum, hex) => sum + Bun.file(join(layout, "blobs", "sha256", hex)).size,
      0,
    );
    if (notes.length === 0) expect(result.bytes).toBe(sizes);
    expect(notes.length > 0).toBe(name === "grown");

    const { blobs, bytes, problems } = await verifyStreamed(layout, true);
    expect({ blobs, bytes }).toEqual({
      blobs: result.blobs,
      bytes: result.bytes,
    });
    expect(problems).toEqual([]);
  });
});

test("only the entries that are asked for are looked at", async () => {
  const layout = fixtureCopy("grown");
  const store = await LayoutDirectory.open(layout);
  const [main, feature] = await store.list();
  editIndex(layout, ({ manifests }) => manifests.reverse());
  unlinkSync(blobFile(layout, feature!.descriptor.digest));
  const options = { limits: DEFAULT_LIMITS, folder: layout };
  const good = await verifyStore(store, [main!], options);
  expect(good).toMatchObject({ ok: true, problems: [] });
  const bad = await verifyStore(store, [feature!], options);
  expect(bad.problems.map(({ code }) => code)).toEqual(["MANIFEST_MISSING"]);
});

test("an interrupt ends it", async () => {
  const controller = new AbortController();
  controller.abort();
  const running = verify(fixture("grown"), { signal: controller.signal });
  await expect(running).rejects.toThrow();
});
