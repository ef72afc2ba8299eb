import { describe, expect, test } from "bun:test";
import { EMPTY_PAYLOAD, escapeKey, signRequest } from "../src/object-sigv4.ts";

/** The signature and the signed headers of a request. */
function sign(
  method: string,
  url: string,
  headers: Record<string, string>,
  keys: { accessKeyId: string; secretAccessKey: string; sessionToken?: string },
  scope: { service: string; at: string },
): string[] {
  const signed = signRequest({ method, url: new URL(url), headers, payload: EMPTY_PAYLOAD }, keys, {
    region: "us-east-1",
    service: scope.service,
    date: new Date(scope.at),
  });
  const [, names = "", signature = ""] =
    /SignedHeaders=([^,]+), Signature=(.+)$/.exec(signed["authorization"] ?? "") ?? [];
  return [names, signature];
}

// Amazon S3 API reference, "Signature Calculations for the Authorization Header".
const S3_KEYS = {
  accessKeyId: "AKIAIOSFODNN7EXAMPLE",
  secretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
};
// The Signature Version 4 test suite.
const SUITE_KEYS = {
  accessKeyId: "AKIDEXAMPLE",
  secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
};

describe("Signature Version 4 gives Amazon's own published signatures", () => {
  test.each([
    [
      "/test.txt",
      { range: "bytes=0-9" },
      "host;range;x-amz-content-sha256;x-amz-date",
      "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ],
    [
      "/?lifecycle",
      {},
      "host;x-amz-content-sha256;x-amz-date",
      "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ],
    [
      "/?max-keys=2&prefix=J",
      {},
      "host;x-amz-content-sha256;x-amz-date",
      "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ],
    [
      "/?prefix=J&max-keys=2",
      {},
      "host;x-amz-content-sha256;x-amz-date",
      "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ],
  ])("s3 GET %s", (path, headers, names, signature) => {
    const url = `https://examplebucket.s3.amazonaws.com${path}`;
    const scope = { service: "s3", at: "2013-05-24T00:00:00Z" };
    expect(sign("GET", url, headers as Record<string, string>, S3_KEYS, scope)).toEqual([
      names,
      signature,
    ]);
  });

  test.each([
    ["get-vanilla", "GET", "/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"],
    [
      "post-vanilla",
      "POST",
      "/",
      "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ],
    [
      "get-vanilla-query-order-key-case",
      "GET",
      "/?Param2=value2&Param1=value1",
      "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ],
    [
      "get-utf8",
      "GET",
      "/\u1234",
      "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ],
  ])("%s", (_, method, path, signature) => {
    const url = `https://example.amazonaws.com${path}`;
    const scope = { service: "service", at: "2015-08-30T12:36:00Z" };
    expect(sign(method, url, {}, SUITE_KEYS, scope)).toEqual(["host;x-amz-date", signature]);
  });

  test("headers that a proxy may change are not signed, the session's token is", () => {
    const headers = {
      "accept-encoding": "identity",
      "content-type": "x",
      "user-agent": "y",
      "x-amz-meta-a": "z",
    };
    const keys = { ...S3_KEYS, sessionToken: "token" };
    const [names] = sign("PUT", "https://b.example/k", headers, keys, {
      service: "s3",
      at: "2013-05-24T00:00:00Z",
    });
    expect(names).toBe("host;x-amz-content-sha256;x-amz-date;x-amz-meta-a;x-amz-security-token");
  });

  test("keys are escaped part by part, as S3 signs them", () => {
    expect(escapeKey("a b/blobs/sha256:0a+~(1)*'!\u00e9")).toBe(
      "a%20b/blobs/sha256%3A0a%2B~%281%29%2A%27%21%C3%A9",
    );
  });
});
