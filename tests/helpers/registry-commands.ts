/**
 * Commands against a registry in memory, and a second pair of eyes on what it
 * holds: plain Node, sharing no code with what is tested.
 */
import { readFileSync } from "node:fs";
import { cacheport } from "./binary.ts";
import type { RunOptions, RunResult } from "./binary.ts";
import { blobFile, readIndex } from "./layout.ts";
import { sha256 } from "./test-registry.ts";
import type { TestRegistry, TestServer } from "./test-registry.ts";

/** How a command went, and what it asked for. */
export interface Asked extends RunResult {
  /** `METHOD path` of each request, in the order in which they came; without `/v2/` itself. */
  requests: string[];
  /** The requests that could have changed something. */
  writes: string[];
}

/**
 * Runs a command and collects the requests that one server has got from it. Standard
 * error has no progress, which a slow machine would show and a fast one would not.
 */
export async function ask(
  server: TestServer,
  args: string[],
  options: RunOptions = {},
): Promise<Asked> {
  const before = server.seen.length;
  const run = await cacheport([...args, "--progress=none"], options);
  const requests = server.seen
    .slice(before)
    .filter(({ url }) => url !== "/v2/")
    .map(({ method, url }) => `${method} ${url.replace(/^\/v2\//, "")}`);
  const writes = requests.filter((line) => !/^(?:GET|HEAD) /.test(line));
  return { ...run, requests, writes };
}

const DOCUMENT = /manifest\.(?:list\.)?v\d\+json|image\.index\.v1\+json/;

/** Puts what a layout names into a repository, without cacheport. @returns The first entry's digest */
export function load(registry: TestRegistry, name: string, layout: string, tag?: string): string {
  const repository = registry.repository(name);
  const add = ({ mediaType, digest }: any): void => {
    const bytes = readFileSync(blobFile(layout, digest));
    if (!DOCUMENT.test(mediaType)) {
      repository.blobs.set(digest, bytes);
      return;
    }
    repository.manifests.set(digest, { mediaType, bytes });
    for (const child of children(JSON.parse(bytes.toString()))) add(child);
  };
  const { manifests } = readIndex(layout);
  for (const entry of manifests) {
    add(entry);
    const own = entry.annotations?.["org.opencontainers.image.ref.name"];
    repository.tags.set(tag ?? own, entry.digest);
  }
  return manifests[0].digest;
}

const children = ({ manifests, config, layers }: any): any[] =>
  manifests ?? [...(config ? [config] : []), ...(layers ?? [])];

/**
 * Checks a repository whole: every digest against its bytes, and that whatever its
 * tags reach is there in the right size, documents as documents and blobs as blobs.
 *
 * @returns What is wrong, one line each.
 */
export function repositoryFaults(registry: TestRegistry, name: string): string[] {
  const { blobs, manifests, tags } = registry.repository(name);
  const faults: string[] = [];
  for (const [digest, bytes] of blobs)
    if (sha256(bytes) !== digest) faults.push(`${digest}: other bytes`);
  const visit = ({ mediaType, digest, size }: any): void => {
    const document = manifests.get(digest);
    const bytes = DOCUMENT.test(mediaType) ? document?.bytes : blobs.get(digest);
    if (!bytes) faults.push(`${digest}: missing`);
    else if (bytes.length !== size) faults.push(`${digest}: ${bytes.length} bytes`);
    if (!document || bytes !== document.bytes) return;
    if (document.mediaType !== mediaType) faults.push(`${digest}: stored as ${document.mediaType}`);
    const text = Buffer.from(document.bytes).toString();
    for (const child of children(JSON.parse(text))) visit(child);
  };
  for (const [tag, digest] of tags) {
    const { mediaType, bytes } = manifests.get(digest) ?? {};
    if (bytes) visit({ mediaType, digest, size: bytes.length });
    else faults.push(`${tag}: nothing there`);
  }
  return faults;
}

/** Runs the command that a hint names, as a shell reads it. */
export async function runHint(hint: string, binary: string, stdin = ""): Promise<number> {
  const command = hint.slice(hint.indexOf("cacheport ") + 10);
  const child = Bun.spawn(["sh", "-c", `"$0" ${command}`, binary], {
    env: { PATH: process.env["PATH"], HOME: "/nonexistent" },
    stdin: Buffer.from(stdin),
    stdout: "ignore",
    stderr: "ignore",
  });
  return await child.exited;
}
