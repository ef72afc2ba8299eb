import { describe, expect, test } from "bun:test";
import { digestOf } from "../src/digest.ts";
import { HashThread } from "../src/blob-hash.ts";
import { failure } from "./helpers/errors.ts";

const MIB = 1024 * 1024;

/** Bytes that differ from one seed to another. */
function sample(size: number, seed: number): Uint8Array {
  return new Uint8Array(size).map((_, at) => at * seed + (at >>> 8));
}

describe("HashThread", () => {
  test("gives the digests that hashing whole gives, several streams at once", async () => {
    const thread = new HashThread();
    try {
      await Promise.all(
        [
          [0, 1000, "sha256"],
          [10, 3, "sha256"],
          [2 * MIB, 100_000, "sha256"],
          [3 * MIB + 1, MIB, "sha512"],
          // Far more than waits for the thread at once, in chunks larger than a slot.
          [20 * MIB, 4 * MIB, "sha256"],
        ].map(async ([size, step, algorithm], seed) => {
          const bytes = sample(size as number, seed + 3);
          const kind = algorithm as "sha256" | "sha512";
          // Told too few or too many bytes, the digest is the same.
          for (const told of [0, 2 * MIB]) {
            const hasher = thread.start(kind, told);
            for (let at = 0; at < bytes.length; at += step as number) {
              const chunk = bytes.slice(at, at + (step as number));
              await hasher.update(chunk);
              chunk.fill(0);
            }
            expect(await hasher.digest()).toBe(digestOf(bytes, kind));
          }
        }),
      );
    } finally {
      thread.close();
    }
  });

  test("ends whoever waits when it is closed, and whoever comes after", async () => {
    const thread = new HashThread();
    const hasher = thread.start("sha256", 64 * MIB);
    const waiting = failure(() => hasher.update(new Uint8Array(64 * MIB)));
    const digest = failure(() => hasher.digest());
    thread.close();
    thread.close();
    expect((await waiting).code).toBe("INTERRUPTED");
    expect((await digest).code).toBe("INTERRUPTED");
    for (const late of [
      () => hasher.update(new Uint8Array(1)),
      () => hasher.digest(),
      () => thread.start("sha256", 2 * MIB),
    ])
      expect((await failure(late)).code).toBe("INTERRUPTED");
  });
});
