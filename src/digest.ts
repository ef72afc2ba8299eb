/**
 * Content digests: `algorithm:hex`. A digest is checked here before any other
 * code sees it, so that it can be part of a path or a URL without further care.
 *
 * Source: OCI image-spec, descriptor.md, "Digests" (registered algorithms).
 */
import { CacheportError } from "./errors.ts";

declare const digestBrand: unique symbol;

/** A checked digest: `sha256:` with 64 or `sha512:` with 128 lower-case hex digits. */
export type Digest = string & { readonly [digestBrand]: true };

/** The digest algorithms that are supported. */
export type DigestAlgorithm = "sha256" | "sha512";

const DIGEST = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

/** Tells whether a text is a digest in a registered algorithm. */
export function isDigest(text: unknown): text is Digest {
  return typeof text === "string" && DIGEST.test(text);
}

/** Seven digits are what other tools take at least, and enough in any one store. */
const START = /^(?:sha256:[0-9a-f]{7,63}|sha512:[0-9a-f]{7,127}|[0-9a-f]{7,64})$/;

/** Tells whether a text can be the start of a digest as tables show it, and is no whole one. */
export function isDigestStart(text: string): boolean {
  return START.test(text);
}

/**
 * Checks a digest.
 *
 * @param text For example `sha256:2c26...`; hex digits in lower case.
 * @throws {CacheportError} DIGEST_INVALID
 * @example
 * parseDigest("sha256:" + "0".repeat(64)); // the same text, as a Digest
 */
export function parseDigest(text: string): Digest {
  if (isDigest(text)) return text;
  const shown = text.length > 100 ? `${text.slice(0, 100)}...` : text;
  throw new CacheportError(
    "DIGEST_INVALID",
    `Cannot use digest ${JSON.stringify(shown)}: a digest is sha256: with 64 or sha512: with 128 lower-case hex digits`,
  );
}

/** The algorithm of a digest. */
export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.slice(0, 6) as DigestAlgorithm;
}

/** The hex digits of a digest. */
export function digestHex(digest: Digest): string {
  return digest.slice(7);
}

/**
 * The path of a blob inside a layout, with forward slashes: `blobs/sha256/<hex>`.
 *
 * Source: OCI image-spec, image-layout.md, "Blobs".
 */
export function blobPath(digest: Digest): string {
  return `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
}

/** The first 12 hex digits, for tables read by people. */
export function shortDigest(digest: string): string {
  return digest.replace(/^sha\d+:/, "").slice(0, 12);
}

/** A running hash of bytes that arrive in pieces. */
export interface Hasher {
  /** Adds bytes. */
  update(bytes: Uint8Array): void;
  /** Ends the hash. May be called once. */
  digest(): Digest;
}

/** Starts a hash in an algorithm, SHA-256 unless told otherwise. */
export function createHasher(algorithm: DigestAlgorithm = "sha256"): Hasher {
  const hasher = new Bun.CryptoHasher(algorithm);
  return {
    update(bytes) {
      hasher.update(bytes);
    },
    digest() {
      return `${algorithm}:${hasher.digest("hex")}` as Digest;
    },
  };
}

/** The digest of bytes that are in memory. */
export function digestOf(
  bytes: Uint8Array | string,
  algorithm: DigestAlgorithm = "sha256",
): Digest {
  return `${algorithm}:${Bun.CryptoHasher.hash(algorithm, bytes, "hex")}` as Digest;
}

/**
 * Checks that bytes in memory are what a digest and a size say.
 *
 * @throws {CacheportError} SIZE_MISMATCH, DIGEST_MISMATCH
 */
export function checkContent(bytes: Uint8Array, expected: { digest: Digest; size: number }): void {
  if (bytes.length !== expected.size) {
    throw sizeMismatch(expected, bytes.length);
  }
  const actual = digestOf(bytes, digestAlgorithm(expected.digest));
  if (actual !== expected.digest) throw digestMismatch(expected.digest, actual);
}

/** The error for content whose bytes have another digest. */
export function digestMismatch(expected: Digest, actual: Digest): CacheportError {
  return new CacheportError(
    "DIGEST_MISMATCH",
    `Cannot use blob "${expected}": its bytes have the digest ${actual}`,
    {
      hint: "The content was damaged or replaced; get it again from where it was made",
    },
  );
}

/** The error for content with more or fewer bytes than its descriptor says. */
export function sizeMismatch(
  expected: { digest: Digest; size: number },
  actual: number,
): CacheportError {
  return new CacheportError(
    "SIZE_MISMATCH",
    `Cannot use blob "${expected.digest}": it has ${actual} bytes and its descriptor says ${expected.size}`,
    {
      hint: "The content was cut short or its descriptor is wrong; get it again from where it was made",
    },
  );
}
