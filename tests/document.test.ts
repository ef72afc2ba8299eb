import { describe, expect, test } from "bun:test";
import { detectDocumentType, identify, parseDocument } from "../src/document.ts";
import {
  CACHE_CONFIG,
  DOCKER_CONFIG,
  DOCKER_LAYER_GZIP,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_ARTIFACT,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_MANIFEST,
} from "../src/media-types.ts";
import { failure } from "./helpers/errors.ts";

const detect = (json: string): string =>
  detectDocumentType(new TextEncoder().encode(json), "manifest");

describe("detectDocumentType follows BuildKit's rules", () => {
  test.each([
    ["{}", DOCKER_LIST],
    ['{"manifests":[]}', DOCKER_LIST],
    ['{"manifests":null}', DOCKER_LIST],
    ['{"config":{}}', DOCKER_MANIFEST],
    ['{"layers":null}', DOCKER_MANIFEST],
    ['{"config":null}', DOCKER_MANIFEST],
    ['{"LAYERS":[]}', DOCKER_MANIFEST],
    [`{"mediaType":"${OCI_INDEX}","manifests":[]}`, OCI_INDEX],
    [`{"mediaType":"${DOCKER_LIST}"}`, DOCKER_LIST],
    [`{"mediaType":"${OCI_MANIFEST}","config":{},"layers":[]}`, OCI_MANIFEST],
    [`{"mediaType":"${OCI_MANIFEST}","layers":null}`, OCI_MANIFEST],
    [`{"mediaType":"${DOCKER_MANIFEST}","config":{}}`, DOCKER_MANIFEST],
    ['{"mediaType":"","layers":[]}', DOCKER_MANIFEST],
    ['{"mediaType":null,"manifests":[]}', DOCKER_LIST],
    ['{"mediaType":"application/x","config":{}}', DOCKER_MANIFEST],
    [`{"mediaType":"x","mediatype":"${OCI_INDEX}"}`, OCI_INDEX],
  ])("%s is %s", (json, expected) => {
    expect(detect(json)).toBe(expected);
  });

  test.each([
    ['{"config":{},"manifests":[]}', "invalid ambiguous manifest and manifest list"],
    ['{"layers":null,"manifests":null}', "invalid ambiguous manifest and manifest list"],
    [
      `{"mediaType":"${OCI_INDEX}","config":{}}`,
      "mediaType in manifest does not match manifest contents",
    ],
    [
      `{"mediaType":"${OCI_MANIFEST}","manifests":[]}`,
      "mediaType in manifest does not match manifest contents",
    ],
    [`{"mediaType":"${OCI_MANIFEST}"}`, "mediaType in manifest does not match manifest contents"],
    ['{"mediaType":1}', "mediaType"],
    ["[]", "not a JSON object"],
    ["null", "not a JSON object"],
    ["\x1f\x8b", "not valid JSON"],
  ])("%j is refused: %s", async (json, reason) => {
    const error = await failure(() => detect(json));
    expect(error.code).toBe("DOCUMENT_INVALID");
    expect(error.message).toContain(reason);
  });
});

