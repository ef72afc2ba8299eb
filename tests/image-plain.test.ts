import { describe, expect, test } from "bun:test";
import { parseDocument } from "../src/document.ts";
import { parseImageManifest } from "../src/image-manifest.ts";
import { readPlainManifest } from "../src/image-plain.ts";
import { CACHE_CONFIG, OCI_CONFIG, OCI_MANIFEST } from "../src/media-types.ts";
import { outcomeOf } from "./helpers/errors.ts";
import { random } from "./helpers/generated-cache.ts";

const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const DIGEST = `sha256:${"a".repeat(64)}`;
const OTHER = `sha256:${"b".repeat(64)}`;
const descriptor = (mediaType: string, digest = DIGEST) => ({ mediaType, digest, size: 7 });
const MANIFEST = {
  schemaVersion: 2,
  mediaType: OCI_MANIFEST,
  config: descriptor(CACHE_CONFIG),
  layers: [
    { ...descriptor(LAYER), annotations: { "containerd.io/uncompressed": OTHER, "1": "one" } },
    descriptor(LAYER, OTHER),
  ],
};

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("the short way to read a manifest", () => {
  test("is taken for what BuildKit writes, and gives what the schema gives", () => {
    const text = JSON.stringify(MANIFEST);
    expect(readPlainManifest(encode(text))).toStrictEqual(parseImageManifest(encode(text), "it"));
    // White space sends it to the schema.
    expect(readPlainManifest(encode(` ${text}`))).toBeUndefined();
    expect(parseDocument(encode(text), "", "it")).toStrictEqual(
      parseDocument(encode(` ${text}`), "", "it"),
    );
  });

  test.each([
    ["a platform", { layers: [{ ...descriptor(LAYER), platform: { os: "linux" } }] }],
    ["embedded content", { config: { ...descriptor(OCI_CONFIG), data: "e30=" } }],
    ["a subject", { subject: descriptor(OCI_MANIFEST) }],
    ["manifests as well", { manifests: [] }],
    ["content in a place that is not known", { extra: descriptor(LAYER) }],
    ["no layers", { layers: undefined }],
    ["no config", { config: undefined }],
    ["no type", { mediaType: undefined }],
    ["a digest that is none", { config: descriptor(OCI_CONFIG, "sha256:a") }],
    ["a size below zero", { config: { ...descriptor(OCI_CONFIG), size: -1 } }],
    ["a size that is broken", { config: { ...descriptor(OCI_CONFIG), size: 1.5 } }],
    [
      "an annotation that is no text",
      { layers: [{ ...descriptor(LAYER), annotations: { a: 1 } }] },
    ],
    ["a text with an escape", { layers: [descriptor('a"b')] }],
  ])("is not taken for one with %s", (_what, change) => {
    const bytes = encode(JSON.stringify({ ...MANIFEST, ...change }));
    expect(readPlainManifest(bytes)).toBeUndefined();
  });

  test("is not taken for a field that stands there twice, or for what is cut off or goes on", () => {
    const text = JSON.stringify(MANIFEST);
    for (const other of [
      text.replace('"schemaVersion":2', '"schemaVersion":2,"schemaVersion":2'),
      text.replace('"size":7', '"size":7,"size":8'),
      text.replace('"1":"one"', '"__proto__":"one"'),
      text.slice(0, -1),
      `${text} `,
      `${text}${text}`,
    ])
      expect(readPlainManifest(encode(other))).toBeUndefined();
  });

  test("agrees with the schema on anything else: values, and errors by their words", async () => {
    const next = random(5);
    const pick = <T>(items: readonly T[]): T => items[Math.floor(next() * items.length)] as T;
    const ODD = [undefined, null, 0, -1, 1.5, 2 ** 53, "", "x", true, [], {}, [null], DIGEST];
    const maybe = (value: unknown): unknown => (next() < 0.03 ? pick(ODD) : value);
    const vary = (object: object): object =>
      Object.fromEntries(
        Object.entries(object).flatMap(([key, value]) => {
          if (next() < 0.01) return [[key.toUpperCase(), value]];
          if (next() < 0.01) return [["other", value]];
          return [[key, maybe(value)]];
        }),
      );
    let plain = 0;
    for (let round = 0; round < 3000; round++) {
      const text = JSON.stringify(
        vary({
          schemaVersion: 2,
          mediaType: pick([OCI_MANIFEST, OCI_MANIFEST, LAYER, ""]),
          config: vary(descriptor(pick([CACHE_CONFIG, OCI_CONFIG]))),
          layers: [
            vary({ ...descriptor(LAYER), annotations: vary({ a: "b", c: DIGEST }) }),
            vary(descriptor(LAYER, OTHER)),
          ],
        }),
      );
      const claimed = pick(["", OCI_MANIFEST, LAYER]);
      const read = (bytes: Uint8Array) => () => parseDocument(bytes, claimed, "it");
      if (readPlainManifest(encode(text))) plain++;
      expect(await outcomeOf(read(encode(text)))).toEqual(
        await outcomeOf(read(encode(` ${text}`))),
      );
    }
    expect(plain).toBeGreaterThan(500);
    expect(plain).toBeLessThan(2500);
  });
});
