/** The caches among the fixtures, straight from their blobs. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseCacheConfig } from "../../src/cache-config.ts";
import { parseCacheManifest } from "../../src/document.ts";
import type { Cache } from "../../src/cache-layers.ts";
import { blobPath } from "../../src/digest.ts";
import type { Digest } from "../../src/digest.ts";
import { fixture } from "./temp.ts";

/** A cache of a fixture, with the bytes of its config. */
export interface FixtureCache extends Cache {
  /** `folder:tag`, or `folder@digest` for one that no name reaches. */
  name: string;
  configBytes: Uint8Array;
}

/** Every cache manifest in the blobs of a layout, named or not. */
export function fixtureCaches(...folders: string[]): FixtureCache[] {
  return folders.flatMap((folder) => {
    const layout = fixture(folder);
    const index = JSON.parse(readFileSync(join(layout, "index.json"), "utf8")) as {
      manifests: { digest: string; annotations?: Record<string, string> }[];
    };
    const tags = new Map(
      index.manifests.map(({ digest, annotations }) => [
        digest,
        annotations?.["org.opencontainers.image.ref.name"],
      ]),
    );
    return readdirSync(join(layout, "blobs/sha256"))
      .toSorted()
      .flatMap((hex): FixtureCache[] => {
        const bytes = readFileSync(join(layout, "blobs/sha256", hex));
        if (bytes[0] !== 0x7b || !bytes.includes('"schemaVersion":2')) return [];
        const manifest = parseCacheManifest(bytes, hex);
        if (!manifest) return [];
        const configBytes = readFileSync(join(layout, blobPath(manifest.config.digest as Digest)));
        const tag = tags.get(`sha256:${hex}`);
        return [
          {
            name: tag ? `${folder}:${tag}` : `${folder}@${hex.slice(0, 8)}`,
            config: parseCacheConfig(configBytes, hex),
            configBytes,
            layers: manifest.layers,
          },
        ];
      });
  });
}

/** The folders that hold caches. */
export const CACHE_FIXTURES = [
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
  "multi-cache",
  "multi-cache-amd64",
  "multi-cache-arm64",
];