describe("parseDocument", () => {
  const blob = (digit: string, mediaType = "text/plain") => ({
    mediaType,
    digest: `sha256:${digit.repeat(64)}`,
    size: 1,
  });
  const parse = (value: object, claimed = "") =>
    parseDocument(new TextEncoder().encode(JSON.stringify(value)), claimed, "manifest");
  const listed = (value: object, claimed = "") =>
    parse(value, claimed).children.map(({ digest }) => digest.at(-1));

  test("gives the children of every type, config first", () => {
    expect(listed({ mediaType: OCI_INDEX, manifests: [blob("1"), blob("2")] })).toEqual(["1", "2"]);
    expect(listed({ config: blob("1"), layers: [blob("2"), blob("2")] })).toEqual(["1", "2", "2"]);
    expect(
      listed({ mediaType: OCI_ARTIFACT, blobs: [blob("1"), blob("2")], subject: blob("3") }),
    ).toEqual(["1", "2"]);
    expect(listed({ blobs: [blob("1")] }, OCI_ARTIFACT)).toEqual(["1"]);
  });

  test("marks as blobs what stands where only blobs stand", () => {
    expect(parse({ config: blob("1"), layers: [blob("2", OCI_MANIFEST)] }).blobs).toHaveLength(2);
    expect(parse({ manifests: [blob("1", OCI_MANIFEST)] }).blobs).toEqual([]);
    expect(parse({ mediaType: OCI_ARTIFACT, blobs: [blob("1")] }).children[0]?.isBlob).toBe(true);
  });

  test.each([
    ["its config", { config: blob("1", DOCKER_CONFIG), layers: [] }, DOCKER_MANIFEST],
    ["its config, OCI's", { config: blob("1", OCI_CONFIG), layers: [] }, OCI_MANIFEST],
    ["nothing, a manifest", { config: blob("1", "x/y"), layers: [] }, OCI_MANIFEST],
    ["its first child", { manifests: [blob("1", DOCKER_MANIFEST)] }, DOCKER_LIST],
    ["its first child, OCI's", { manifests: [blob("1", OCI_MANIFEST)] }, OCI_INDEX],
    ["its first layer", { manifests: [blob("1", DOCKER_LAYER_GZIP)] }, DOCKER_LIST],
    ["nothing, an index", { manifests: [] }, OCI_INDEX],
  ])("names a document without mediaType by %s", (_what, value, type) => {
    expect(parse(value).type).toBe(type);
  });

  test("the type that it was announced with goes before its children's", () => {
    const value = { config: blob("1", OCI_CONFIG), layers: [] };
    expect(parse(value, DOCKER_MANIFEST).type).toBe(DOCKER_MANIFEST);
    expect(parse(value, OCI_INDEX).type).toBe(OCI_MANIFEST);
    expect(parse(value, "application/json").type).toBe(OCI_MANIFEST);
  });

  test("is a cache by BuildKit's rule, whatever it is called", () => {
    const config = blob("1", CACHE_CONFIG);
    expect(parse({ config, layers: [] }).cache?.shape).toBe("docker-manifest");
    expect(parse({ manifests: [config] }).cache?.shape).toBe("docker-list");
    expect(parse({ mediaType: OCI_INDEX, manifests: [config] }).cache?.shape).toBe("oci-index");
  });

  test.each([
    ["Docker schema 1", { schemaVersion: 1, fsLayers: [{ blobSum: blob("1").digest }] }],
    ["a field more with content", { mediaType: OCI_MANIFEST, layers: [], extra: blob("1") }],
    ["the same, deep down", { layers: [], x: [{ y: { z: [blob("1")] } }] }],
    ["blobs beside layers", { mediaType: OCI_MANIFEST, layers: [], blobs: [blob("1")] }],
    ["layers of another spelling", { layers: [blob("1")], LAYERS: [blob("2")] }],
    [
      "content in another algorithm",
      { layers: [], x: [{ ...blob("1"), digest: "md5:".padEnd(40, "a") }] },
    ],
    ["a digest alone, in a type of its own", { mediaType: "a/b", layers: [], x: blob("1").digest }],
  ])("refuses %s: it would stay behind", async (_what, value) => {
    expect((await failure(() => parse(value))).code).toBe("DOCUMENT_UNKNOWN");
  });

  test.each([
    [
      "a digest in an annotation",
      { layers: [], annotations: { digest: blob("1").digest, size: "1" } },
    ],
    ["its own children once more", { layers: [blob("1")], x: { first: blob("1") } }],
    ["a digest alone", { mediaType: OCI_MANIFEST, layers: [], x: blob("1").digest }],
  ])("takes %s", (_what, value) => {
    expect(parse(value).isIndex).toBe(false);
  });
});

describe("identify", () => {
  const digest = `sha256:${"1".repeat(64)}`;
  const look = (value: unknown, claimed = "") =>
    identify(new TextEncoder().encode(JSON.stringify(value)), claimed, "blob");

  test.each([
    ["text", "hello"],
    ["JSON without digests", { a: 1 }],
    ["an image config", { config: { Image: digest }, rootfs: { diff_ids: [digest] } }],
    [
      "a cache config",
      { layers: [{ blob: digest }], records: [{ digest, layers: [{ layer: 0 }] }] },
    ],
  ])("%s is a blob", (_what, value) => {
    expect(look(value)).toBeUndefined();
  });

  test.each([
    ["a type of its own", { mediaType: "application/x", manifests: [] }, ""],
    ["a type of its own and a digest", { mediaType: "application/x", x: digest }, ""],
    ["an announced type and a digest", { x: [digest] }, "application/vnd.x+json"],
    ["an unknown place", { x: [{ digest, size: 1 }] }, ""],
  ])("JSON with %s is refused", async (_what, value, claimed) => {
    expect((await failure(() => look(value, claimed))).code).toBe("DOCUMENT_UNKNOWN");
  });

  test("a document is one under any name", () => {
    const value = { mediaType: OCI_MANIFEST, layers: [] };
    for (const claimed of ["", "application/json", "application/vnd.oci.image.manfest.v1+json"])
      expect(look(value, claimed)?.type).toBe(OCI_MANIFEST);
    expect(identify(new TextEncoder().encode(` \n${JSON.stringify(value)}`), "", "x")?.type).toBe(
      OCI_MANIFEST,
    );
  });
});
