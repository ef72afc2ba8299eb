/**
 * The rule for documents of every kind: whatever is copied has with it all that it lists,
 * or the copy fails; and what verify calls sound is. The generator knows what each of its
 * documents lists, so the walk that checks it reads no document at all.
 */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { ContentReader } from "../src/content-store.ts";
import { copyContent } from "../src/copy.ts";
import type { Digest } from "../src/digest.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { CacheportError } from "../src/errors.ts";
import { LayoutDirectory, LayoutDirectoryWriter } from "../src/layout-directory.ts";
import { noProgress } from "../src/progress.ts";
import { verifyStore } from "../src/verify.ts";
import { walk } from "../src/walk.ts";
import { cacheport } from "./helpers/binary.ts";
import { blobFile, writeLayout } from "./helpers/layout.ts";
import { random as startRandom } from "./helpers/random.ts";
import { tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

type Random = ReturnType<typeof startRandom>;

const OCI = "application/vnd.oci.";
const DOCKER = "application/vnd.docker.distribution.";
const INDEXES = [`${OCI}image.index.v1+json`, `${DOCKER}manifest.list.v2+json`];
const MANIFESTS = [`${OCI}image.manifest.v1+json`, `${DOCKER}manifest.v2+json`];
const ARTIFACTS = [
  `${OCI}artifact.manifest.v1+json`,
  "application/vnd.cncf.oras.artifact.manifest.v1+json",
];
const STRANGE = [
  "",
  "application/octet-stream",
  "application/json",
  "text/plain",
  `${OCI}image.manfest.v1+json`,
  `${OCI}image.manifest.v2+json`,
  "application/vnd.example.thing.v1+json",
];
const LAYERS = [
  `${OCI}image.layer.v1.tar`,
  `${OCI}image.layer.v1.tar+gzip`,
  "application/vnd.docker.image.rootfs.diff.tar.gzip",
  "application/vnd.in-toto+json",
  "application/json",
  "text/plain",
  "",
];

interface Described {
  mediaType?: string;
  digest: string;
  size: number;
  data?: string;
}

/** A layout, and what each document in it lists. */
class Generated {
  readonly layout = tempFolder();
  readonly lists = new Map<string, string[]>();
  /** Bytes that a descriptor embeds: content that need not be there as a blob. */
  readonly embedded = new Map<string, Buffer>();
  readonly #random: Random;
  readonly #made: Described[] = [];
  #next = 0;

  constructor(seed: number) {
    this.#random = startRandom(seed);
    const roots = Array.from({ length: 1 + this.#random.below(2) }, () =>
      this.#announce(this.#document(1 + this.#random.below(3))),
    );
    writeLayout(
      this.layout,
      roots.map((root, n) => this.#named(root, `root-${n}`)),
    );
    this.#damage();
  }

  get roots(): string[] {
    return JSON.parse(readFileSync(join(this.layout, "index.json"), "utf8")).manifests.map(
      ({ digest }: Described) => digest,
    );
  }

  /** All that the roots reach, told from what was generated. */
  closure(): Set<string> {
    const found = new Set<string>();
    const rest = [...this.roots];
    for (let digest = rest.pop(); digest !== undefined; digest = rest.pop()) {
      if (found.has(digest)) continue;
      found.add(digest);
      rest.push(...(this.lists.get(digest) ?? []));
    }
    return found;
  }

  /** The bytes of content that is whole here; undefined for any other. */
  sound(digest: string): Buffer | undefined {
    const path = blobFile(this.layout, digest);
    const bytes = existsSync(path) ? readFileSync(path) : this.embedded.get(digest);
    return bytes && sha256(bytes) === digest ? bytes : undefined;
  }

  #named(descriptor: Described, name: string): object {
    return { ...descriptor, annotations: { "org.opencontainers.image.ref.name": name } };
  }

  #put(content: object | string): Described {
    const bytes = Buffer.from(typeof content === "string" ? content : JSON.stringify(content));
    const digest = sha256(bytes);
    const path = blobFile(this.layout, digest);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes);
    return { digest, size: bytes.length };
  }

  #blob(mediaType = this.#random.pick(LAYERS)): Described {
    const shared = this.#random.below(3) === 0;
    return { mediaType, ...this.#put(`content ${shared ? 0 : this.#next++}`) };
  }

  /** A new document, or one that another lists already. */
  #document(depth: number): Described {
    if (this.#made.length > 0 && this.#random.below(4) === 0) return this.#random.pick(this.#made);
    const made = this.#make(depth);
    this.#made.push(made);
    return made;
  }

  #make(depth: number): Described {
    const random = this.#random;
    const kind = random.below(depth > 0 ? 10 : 7);
    if (kind >= 7) return this.#index(depth);
    if (kind < 4) return this.#manifest();
    if (kind === 4) {
      const type = random.pick(ARTIFACTS);
      const blobs = [this.#blob(), this.#blob()];
      return this.#list({ mediaType: type, blobs }, blobs, type);
    }
    if (kind === 5) {
      const layers = [this.#blob(), this.#blob()];
      const fsLayers = layers.map(({ digest }) => ({ blobSum: digest }));
      return this.#list({ schemaVersion: 1, fsLayers }, layers, `${DOCKER}manifest.v1+prettyjws`);
    }
    return this.#strange();
  }

  /** A document of a type that nobody knows, which lists content in its own way. */
  #strange(): Described {
    const random = this.#random;
    const children = [this.#blob(), this.#blob("text/plain")];
    const digests = children.map(({ digest }) => digest);
    const type = random.pick(["application/vnd.example.thing.v1+json", "application/x.unknown"]);
    const document = random.pick<object>([
      { mediaType: type, things: children },
      { schemaVersion: 2, mediaType: type, config: children[0], layers: [children[1]] },
      { mediaType: type, parts: { a: { b: digests } } },
      { mediaType: MANIFESTS[0], config: children[0], layers: [], more: [children[1]] },
      { mediaType: INDEXES[0], manifests: [children[0]], Manifests: [children[1]] },
    ]);
    return this.#list(document, children, type);
  }

  #manifest(): Described {
    const random = this.#random;
    const type = random.pick(MANIFESTS);
    const config = this.#blob(`${OCI}empty.v1+json`);
    const layers: Described[] = Array.from({ length: random.below(4) }, () => this.#blob());
    const children = [config, ...layers];
    if (random.below(5) === 0) {
      const bytes = Buffer.from(`embedded ${this.#next++}`);
      const digest = sha256(bytes);
      const embedded = { digest, size: bytes.length, data: bytes.toString("base64") };
      this.embedded.set(digest, bytes);
      layers.push({ mediaType: "text/plain", ...embedded });
      children.push(embedded);
    }
    const mediaType = random.below(4) === 0 ? undefined : type;
    const document = { schemaVersion: 2, mediaType, config, layers, n: this.#next++ };
    if (random.below(6) > 0 || this.#made.length === 0) return this.#list(document, children, type);
    const subject = random.pick(this.#made);
    return this.#list({ ...document, subject }, [...children, subject], type);
  }

  #index(depth: number): Described {
    const random = this.#random;
    const type = random.pick(INDEXES);
    const mediaType = random.below(4) === 0 ? undefined : type;
    const manifests = Array.from({ length: 1 + random.below(3) }, () =>
      random.below(5) === 0 ? this.#blob() : this.#announce(this.#document(depth - 1)),
    );
    // One child stands there several times.
    if (random.below(3) === 0) manifests.push(manifests[0] as Described);
    return this.#list({ schemaVersion: 2, mediaType, manifests, n: this.#next++ }, manifests, type);
  }

  #list(document: object, children: readonly Described[], mediaType: string): Described {
    const { digest, size } = this.#put(document);
    this.lists.set(
      digest,
      children.map((child) => child.digest),
    );
    return { mediaType, digest, size };
  }

  /** A descriptor as it is, or with a type that is missing, empty, misspelt, unknown or another's. */
  #announce({ mediaType, ...rest }: Described): Described {
    const random = this.#random;
    const other = random.pick([...STRANGE, ...MANIFESTS, ...INDEXES, ...ARTIFACTS]);
    switch (random.below(8)) {
      case 0:
        return rest;
      case 1:
      case 2:
        return { mediaType: other, ...rest };
      default:
        return { ...(mediaType !== undefined && { mediaType }), ...rest };
    }
  }

  /** Now and then something is missing, or has other bytes. */
  #damage(): void {
    const random = this.#random;
    if (random.below(3) > 0) return;
    const digest = random.pick([...this.closure()]);
    const path = blobFile(this.layout, digest);
    if (!existsSync(path)) return;
    if (random.below(2) === 0) rmSync(path);
    else {
      const bytes = readFileSync(path);
      bytes[random.below(bytes.length)]! ^= 1;
      chmodSync(path, 0o644);
      writeFileSync(path, bytes);
    }
  }
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Copies all entries of a layout. @returns Whether it said that all went well */
async function copyAll(from: string, to: string): Promise<boolean> {
  const source = await LayoutDirectory.open(from);
  const writer = await LayoutDirectoryWriter.open(to, { create: true });
  try {
    const roots = (await source.list()).map(({ descriptor, refName }) => ({
      descriptor,
      names: [{ kind: "set" as const, name: { refName } }],
    }));
    const options = { limits: DEFAULT_LIMITS, jobs: 2, progress: noProgress };
    await copyContent(source, roots, writer, options);
    return true;
  } catch (error) {
    if (!(error instanceof CacheportError)) throw error;
    expect(error.exitCode).toBe(4);
    return false;
  } finally {
    await writer.close();
  }
}

const ROUNDS = 600;

describe("whatever the documents are", () => {
  test("a copy has all that the source had, or fails; and verify says ok only of what is whole", async () => {
    const outcomes = { copied: 0, refused: 0, sound: 0, unsound: 0 };
    for (let seed = 1; seed <= ROUNDS; seed++) {
      const generated = new Generated(seed);
      const wanted = [...generated.closure()];
      const target = join(tempFolder(), "target");
      if (await copyAll(generated.layout, target)) {
        outcomes.copied++;
        for (const digest of wanted) {
          const bytes = generated.sound(digest);
          if (!bytes) continue;
          const path = blobFile(target, digest);
          if (!existsSync(path) || !readFileSync(path).equals(bytes))
            throw new Error(`seed ${seed}: ${digest} was left behind`);
        }
      } else {
        outcomes.refused++;
      }
      const store = await LayoutDirectory.open(generated.layout);
      const { ok } = await verifyStore(store, undefined, {
        limits: DEFAULT_LIMITS,
        folder: generated.layout,
        jobs: 1,
      });
      if (!ok) outcomes.unsound++;
      else {
        outcomes.sound++;
        const lost = wanted.find((digest) => !generated.sound(digest));
        if (lost) throw new Error(`seed ${seed}: verify says ok, and ${lost} is not whole`);
      }
    }
    for (const count of Object.values(outcomes)) expect(count).toBeGreaterThan(ROUNDS / 20);
  });

  test("each document is read once, however often it is listed", async () => {
    for (let seed = 1; seed <= 100; seed++) {
      const { layout } = new Generated(seed);
      const store = await LayoutDirectory.open(layout);
      const reads = new Map<Digest, number>();
      const counting: ContentReader = {
        location: layout,
        stat: (descriptor) => store.stat(descriptor),
        open: (descriptor) => store.open(descriptor),
        locate: (descriptor) => store.locate(descriptor),
        read(descriptor, limit) {
          const { digest } = descriptor;
          reads.set(digest, (reads.get(digest) ?? 0) + 1);
          return store.read(descriptor, limit);
        },
      };
      const roots = (await store.list()).map(({ descriptor }) => descriptor);
      await walk(counting, roots, { limits: DEFAULT_LIMITS, onBroken: () => {} });
      // Twice where one says that it is a document, and another says too little.
      expect(Math.max(0, ...reads.values())).toBeLessThanOrEqual(2);
    }
  });

  test("the command does the same, into a folder and into a registry", async () => {
    const registry = await TestRegistry.start({ lenient: true });
    try {
      const outcomes = { folder: 0, registry: 0 };
      for (let seed = 1; seed <= 30; seed++) {
        const generated = new Generated(seed);
        const folder = join(tempFolder(), "target");
        const toFolder = await cacheport(["copy", "--all", generated.layout, folder]);
        const name = `rule/${seed}`;
        const toRegistry = await cacheport([
          "copy",
          "--all",
          generated.layout,
          `${registry.domain}/${name}`,
        ]);
        const { blobs, manifests } = registry.repository(name);
        for (const digest of generated.closure()) {
          if (!generated.sound(digest)) continue;
          if (toFolder.code === 0) expect(existsSync(blobFile(folder, digest))).toBe(true);
          if (toRegistry.code === 0)
            expect([seed, digest, blobs.has(digest) || manifests.has(digest)]).toEqual([
              seed,
              digest,
              true,
            ]);
        }
        if (toFolder.code === 0) outcomes.folder++;
        else expect(toFolder.code).toBe(4);
        if (toRegistry.code === 0) outcomes.registry++;
      }
      expect(outcomes.folder).toBeGreaterThan(3);
      expect(outcomes.registry).toBeGreaterThan(3);
    } finally {
      registry.stop();
    }
  });
});
