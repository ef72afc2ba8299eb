import { describe, expect, test } from "bun:test";
import { detectDocumentType } from "../src/document.ts";
import { DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST } from "../src/media-types.ts";
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
