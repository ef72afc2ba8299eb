import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { digestOf } from "../src/digest.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { LayoutDirectory, LayoutDirectoryWriter } from "../src/layout-directory.ts";
import { OCI_CONFIG, OCI_INDEX, OCI_MANIFEST } from "../src/media-types.ts";
import type { Compression } from "../src/media-types.ts";
import { noProgress } from "../src/progress.ts";
import { recompressImage } from "../src/recompress-image.ts";
import type { RecompressedImage } from "../src/recompress-image.ts";
import { failure } from "./helpers/errors.ts";
import {
  addBlob,
  blobFile,
  layoutFaults,
  readDocument,
  readIndex,
  writeLayout,
} from "./helpers/layout.ts";
import { blobNames, fixture, tempFolder } from "./helpers/temp.ts";

const TAR = "application/vnd.oci.image.layer.v1.tar";

/** Recompresses the first entry of a layout into another and names it there. */
async function recompress(
  from: string,
  to: string,
  compression: Compression,
  force = false,
): Promise<RecompressedImage> {
  const store = await LayoutDirectory.open(from);
  const [entry] = await store.list();
  const writer = await LayoutDirectoryWriter.open(to, { create: true });
  try {
    const image = await recompressImage(
      store,
      entry?.descriptor as never,
      { compression, force },
      writer,
      {
        limits: DEFAULT_LIMITS,
        jobs: 2,
        progress: noProgress,
        tempFolder: tempFolder(),
      },
    );
    const { bytes, descriptor } = image;
    const names = [{ kind: "set", name: { refName: "new" } }] as const;
    await writer.publish([{ bytes, descriptor, names }]);
    return image;
  } finally {
    await writer.close();
  }
}

/** Every image manifest below a descriptor, attestations left out. */
function manifestsOf(layout: string, digest: string): any[] {
  const document = readDocument(layout, digest);
  if (!document.manifests) return [document];
  return document.manifests
    .filter((entry: any) => entry.platform?.os !== "unknown")
    .flatMap((entry: any) => manifestsOf(layout, entry.digest));
}

/** A layout with one manifest made by hand. */
function handMade(manifest: (layout: string) => object): string {
  const layout = join(tempFolder(), "layout");
  writeLayout(layout, []);
  writeLayout(layout, [addBlob(layout, manifest(layout), OCI_MANIFEST)]);
  return layout;
}

const imageConfig = (...diffIds: string[]): object => ({
  architecture: "amd64",
  os: "linux",
  rootfs: { type: "layers", diff_ids: diffIds },
});

describe("recompressImage on BuildKit's images", () => {
  test.each(["image-dir", "image-inline", "image-attested", "multi-image"])(
    "%s keeps its configs and unpacks to the same layers",
    async (name) => {
      const from = fixture(name);
      const to = join(tempFolder(), "target");
      const { descriptor, changed, counts } = await recompress(from, to, "zstd");
      expect(layoutFaults(to)).toEqual([]);
      expect(changed).toBeGreaterThan(0);
      expect(counts.skipped).toBe(0);
      // All but the top document.
      expect(counts.copied).toBe(blobNames(to).length - 1);
      const before = manifestsOf(from, readIndex(from).manifests[0].digest);
      const after = manifestsOf(to, descriptor.digest);
      expect(after.map(({ config }) => config)).toEqual(before.map(({ config }) => config));
      for (const { config, layers } of after) {
        const { rootfs } = readDocument(to, config.digest);
        const unpacked = layers.map(({ digest, mediaType }: any) => {
          expect(mediaType).toBe(`${TAR}+zstd`);
          return digestOf(Bun.zstdDecompressSync(readFileSync(blobFile(to, digest))));
        });
        expect(unpacked).toEqual(rootfs.diff_ids);
      }
    },
  );

  test("an attestation follows its image", async () => {
    const from = fixture("image-attested");
    const to = join(tempFolder(), "target");
    const { descriptor } = await recompress(from, to, "zstd");
    const old = readDocument(from, readIndex(from).manifests[0].digest);
    const [image, attestation] = readDocument(to, descriptor.digest).manifests;
    expect(attestation.annotations).toEqual({
      "vnd.docker.reference.digest": image.digest,
      "vnd.docker.reference.type": "attestation-manifest",
    });
    expect(image.digest).not.toBe(old.manifests[0].digest);
    expect(image.platform).toEqual(old.manifests[0].platform);
    // The attestation itself keeps its bytes.
    expect(attestation.digest).toBe(old.manifests[1].digest);
  });

  test("the top descriptor keeps what it said beside digest and size", async () => {
    const from = fixture("image-dir");
    const { descriptor } = await recompress(from, join(tempFolder(), "t"), "zstd");
    const [old] = readIndex(from).manifests;
    expect(descriptor.annotations).toEqual(old.annotations);
    expect(descriptor.platform).toEqual(old.platform);
  });

  test("an image in the wanted compression keeps its bytes", async () => {
    const from = fixture("image-attested");
    const to = join(tempFolder(), "target");
    const { bytes, changed, descriptor } = await recompress(from, to, "gzip");
    expect(changed).toBe(0);
    expect(descriptor.digest).toBe(readIndex(from).manifests[0].digest);
    expect(digestOf(bytes)).toBe(descriptor.digest);
    expect(blobNames(to)).toEqual(blobNames(from));
  });

  test("the same result in every run, and back to the same digest", async () => {
    const [one, two, back, forced] = ["1", "2", "3", "4"].map((name) =>
      join(tempFolder(), name),
    ) as [string, string, string, string];
    const first = await recompress(fixture("multi-image"), one, "zstd");
    const second = await recompress(fixture("multi-image"), two, "zstd");
    expect(second.descriptor.digest).toBe(first.descriptor.digest);
    const gzip = await recompress(one, back, "gzip");
    const again = await recompress(fixture("multi-image"), forced, "gzip", true);
    expect(again.descriptor.digest).toBe(gzip.descriptor.digest);
    expect(again.changed).toBeGreaterThan(0);
  });
});

