import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { failure } from "./helpers/errors.ts";
import { blobFile, readIndex } from "./helpers/layout.ts";
import { fixture } from "./helpers/temp.ts";
import { parseCacheConfig } from "../src/cache-config.ts";
import { parseCacheManifest } from "../src/document.ts";
import { deriveCache, encodeObjectDocument } from "../src/object-document.ts";
import type { Descriptor } from "../src/descriptor.ts";
import { parseDigest } from "../src/digest.ts";

/** What BuildKit wrote of one build: its manifest and config, and its object-store document. */
function exported(name: string, file: string) {
  const layout = join(fixture(name), "layout");
  const [entry] = readIndex(layout).manifests;
  const manifest = readFileSync(blobFile(layout, entry.digest));
  const parsed = parseCacheManifest(manifest, "manifest");
  if (!parsed) throw new Error("no cache");
  const config = readFileSync(blobFile(layout, parsed.config.digest));
  const document = readFileSync(join(fixture(name), file));
  return { manifest, config, document, layers: parsed.layers };
}

const FIXTURES = [
  ["object-utc", "gha.json"],
  ["object-kolkata", "gha.json"],
  ["object-s3", "s3.json"],
  ["object-s3", "azblob.json"],
] as const;
const unknown = async (): Promise<undefined> => undefined;
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

describe("BuildKit's own bytes", () => {
  test.each(FIXTURES)(
    "%s: the layout's cache becomes the document that BuildKit stored as %s",
    async (name, file) => {
      const { config, layers, document } = exported(name, file);
      const made = await encodeObjectDocument(parseCacheConfig(config, "config"), layers, unknown);
      expect(text(made.bytes)).toBe(text(document));
      expect(made.dropped).toEqual([]);
    },
  );

  test.each(FIXTURES)("%s: %s becomes BuildKit's config", (name, file) => {
    const { config, document } = exported(name, file);
    expect(text(deriveCache(document, "cache").config.bytes)).toBe(text(config));
  });

  test.each(FIXTURES.filter(([name]) => name !== "object-kolkata"))(
    "%s: %s becomes BuildKit's manifest, of a daemon in UTC",
    (name, file) => {
      const { manifest, document } = exported(name, file);
      expect(text(deriveCache(document, "cache").manifest.bytes)).toBe(text(manifest));
    },
  );

  test("of a daemon in another zone the times are the same moments", () => {
    const { manifest, document } = exported("object-kolkata", "gha.json");
    const moments = (json: Uint8Array): number[] =>
      [...text(json).matchAll(/"buildkit\/createdat":"([^"]+)"/g)].map(([, at = ""]) =>
        Date.parse(at),
      );
    const derived = deriveCache(document, "cache").manifest.bytes;
    expect(moments(derived)).toEqual(moments(manifest));
    expect(moments(derived).length).toBeGreaterThan(3);
    expect(text(derived)).not.toContain("+05:30");
  });
});

const A = parseDigest(`sha256:${"a".repeat(64)}`);
const B = parseDigest(`sha256:${"b".repeat(64)}`);
const DIFF = `sha256:${"d".repeat(64)}`;
const layer = (
  digest: Descriptor["digest"],
  annotations: Record<string, string> = {},
): Descriptor => ({
  mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
  digest,
  size: 10,
  annotations: { "containerd.io/uncompressed": DIFF, ...annotations },
});
const AT = "2026-01-02T03:04:05Z";
const config = () =>
  parseCacheConfig(
    bytes({
      layers: [{ blob: A, parent: -1 }, { blob: B }],
      records: [
        { layers: [{ layer: 0, createdAt: AT }], digest: "sha256:1" },
        {
          layers: [{ layer: 1, createdAt: AT }],
          chains: [{ layers: [1, 0], createdAt: AT }],
          digest: "sha256:2",
          inputs: [[{ link: 0 }]],
        },
      ],
    }),
    "config",
  );
const encode = async (layers: Descriptor[]) =>
  JSON.parse(text((await encodeObjectDocument(config(), layers, unknown)).bytes));

