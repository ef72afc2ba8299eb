/** Caches to measure with: layers of random bytes, in which nothing compresses. */
import { createHash, randomBytes } from "node:crypto";
import { closeSync, mkdirSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

const sha256 = (bytes: string): string => createHash("sha256").update(bytes).digest("hex");

const CONFIG = "application/vnd.buildkit.cacheconfig.v0";
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const LAYER = "application/vnd.oci.image.layer.v1.tar";
const TIME = "2026-01-01T00:00:00Z";

interface Layer {
  mediaType: string;
  digest: string;
  size: number;
  annotations: Record<string, string>;
}

/** Makes a cache of random layers as an image manifest named `latest`, a chain of layers. */
export function makeCache(layout: string, sizes: readonly number[]): void {
  const blobs = blobFolder(layout);
  const layers = sizes.map((size) => {
    const digest = `sha256:${randomFile(blobs, size)}`;
    return layer(LAYER, digest, size, digest);
  });
  name(layout, layers);
}

/** Makes a cache of one layer of as many zero bytes as asked for, which take no room on the disk. */
export function makeSparseCache(layout: string, size: number): void {
  const blobs = blobFolder(layout);
  const path = join(blobs, "new");
  Bun.spawnSync(["truncate", "-s", String(size), path]);
  const hex = hashOf(path);
  renameSync(path, join(blobs, hex));
  name(layout, [layer(LAYER, `sha256:${hex}`, size, `sha256:${hex}`)]);
}

/** Makes a cache of one gzip layer. */
export function makeGzipCache(layout: string, raw: string): void {
  const blobs = blobFolder(layout);
  const hex = hashOf(`${raw}.gz`);
  Bun.spawnSync(["cp", `${raw}.gz`, join(blobs, hex)]);
  const { size } = Bun.file(`${raw}.gz`);
  name(layout, [layer(`${LAYER}+gzip`, `sha256:${hex}`, size, `sha256:${hashOf(raw)}`)]);
}

/**
 * Makes a cache of many records: a chain of steps on each of a few bases, so that the config
 * is large and the layers are not.
 */
export function makeLargeConfig(layout: string, records: number, seed: string): void {
  const blobs = blobFolder(layout);
  const hex = randomFile(blobs, 1000);
  const blob = `sha256:${hex}`;
  const list = Array.from({ length: records }, (_, n) => ({
    layers: [{ layer: 0, createdAt: TIME }],
    digest: `sha256:${sha256(`${n % 2 ? seed : "shared"}-${n}`)}`,
    ...(n > 0 && { inputs: [[{ selector: `sha256:${sha256("/")}`, link: Math.max(0, n - 40) }]] }),
  }));
  const config = put(blobs, { layers: [{ blob, parent: -1 }], records: list }, CONFIG);
  writeIndex(layout, config, [layer(LAYER, blob, 1000, blob)]);
}

function layer(mediaType: string, digest: string, size: number, diffId: string): Layer {
  return { mediaType, digest, size, annotations: { "containerd.io/uncompressed": diffId } };
}

function name(layout: string, layers: readonly Layer[]): void {
  const config = {
    layers: layers.map(({ digest }, n) => ({ blob: digest, parent: n - 1 || undefined })),
    records: layers.map(({ digest }, n) => ({
      layers: [{ layer: n, createdAt: TIME }],
      digest,
    })),
  };
  writeIndex(layout, put(blobFolder(layout), config, CONFIG), layers);
}

function writeIndex(layout: string, config: object, layers: readonly Layer[]): void {
  const document = { schemaVersion: 2, mediaType: MANIFEST, config, layers };
  const manifest = put(blobFolder(layout), document, MANIFEST);
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(
    join(layout, "index.json"),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
}

function put(blobs: string, document: object, mediaType: string) {
  const text = JSON.stringify(document);
  writeFileSync(join(blobs, sha256(text)), text);
  return { mediaType, digest: `sha256:${sha256(text)}`, size: Buffer.byteLength(text) };
}

function blobFolder(layout: string): string {
  const blobs = join(layout, "blobs", "sha256");
  mkdirSync(blobs, { recursive: true });
  return blobs;
}

/** Writes a blob of random bytes. @returns Its hash */
function randomFile(blobs: string, size: number): string {
  const path = join(blobs, "new");
  const hash = createHash("sha256");
  const file = openSync(path, "w");
  for (let left = size; left > 0; left -= 2 ** 20) {
    const piece = randomBytes(Math.min(left, 2 ** 20));
    hash.update(piece);
    writeSync(file, piece);
  }
  closeSync(file);
  const hex = hash.digest("hex");
  renameSync(path, join(blobs, hex));
  return hex;
}

function hashOf(path: string): string {
  const run = Bun.spawnSync(["openssl", "dgst", "-sha256", "-r", path]);
  return run.stdout.toString().split(" ")[0] as string;
}
