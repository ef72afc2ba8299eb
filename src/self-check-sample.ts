/**
 * A cache that is part of the program: 94 bytes of layer, as BuildKit exported them,
 * with the digests that BuildKit gave its document in two shapes.
 */
import { convertCache } from "./convert.ts";
import type { Descriptor } from "./descriptor.ts";
import { digestOf } from "./digest.ts";
import { DEFAULT_LIMITS } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { LayoutDirectory, LayoutDirectoryWriter } from "./layout-directory.ts";
import { CACHE_CONFIG, OCI_INDEX, OCI_LAYER_GZIP } from "./media-types.ts";
import { noProgress } from "./progress.ts";
import { readCache } from "./cache-read.ts";
import { verifyStore } from "./verify.ts";

/** A layer with one file of five bytes. */
const LAYER = Uint8Array.fromBase64(
  "H4sIAAAAAAAA/0rLzEtloDEwMDAwMDMxYTCAAHTawMDAFIltwGBgaGBgYsKgYAAzgJagtLgksYjBgGK74I6H0jDxQQ5A8c8F44yCUTAKRsEoGDEAMABVW+hHAAgAAA==",
);
const LAYER_DIGEST = "sha256:3b05edcdaec8996418d03c34d4d3ea6d842033384739a93e77b1147623c00f6f";

const CONFIG =
  `{"layers":[{"blob":"${LAYER_DIGEST}","parent":-1}],"records":[` +
  `{"digest":"sha256:45b64ef68560b0152f01359f94d1aece241af82e25a23585133f3912104bac91"},` +
  `{"layers":[{"layer":0,"createdAt":"2026-11-22T00:56:04.78074225Z"}],"digest":"sha256:6234211a90379f7f669f5a6407dbcceec0495a8a5d5be0927694980941b6b255","inputs":[[{"link":0}]]}]}`;
const CONFIG_DIGEST = "sha256:9ed3bd1638dd15e96ac01a2c04551d2903fb24d4bf33703148a4fe20be76a616";

const INDEX =
  `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[` +
  `{"mediaType":"${OCI_LAYER_GZIP}","digest":"${LAYER_DIGEST}","size":94,"annotations":{"buildkit/createdat":"2026-11-22T00:56:04.777975971Z","containerd.io/uncompressed":"sha256:8ad4fcfa6f82d72ab66f31e6eb7cb6e2770280572d703bc5d2c97191afeba6e7"}},` +
  `{"mediaType":"${CACHE_CONFIG}","digest":"${CONFIG_DIGEST}","size":380}]}`;

/** What BuildKit calls the same cache as an image manifest. */
const MANIFEST_DIGEST = "sha256:dc2a389fb4a38b29c949ceb6915908294d0b8797ec5bd80820dc61abc72f992d";

const NAME = { refName: "latest" };

/**
 * Writes the cache into a layout, converts it there, and verifies the outcome.
 *
 * @param layout A folder that is not there yet.
 * @returns What was done, for people.
 * @throws {CacheportError} whatever writing, converting or verifying throws;
 *   DIGEST_MISMATCH when the outcome is not BuildKit's
 */
export async function convertSample(layout: string): Promise<string> {
  const writer = await LayoutDirectoryWriter.open(layout, { create: true });
  try {
    const index = await writeSample(writer);
    const store = await LayoutDirectory.open(layout);
    const options = { limits: DEFAULT_LIMITS, jobs: 1, progress: noProgress };
    const converted = await convertCache(store, await readCache(store, index, options), writer, {
      ...options,
      shape: "image-manifest",
      names: [{ kind: "set", name: NAME }],
      inPlace: true,
      checkBlobs: true,
      tempFolder: layout,
    });
    expectDigest(converted?.descriptor.digest, MANIFEST_DIGEST);
    const { descriptor } = await store.resolve({ name: NAME.refName });
    expectDigest(descriptor.digest, MANIFEST_DIGEST);
    const { problems } = await verifyStore(store, undefined, {
      ...options,
      deep: true,
    });
    const [problem] = problems.filter(({ severity }) => severity === "error");
    if (problem)
      throw new CacheportError("VERIFY_FAILED", `Cannot convert a cache: ${problem.message}`);
    return "a cache was converted and verified, with BuildKit's digest";
  } finally {
    await writer.close();
  }
}

/** Writes the cache as an index of layers. @returns The descriptor of the index */
async function writeSample(writer: LayoutDirectoryWriter): Promise<Descriptor> {
  const layer = describe(OCI_LAYER_GZIP, LAYER);
  await writer.put(layer, { bytes: LAYER });
  const configBytes = new TextEncoder().encode(CONFIG);
  const config = describe(CACHE_CONFIG, configBytes);
  await writer.put(config, { bytes: configBytes });
  const bytes = new TextEncoder().encode(INDEX);
  const descriptor = describe(OCI_INDEX, bytes);
  await writer.publish([{ descriptor, bytes, names: [{ kind: "set", name: NAME }] }]);
  return descriptor;
}

function describe(mediaType: string, bytes: Uint8Array): Descriptor {
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

function expectDigest(actual: string | undefined, expected: string): void {
  if (actual === expected) return;
  throw new CacheportError(
    "DIGEST_MISMATCH",
    `Cannot convert a cache: the outcome is ${actual ?? "nothing"} and not ${expected}`,
  );
}
