import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CACHE_SHAPES, encodeCacheManifest } from "../src/cache-manifest.ts";
import { parseCacheManifest } from "../src/document.ts";
import type { CacheManifest, CacheShape } from "../src/cache-manifest.ts";
import { digestOf } from "../src/digest.ts";
import { CACHE_CONFIG, OCI_INDEX, OCI_MANIFEST } from "../src/media-types.ts";
import { failure } from "./helpers/errors.ts";
import { fixture } from "./helpers/temp.ts";

/** The top document of a fixture, and its digest as BuildKit's index.json gives it. */
function topDocument(name: string): { bytes: Uint8Array; digest: string } {
  const folder = fixture(name);
  const index = JSON.parse(readFileSync(join(folder, "index.json"), "utf8"));
  const { digest } = index.manifests[0];
  return {
    bytes: readFileSync(join(folder, "blobs", digest.replace(":", "/"))),
    digest,
  };
}

const FAMILIES: [string, CacheShape[]][] = [
  ["app", [...CACHE_SHAPES]],
  ["app-zstd", [...CACHE_SHAPES]],
  ["dup", ["oci-index", "docker-list"]],
];

for (const [family, shapes] of FAMILIES) {
  describe(`encodeCacheManifest gives BuildKit's own digest for ${family}`, () => {
    const pairs = shapes.flatMap((from) => shapes.map((to) => [from, to] as const));
    test.each(pairs)("%s -> %s", (from, to) => {
      const source = topDocument(`${family}-${from}`);
      const target = topDocument(`${family}-${to}`);
      const cache = parseCacheManifest(source.bytes, "manifest") as CacheManifest;
      expect(cache.shape).toBe(from);
      const { bytes, descriptor } = encodeCacheManifest(cache, to);
      expect(descriptor.digest).toBe(target.digest as never);
      expect(Buffer.compare(bytes, target.bytes)).toBe(0);
      expect(descriptor.size).toBe(target.bytes.length);
    });
  });
}

const layer = {
  mediaType: "application/vnd.oci.image.layer.v1.tar",
  digest: digestOf("a"),
  size: 1,
};
const config = { mediaType: CACHE_CONFIG, digest: digestOf("c"), size: 1 };
const other = { ...config, digest: digestOf("d") };
const parse = (value: object) =>
  parseCacheManifest(new TextEncoder().encode(JSON.stringify(value)), "manifest");

describe("parseCacheManifest", () => {
  test("takes the last config of a list, wherever it stands", () => {
    const cache = parse({
      mediaType: OCI_INDEX,
      manifests: [config, layer, other, layer],
    });
    expect(cache?.config.digest).toBe(other.digest);
    expect(cache?.layers.map(({ digest }) => digest)).toEqual([layer.digest, layer.digest]);
  });

  test("a cache config among the layers of a manifest is no cache", () => {
    expect(parse({ mediaType: OCI_MANIFEST, config: layer, layers: [config] })).toBeUndefined();
    expect(parse({ mediaType: OCI_MANIFEST, layers: [config] })).toBeUndefined();
  });

  test("a Docker schema 2 manifest with a cache config is read", () => {
    expect(parse({ config, layers: null })?.shape).toBe("docker-manifest");
  });

  test.each([
    ["an image", { config: layer, layers: [layer] }],
    ["an empty index", { manifests: [] }],
    ["an index of images", { manifests: [{ ...layer, mediaType: OCI_MANIFEST }] }],
  ])("%s is no cache", (_what, value) => {
    expect(parse(value)).toBeUndefined();
  });

  test("a descriptor with a wrong digest is refused", async () => {
    const error = await failure(() => parse({ manifests: [{ ...config, digest: "sha256:../x" }] }));
    expect(error.code).toBe("DOCUMENT_INVALID");
    expect(error.message).toContain("manifests.0.digest");
  });
});

test("a cache without layers is not written", async () => {
  const error = await failure(() => encodeCacheManifest({ config, layers: [] }, "oci-index"));
  expect(error.code).toBe("CACHE_INVALID");
});

test("a non-distributable zstd layer has no Docker type and keeps its own", () => {
  const foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
  const cache = { config, layers: [{ ...layer, mediaType: foreign }] };
  const { bytes } = encodeCacheManifest(cache, "docker-list");
  expect(JSON.parse(new TextDecoder().decode(bytes)).manifests[0].mediaType).toBe(foreign);
});

test("annotations with any key are kept, in the order of their bytes", () => {
  const keys = ["9", "10", "__proto__", "constructor", "prototype", "toString", "a", "1.5", "-1"];
  const annotations = `{${keys.map((key) => `"${key}":"v${key}"`).join(",")}}`;
  const layers = `[{"mediaType":"${layer.mediaType}","digest":"${layer.digest}","size":1,"annotations":${annotations}}]`;
  const json = `{"mediaType":"${OCI_MANIFEST}","config":${JSON.stringify(config)},"layers":${layers}}`;
  const cache = parseCacheManifest(new TextEncoder().encode(json), "manifest") as CacheManifest;
  const text = new TextDecoder().decode(encodeCacheManifest(cache, "oci-index").bytes);
  // Go sorts the keys of a map by their bytes.
  const sorted = keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  expect(text).toContain(`"annotations":{${sorted.map((key) => `"${key}":"v${key}"`).join(",")}}`);
});

test("annotations are sorted and escaped as Go does, urls and platform keep Go's order", () => {
  const annotations = { b: "<&>", a: "1" };
  const platform = { os: "linux", architecture: "arm64", variant: "v8" };
  const cache = {
    config,
    layers: [{ platform, annotations, urls: ["u"], ...layer }],
  };
  const text = new TextDecoder().decode(encodeCacheManifest(cache, "image-manifest").bytes);
  expect(text).toContain(
    String.raw`"size":1,"urls":["u"],"annotations":{"a":"1","b":"\u003c\u0026\u003e"},"platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]}`,
  );
});
