/** Repositories opened with settings that are good for tests. */
import { afterAll } from "bun:test";
import { createHash } from "node:crypto";
import type { Descriptor } from "../../src/descriptor.ts";
import type { Digest } from "../../src/digest.ts";
import { DEFAULT_LIMITS } from "../../src/documents.ts";
import { resolveDomain } from "../../src/reference.ts";
import { RegistryRepository } from "../../src/registry.ts";
import type { RegistryOptions } from "../../src/registry.ts";
import type { TestServer } from "./test-registry.ts";

const closing: (() => unknown)[] = [];
afterAll(async () => {
  for (const close of closing.splice(0)) await close();
});

/** Starts a server that is stopped after the test file. */
export async function started<T extends TestServer>(server: Promise<T>): Promise<T> {
  const running = await server;
  closing.push(() => running.stop());
  return running;
}

/** Opens `HOST/REPO`, with short waits and no credentials unless told otherwise. */
export function openRepository(
  name: string,
  options: Partial<RegistryOptions> = {},
): RegistryRepository {
  const repository = RegistryRepository.open(resolveDomain(name), {
    env: {},
    home: "/nonexistent",
    limits: DEFAULT_LIMITS,
    jobs: 4,
    retryDelayMs: 5,
    deadlineMs: 20_000,
    ...options,
  });
  closing.push(() => repository.close());
  return repository;
}

/** A descriptor of some bytes. */
export function describeBytes(
  bytes: Uint8Array,
  mediaType = "application/vnd.oci.image.layer.v1.tar+gzip",
): Descriptor {
  const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}` as Digest;
  return { mediaType, digest, size: bytes.length };
}

/** Bytes that look random and are the same in each run. */
export function noise(size: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size);
  let state = seed;
  for (let index = 0; index < size; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[index] = state >>> 24;
  }
  return bytes;
}

/** Reads a stream to its end. */
export async function readAll(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}