describe("recompressImage", () => {
  const content = Buffer.from("content".repeat(100));

  test("a manifest that refers to another of the same index as its subject follows it", async () => {
    const layout = join(tempFolder(), "layout");
    writeLayout(layout, []);
    const image = addBlob(
      layout,
      {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: addBlob(layout, imageConfig(digestOf(content)), OCI_CONFIG),
        layers: [addBlob(layout, gzipSync(content), `${TAR}+gzip`)],
      },
      OCI_MANIFEST,
    );
    const referrer = addBlob(
      layout,
      {
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        artifactType: "application/x.signature",
        config: addBlob(layout, "{}", "application/vnd.oci.empty.v1+json"),
        // The same bytes as a layer of the image, but of an artifact.
        layers: [addBlob(layout, gzipSync(content), `${TAR}+gzip`)],
        subject: image,
      },
      OCI_MANIFEST,
    );
    // The referrer stands before what it refers to.
    const index = {
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [referrer, image],
    };
    writeLayout(layout, [addBlob(layout, index, OCI_INDEX)]);

    const to = join(tempFolder(), "target");
    const { descriptor } = await recompress(layout, to, "uncompressed");
    expect(layoutFaults(to)).toEqual([]);
    const [newReferrer, newImage] = readDocument(to, descriptor.digest).manifests;
    const signature = readDocument(to, newReferrer.digest);
    expect(signature.subject.digest).toBe(newImage.digest);
    expect(signature.subject.size).toBe(newImage.size);
    expect(signature.layers[0].digest).toBe(digestOf(gzipSync(content)));
    expect(readDocument(to, newImage.digest).layers).toEqual([
      { mediaType: TAR, digest: digestOf(content), size: content.length },
    ]);
  });

  test("takes zero bytes behind a gzip layer for padding, and nothing else", async () => {
    const content = Buffer.from("a layer, or not ".repeat(500));
    for (const [tail, code] of [
      [Buffer.alloc(700), undefined],
      [Buffer.concat([Buffer.alloc(700), Buffer.from("x")]), "COMPRESSION_INVALID"],
      [Buffer.from("x"), "COMPRESSION_INVALID"],
    ] as const) {
      const layout = handMade((folder) => ({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: addBlob(folder, imageConfig(digestOf(content)), OCI_CONFIG),
        layers: [addBlob(folder, Buffer.concat([gzipSync(content), tail]), `${TAR}+gzip`)],
      }));
      const to = join(tempFolder(), "to");
      const done = recompress(layout, to, "zstd");
      if (code) expect((await failure(() => done)).code).toBe(code);
      else expect((await done).changed).toBe(1);
    }
  });

  test("refuses a cache and says what to do", async () => {
    for (const name of ["app-image-manifest", "app-oci-index", "multi-cache"]) {
      const error = await failure(() => recompress(fixture(name), join(tempFolder(), "t"), "zstd"));
      expect(error.code).toBe("NOT_SUPPORTED");
      expect(error.remedy).toEqual({ do: "convert-layers" });
    }
  });

  test("refuses a diffID that the layer does not unpack to", async () => {
    const layout = handMade((folder) => ({
      schemaVersion: 2,
      config: addBlob(folder, imageConfig(digestOf("other")), OCI_CONFIG),
      layers: [addBlob(folder, gzipSync(content), `${TAR}+gzip`)],
    }));
    const error = await failure(() => recompress(layout, join(tempFolder(), "t"), "zstd"));
    expect(error.code).toBe("DIGEST_MISMATCH");
  });

  test("refuses an image with another number of diffIDs than layers", async () => {
    const layout = handMade((folder) => ({
      schemaVersion: 2,
      config: addBlob(folder, imageConfig(), OCI_CONFIG),
      layers: [addBlob(folder, gzipSync(content), `${TAR}+gzip`)],
    }));
    const error = await failure(() => recompress(layout, join(tempFolder(), "t"), "zstd"));
    expect(error.code).toBe("DOCUMENT_INVALID");
  });

  test("copies an artifact as it is", async () => {
    const layout = handMade((folder) => ({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: addBlob(folder, "{}", "application/vnd.cncf.helm.config.v1+json"),
      layers: [addBlob(folder, gzipSync(content), `${TAR}+gzip`)],
    }));
    const to = join(tempFolder(), "target");
    const { changed } = await recompress(layout, to, "zstd");
    expect(changed).toBe(0);
    expect(blobNames(to)).toEqual(blobNames(layout));
  });

  test("refuses a blob", async () => {
    const layout = join(tempFolder(), "layout");
    writeLayout(layout, []);
    writeLayout(layout, [addBlob(layout, "text", "text/plain")]);
    const error = await failure(() => recompress(layout, join(tempFolder(), "t"), "zstd"));
    expect(error.code).toBe("NOT_SUPPORTED");
  });
});
