import { describe, expect, test } from "bun:test";
import {
  blobPath,
  checkContent,
  createHasher,
  digestAlgorithm,
  digestHex,
  digestOf,
  isDigest,
  parseDigest,
  shortDigest,
} from "../src/digest.ts";
import { failure } from "./helpers/errors.ts";

const HEX = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const HELLO = `sha256:${HEX}`;

const BAD = [
  "",
  "sha256:",
  HEX,
  `sha256:${HEX.slice(1)}`,
  `sha256:${HEX}0`,
  `sha256:${HEX.toUpperCase()}`,
  `SHA256:${HEX}`,
  `sha256:../../${"x".repeat(58)}`,
  `sha256:${HEX}\n`,
  `\nsha256:${HEX}`,
  `sha512:${HEX}`,
  `sha384:${"0".repeat(96)}`,
  `md5:${"0".repeat(32)}`,
  "x".repeat(100_000),
];

describe("parseDigest", () => {
  test("accepts sha256 and sha512 of the right length", () => {
    expect(parseDigest(HELLO)).toBe(HELLO as never);
    expect(parseDigest(`sha512:${"a".repeat(128)}`)).toHaveLength(135);
  });

  test.each(BAD)("refuses %p with a short message", async (text) => {
    const error = await failure(() => parseDigest(text));
    expect(error.code).toBe("DIGEST_INVALID");
    expect(error.message.length).toBeLessThan(300);
    expect(isDigest(text)).toBe(false);
  });
});

test("the parts of a digest", () => {
  const digest = parseDigest(HELLO);
  expect(digestAlgorithm(digest)).toBe("sha256");
  expect(digestAlgorithm(parseDigest(`sha512:${"a".repeat(128)}`))).toBe("sha512");
  expect(digestHex(digest)).toBe(HEX);
  expect(blobPath(digest)).toBe(`blobs/sha256/${HEX}`);
  expect(shortDigest(digest)).toBe("2cf24dba5fb0");
});

test("hashing in pieces equals hashing whole", () => {
  const hasher = createHasher();
  hasher.update(new TextEncoder().encode("hel"));
  hasher.update(new TextEncoder().encode("lo"));
  expect(hasher.digest()).toBe(HELLO as never);
  expect(digestOf("hello")).toBe(HELLO as never);
  expect(digestOf("hello", "sha512")).toMatch(/^sha512:9b71d224/);
});

test("checkContent tells a wrong size from a wrong digest", async () => {
  const digest = parseDigest(HELLO);
  const hello = new TextEncoder().encode("hello");
  checkContent(hello, { digest, size: 5 });
  expect((await failure(() => checkContent(hello, { digest, size: 6 }))).code).toBe(
    "SIZE_MISMATCH",
  );
  const other = new TextEncoder().encode("hellO");
  expect((await failure(() => checkContent(other, { digest, size: 5 }))).code).toBe(
    "DIGEST_MISMATCH",
  );
});
