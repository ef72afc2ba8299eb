/** Caches of one layer, made by hand: large ones, and ones whose bytes are others than they say. */
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tempFolder } from "./temp.ts";

/**
 * A cache of one layer in a layout.
 *
 * @param claimed The content whose digest and size the layer has; others than its bytes make a damaged one.
 */
export function layoutOf(layer: Uint8Array, claimed = layer): { layout: string; blob: string } {
  const layout = join(tempFolder(), "cache");
  mkdirSync(join(layout, "blobs", "sha256"), { recursive: true });
  const sha256 = (bytes: Uint8Array | string) => createHash("sha256").update(bytes).digest("hex");
  const write = (bytes: Uint8Array | string, hex = sha256(bytes)) => {
    writeFileSync(join(layout, "blobs", "sha256", hex), bytes);
    return { digest: `sha256:${hex}`, size: Buffer.byteLength(bytes as string) };
  };
  const blob = `sha256:${sha256(claimed)}`;
  write(layer, sha256(claimed));
  const at = "2026-01-02T03:04:05Z";
  const config = JSON.stringify({
    layers: [{ blob, parent: -1 }],
    records: [{ layers: [{ layer: 0, createdAt: at }], digest: `sha256:${"1".repeat(64)}` }],
  });
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType,
    config: { mediaType: "application/vnd.buildkit.cacheconfig.v0", ...write(config) },
    layers: [
      {
        mediaType: "application/vnd.oci.image.layer.v1.tar",
        digest: blob,
        size: claimed.length,
        annotations: { "buildkit/createdat": at, "containerd.io/uncompressed": blob },
      },
    ],
  });
  const entry = {
    mediaType,
    ...write(manifest),
    annotations: { "org.opencontainers.image.ref.name": "latest" },
  };
  writeFileSync(
    join(layout, "index.json"),
    JSON.stringify({ schemaVersion: 2, manifests: [entry] }),
  );
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  return { layout, blob };
}
