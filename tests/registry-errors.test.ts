import { describe, expect, test } from "bun:test";
import { hintOf } from "../src/cli-hints.ts";
import { DOCKER_LIST, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST } from "../src/media-types.ts";
import { listsBlobs, parseFaults, refusalError } from "../src/registry-errors.ts";
import type { RefusalContext } from "../src/registry-errors.ts";

function refuse(
  status: number,
  fault: [code: string, message?: string] | string,
  more: Partial<RefusalContext> = {},
  headers = {},
) {
  const body =
    typeof fault === "string"
      ? fault
      : JSON.stringify({
          errors: [{ code: fault[0], message: fault[1] ?? "" }],
        });
  return refusalError(
    {
      status,
      headers: new Headers(headers),
      body: new TextEncoder().encode(body),
    },
    {
      action: 'Cannot write manifest "reg.test/app:main"',
      location: "reg.test/app",
      redact: (text) => text,
      ...more,
    },
  );
}

const index = { mediaType: OCI_INDEX, name: "main", listsBlobs: true };
const manifest = { mediaType: OCI_MANIFEST, name: "main", listsBlobs: false };

// What registries answer to a cache in index shape: moby/buildkit issue 2251 and its duplicates.
test.each([
  ["distribution 3", 400, ["MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"]],
  ["ECR", 400, ["MANIFEST_INVALID", "Invalid parameter at 'ImageManifest'"]],
  ["GCR", 400, ["MANIFEST_INVALID", "Image index child manifest not supported"]],
  ["Quay", 400, ["MANIFEST_INVALID", "manifest invalid: 'platform' is a required property"]],
  ["Harbor", 404, ["NOT_FOUND", "artifact not found"]],
  ["Artifactory", 404, ["MANIFEST_UNKNOWN", "The named manifest is not known"]],
  ["Nexus", 500, ""],
  ["Gitea", 400, "<html>"],
] as [string, number, [string, string] | string][])(
  "%s refuses an index of blobs: the way out is told",
  (_, status, fault) => {
    const error = refuse(status, fault, { document: index });
    expect(error.code).toBe("REGISTRY_REJECTED");
    expect(error.message).toContain("in the shape of an OCI index");
    expect(hintOf(error)).toBe(
      "Write it as an image manifest: cacheport convert SRC reg.test/app:main --to image-manifest",
    );
    const list = refuse(status, fault, {
      document: { ...index, mediaType: DOCKER_LIST },
    });
    expect(list.message).toContain("in the shape of a Docker manifest list");
  },
);

test.each([
  [401, ["UNAUTHORIZED"], "REGISTRY_DENIED", "wants a login"],
  [403, ["DENIED", "requested access is denied"], "REGISTRY_DENIED", "does not allow it"],
  [400, ["DENIED"], "REGISTRY_DENIED", "does not allow it"],
  [429, ["TOOMANYREQUESTS"], "REGISTRY_FAILED", "limit is reached"],
  [413, "", "REGISTRY_REJECTED", "larger than the registry"],
  [507, "", "NO_SPACE", "no room left"],
  [
    403,
    ["DENIED", "adding 1 GiB of storage resource would exceed the quota"],
    "NO_SPACE",
    "no room left",
  ],
  [500, ["UNKNOWN", "write: no space left on device"], "NO_SPACE", "no room left"],
  [
    400,
    [
      "TAG_INVALID",
      "The image tag 'main' already exists and cannot be overwritten because the repository is immutable.",
    ],
    "REGISTRY_REJECTED",
    "does not let a tag be overwritten",
  ],
  [
    412,
    ["PRECONDITION", "Failed to process request due to 'app:main' configured as immutable."],
    "REGISTRY_REJECTED",
    "does not let a tag be overwritten",
  ],
  [
    404,
    ["NAME_UNKNOWN", "The repository with name 'app' does not exist"],
    "LOCATION_NOT_FOUND",
    "no such repository",
  ],
  [400, ["NAME_INVALID"], "REGISTRY_REJECTED", "repository's name"],
  [405, ["UNSUPPORTED"], "REGISTRY_UNSUPPORTED", "does not support it"],
  [503, "", "REGISTRY_FAILED", "the registry failed (503)"],
] as [number, [string, string?] | string, string, string][])(
  "%d %j is %s: %s",
  (status, fault, code, text) => {
    const error = refuse(status, fault);
    expect(error.code).toBe(code as never);
    expect(error.message).toContain(text);
    expect(error.message).toStartWith('Cannot write manifest "reg.test/app:main": ');
    expect(error.message).not.toEndWith(".");
  },
);

describe("a document that lists no blobs", () => {
  test.each([
    [404, ["MANIFEST_BLOB_UNKNOWN"], "misses content"],
    [400, ["BLOB_UNKNOWN"], "misses content"],
    [400, ["MANIFEST_INVALID", "bad"], OCI_MANIFEST],
    [415, "", OCI_MANIFEST],
  ] as [number, [string, string?] | string, string][])("%d %j", (status, fault, text) => {
    const error = refuse(status, fault, { document: manifest });
    expect(error.code).toBe("REGISTRY_REJECTED");
    expect(error.message).toContain(text);
  });

  test("a missing repository and a denied push stay what they are", () => {
    expect(refuse(404, ["NAME_UNKNOWN"], { document: manifest }).code).toBe("LOCATION_NOT_FOUND");
    expect(refuse(403, ["DENIED"], { document: index }).code).toBe("REGISTRY_DENIED");
    expect(refuse(429, "", { document: index }).code).toBe("REGISTRY_FAILED");
  });
});

test("what is missing has the code of what was asked for", () => {
  const missing = "NAME_NOT_FOUND";
  expect(refuse(404, ["MANIFEST_UNKNOWN"], { missing }).code).toBe(missing);
  const none = refuse(404, ["NAME_UNKNOWN"], { missing });
  expect(none.code).toBe(missing);
  expect(none.message).toContain("no such repository");
});

test("a server's text is cut, cleaned and stripped of secrets", () => {
  const error = refuse(400, ["X", `a\u001b[2J\nb\u202e SECRET ${"y".repeat(9999)}`], {
    redact: (text) => text.replaceAll("SECRET", "[secret]"),
  });
  expect(error.message).not.toMatch(/[\p{Cc}\p{Cf}]|SECRET/u);
  expect(error.message.length).toBeLessThan(500);
});

test.each(["", "null", "[]", '{"errors":1}', '{"errors":[null,1]}', "<html>"])(
  "%p holds no faults",
  (text) => {
    expect(parseFaults(new TextEncoder().encode(text))).toEqual([]);
  },
);

test("listsBlobs tells a cache in index shape from an index of manifests", () => {
  const bytes = (types: unknown[]) =>
    new TextEncoder().encode(
      JSON.stringify({ manifests: types.map((mediaType) => ({ mediaType })) }),
    );
  expect(listsBlobs(OCI_INDEX, bytes([OCI_MANIFEST, OCI_LAYER_GZIP]))).toBe(true);
  expect(listsBlobs(DOCKER_LIST, bytes([OCI_MANIFEST, OCI_INDEX]))).toBe(false);
  expect(listsBlobs(OCI_MANIFEST, bytes([OCI_LAYER_GZIP]))).toBe(false);
  expect(listsBlobs(OCI_INDEX, new TextEncoder().encode("{"))).toBe(false);
});