describe("what a layout says of a layer", () => {
  test.each([
    [undefined, "0001-01-01T00:00:00Z"],
    ["2026-11-26T21:33:37.72737828+05:30", "2026-11-26T16:03:37.72737828Z"],
    ["2026-11-26T16:03:37.120000000Z", "2026-11-26T16:03:37.12Z"],
    ["2026-11-26T16:03:37.000Z", "2026-11-26T16:03:37Z"],
    ["2026-12-31T23:59:59.999999999-00:01", "2027-01-01T00:00:59.999999999Z"],
  ])("a time of %p is stored as %s", async (at, stored) => {
    const made = await encode([
      layer(A, at === undefined ? {} : { "buildkit/createdat": at }),
      layer(B),
    ]);
    expect(made.layers[0].annotations.createdAt).toBe(stored);
  });

  test("a time that is none is refused, as by BuildKit's exporter", async () => {
    for (const at of ["", "yesterday", "2026-13-01T00:00:00Z"]) {
      const error = await failure(() => encode([layer(A, { "buildkit/createdat": at }), layer(B)]));
      expect(error.code).toBe("CACHE_INVALID");
    }
  });

  test("Docker's media types become OCI's, other annotations go", async () => {
    const mediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    const made = await encode([
      { ...layer(A, { "containerd.io/distribution.source.x": "y" }), mediaType },
      layer(B),
    ]);
    expect(made.layers[0].annotations).toEqual({
      mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
      diffID: DIFF,
      size: 10,
      createdAt: "0001-01-01T00:00:00Z",
    });
  });

  test("a layer that nothing describes goes with the results that need it; records and links stay", async () => {
    const made = await encodeObjectDocument(config(), [layer(B)], unknown);
    expect(made.dropped).toEqual([A]);
    const { layers, records } = JSON.parse(text(made.bytes));
    // What stands on the missing layer goes as well.
    expect(layers).toBeUndefined();
    expect(records).toEqual([
      { digest: "sha256:1" },
      { digest: "sha256:2", inputs: [[{ link: 0 }]] },
    ]);
  });

  test("what stands above a layer that stays is numbered anew", async () => {
    const other = config();
    other.layers.unshift({ blob: parseDigest(DIFF), parent: -1 });
    other.layers[1]!.parent = -1;
    other.layers[2]!.parent = 1;
    other.records[0]!.results[0]!.layer = 1;
    other.records[1]!.results[0]!.layer = 2;
    other.records[1]!.chains[0]!.layers = [2, 1];
    const made = JSON.parse(
      text((await encodeObjectDocument(other, [layer(A), layer(B)], unknown)).bytes),
    );
    expect(made.layers.map(({ blob, parent }: any) => [blob, parent])).toEqual([
      [A, -1],
      [B, undefined],
    ]);
    expect(made.records[0].layers[0].layer).toBe(0);
    expect(made.records[1].layers[0].layer).toBe(1);
    expect(made.records[1].chains[0].layers).toEqual([1, 0]);
  });

  test("a diffID that is not said is looked for", async () => {
    const { annotations: _, ...bare } = layer(A);
    const made = await encodeObjectDocument(config(), [bare, layer(B)], async ({ digest }) =>
      digest === A ? parseDigest(DIFF) : undefined,
    );
    expect(made.dropped).toEqual([]);
    expect(JSON.parse(text(made.bytes)).layers[0].annotations.diffID).toBe(DIFF);
  });
});

describe("what an object store says of a layer", () => {
  const derive = (annotations: unknown) =>
    failure(
      () => void deriveCache(bytes({ layers: [{ blob: A, parent: -1, annotations }] }), "cache"),
    );
  const sound = { mediaType: "m", diffID: DIFF, size: 1, createdAt: AT };

  test.each([
    [undefined, "cache layer with missing annotations"],
    [{ ...sound, diffID: undefined }, "cache layer with missing diffid"],
    [{ ...sound, diffID: "" }, "cache layer with missing diffid"],
    [{ ...sound, diffID: "sha256:1" }, "cache layer with invalid diffid"],
    [{ ...sound, size: 0 }, "cache layer with missing size"],
    [{ ...sound, mediaType: "" }, "cache layer with missing media type"],
  ])("%p is refused", async (annotations, reason) => {
    const error = await derive(annotations);
    expect(error.code).toBe("CACHE_INVALID");
    expect(error.message).toContain(`${reason} (in layers, entry 0)`);
  });

  test("the zero time is no annotation, any other text stays as it is", () => {
    const layersOf = (createdAt: string) =>
      deriveCache(
        bytes({ layers: [{ blob: A, parent: -1, annotations: { ...sound, createdAt } }] }),
        "cache",
      ).layers;
    expect(layersOf("0001-01-01T00:00:00Z")[0]?.annotations).toEqual({
      "containerd.io/uncompressed": DIFF,
    });
    expect(layersOf("2026-01-02T03:04:05+01:00")[0]?.annotations?.["buildkit/createdat"]).toBe(
      "2026-01-02T03:04:05+01:00",
    );
  });

  test("a document without layers has a manifest without layers", () => {
    const { manifest, layers } = deriveCache(bytes({}), "cache");
    expect(layers).toEqual([]);
    expect(JSON.parse(text(manifest.bytes)).layers).toEqual([]);
  });
});

test("a joining record goes into the document and comes out of it again", async () => {
  const { config, layers } = exported("object-s3", "s3.json");
  const parsed = parseCacheConfig(config, "config");
  const joined = { ...parsed, joined: [0, 1] };
  const made = await encodeObjectDocument(joined, layers, unknown);
  const key = `"sha256:${"f".repeat(64)}"`;
  expect(text(made.bytes)).toContain(key);
  const back = parseCacheConfig(deriveCache(made.bytes, "cache").config.bytes, "config");
  expect(back).toEqual(joined);
});
