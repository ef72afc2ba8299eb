/**
 * Checks everything that roots reach in a store: every digest, every size, every
 * media type, and the rules of BuildKit for caches. It never stops at a fault: a
 * document that cannot be read is a problem, and the rest is checked all the same.
 */
import { availableParallelism } from "node:os";
import { mapLimit } from "./concurrency.ts";
import type { NamedEntry, Store } from "./content-store.ts";
import { embeddedContent } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { sizeMismatch } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError } from "./errors.ts";
import type { CacheportError } from "./errors.ts";
import { entryLabel } from "./layout-index.ts";
import { isDocumentType } from "./media-types.ts";
import { noProgress } from "./progress.ts";
import type { ProgressReporter } from "./progress.ts";
import { verifyBlob } from "./verify-blobs.ts";
import { verifyDocument } from "./verify-documents.ts";
import { usableEntries, verifyLayoutFiles, verifyNames } from "./verify-layout.ts";
import { Owners } from "./verify-owners.ts";
import { ProblemList } from "./verify-problem.ts";
import type { Problem } from "./verify-problem.ts";
import { walk } from "./walk.ts";
import type { ContentNode, WalkOptions } from "./walk.ts";
import { WorkerPool } from "./blob-threads.ts";

/** How to verify. */
export interface VerifyOptions extends Omit<WalkOptions, "onBroken"> {
  /** Unpack layers and check their diffIDs. */
  deep?: boolean | undefined;
  /** Compare the sizes of blobs alone, without reading them. */
  sizesOnly?: boolean | undefined;
  /** Path of the store when it is a layout folder: what else lies there is noted. */
  folder?: string | undefined;
  progress?: ProgressReporter | undefined;
}

/** What a verification found. */
export interface VerifyResult {
  /** No problem is an error. */
  ok: boolean;
  /** Blobs and documents whose bytes are the right ones. */
  blobs: number;
  /** Bytes of those. */
  bytes: number;
  /** Errors first. */
  problems: Problem[];
}

/**
 * Verifies what a store holds.
 *
 * @param roots The entries to start from; all that the store lists when undefined.
 * @throws {CacheportError} what says nothing of the content: REGISTRY_DENIED,
 *   REGISTRY_FAILED, INTERRUPTED, ...; and what `list` throws
 */
export async function verifyStore(
  store: Store,
  roots: readonly NamedEntry[] | undefined,
  options: VerifyOptions,
): Promise<VerifyResult> {
  const problems = new ProblemList();
  const listing = roots ?? (await store.list());
  const entries = usableEntries(listing, problems);
  verifyNames(entries, problems);
  const nodes = await readAll(store, entries, options, problems);
  verifyRoots(entries, nodes, problems);

  const diffIds = new Map<Digest, Set<Digest>>();
  for (const node of nodes.values()) {
    options.signal?.throwIfAborted();
    await verifyDocument(node, {
      reader: store,
      limits: options.limits,
      problems,
      nodes,
      onDiffId({ digest }, diffId) {
        diffIds.set(digest, (diffIds.get(digest) ?? new Set()).add(diffId));
      },
    });
  }
  const listed = [
    ...entries.map((entry) => entry.descriptor),
    ...[...nodes.values()].flatMap(({ children, subject }) =>
      subject ? [...children, subject] : children,
    ),
  ];
  verifySizes(listed, problems);
  verifyData(listed, problems);

  const documents = [...nodes.values()].filter((node) => node.bytes);
  const blobs = [...nodes.values()].filter(
    (node) => !node.bytes && (node.asBlob || !isDocumentType(node.descriptor.mediaType)),
  );
  const sound = options.sizesOnly
    ? await compareSizes(store, blobs, options, problems)
    : await hashAll(store, blobs, diffIds, options, problems);
  if (options.folder !== undefined) {
    // What a document lists that nobody understands may be anything in the layout.
    const isAll =
      roots === undefined &&
      !problems.has("ENTRY_INVALID", "DOCUMENT_UNKNOWN", "DOCUMENT_TOO_LARGE");
    const reached = new Set(listed.map(({ digest }) => digest));
    await verifyLayoutFiles(store, options.folder, isAll ? reached : undefined, options, problems);
  }
  const good = [...documents.map((node) => node.descriptor), ...sound];
  const found = problems.toSorted();
  const owners = found.length > 0 ? new Owners(entries, nodes.values()) : undefined;
  for (const problem of found)
    if (owners && problem.digest) problem.belongsTo = owners.find(problem.digest);
  return {
    ok: !found.some(({ severity }) => severity === "error"),
    blobs: good.length,
    bytes: good.reduce((sum, { size }) => sum + size, 0),
    problems: found,
  };
}

/** Reads all documents below the entries; what cannot be read is a problem. */
async function readAll(
  store: Store,
  entries: readonly NamedEntry[],
  options: VerifyOptions,
  problems: ProblemList,
): Promise<Map<Digest, ContentNode>> {
  const labels = new Map(entries.map((entry) => [entry.descriptor.digest, entryLabel(entry)]));
  const onBroken = ({ digest }: Descriptor, error: CacheportError): void => {
    const label = labels.get(digest);
    if (label === undefined || !isMissing(error)) {
      // Of a registry that does not give the only root nothing is known.
      if (entries.length === 1 && label !== undefined && isRefusal(error)) throw error;
      problems.addError(error, digest);
      return;
    }
    problems.add(
      "MANIFEST_MISSING",
      digest,
      `${label === null ? "An entry without a name" : `The name "${label}"`} points to ${digest}, which is not in "${store.location}"`,
    );
  };
  const found = new Map<Digest, ContentNode>();
  const add = async (roots: readonly Descriptor[]): Promise<void> => {
    for (const node of await walk(store, roots, { ...options, subjects: true, onBroken })) {
      const known = found.get(node.descriptor.digest);
      if (!known?.bytes) found.set(node.descriptor.digest, node);
    }
  };
  try {
    // All at once: what several entries share is read once.
    await add(entries.map((entry) => entry.descriptor));
    return found;
  } catch (error) {
    if (!isCacheportError(error, "INDEX_TOO_DEEP")) throw error;
  }
  // One by one: a root below which indexes are nested too deeply ends no other's walk.
  for (const { descriptor } of entries) {
    if (found.get(descriptor.digest)?.bytes) continue;
    try {
      await add([descriptor]);
    } catch (error) {
      if (!isCacheportError(error)) throw error;
      onBroken(descriptor, error);
    }
  }
  return found;
}

function isMissing(error: CacheportError): boolean {
  return isCacheportError(error, "BLOB_MISSING", "BLOB_NOT_FOUND");
}

function isRefusal(error: CacheportError): boolean {
  return isCacheportError(error, "REGISTRY_FAILED", "REGISTRY_DENIED");
}

/** Warns of entries that do not say that they are documents. */
function verifyRoots(
  entries: readonly NamedEntry[],
  nodes: ReadonlyMap<Digest, ContentNode>,
  problems: ProblemList,
): void {
  for (const { descriptor } of entries) {
    const document = nodes.get(descriptor.digest)?.document;
    if (!document || isDocumentType(descriptor.mediaType)) continue;
    problems.add(
      "MEDIA_TYPE_MISMATCH",
      descriptor.digest,
      `An entry announces ${descriptor.digest} as ${JSON.stringify(descriptor.mediaType)} and it is ${document.isIndex ? "an index" : "a manifest"}: BuildKit's reset would delete what it lists`,
    );
  }
}

function verifySizes(descriptors: readonly Descriptor[], problems: ProblemList): void {
  const sizes = new Map<Digest, number>();
  for (const { digest, size } of descriptors) {
    const other = sizes.get(digest);
    if (other === undefined) sizes.set(digest, size);
    else if (other !== size) {
      problems.add(
        "DUPLICATE_SIZE",
        digest,
        `Blob ${digest} is listed with ${other} bytes and with ${size}`,
      );
    }
  }
}

function verifyData(descriptors: readonly Descriptor[], problems: ProblemList): void {
  for (const descriptor of descriptors) {
    if (!descriptor.data || embeddedContent(descriptor)) continue;
    const { digest } = descriptor;
    problems.add(
      "DATA_MISMATCH",
      digest,
      `The content that is embedded for ${digest} is other content`,
    );
  }
}

/** Looks at the sizes of blobs; gives those that are there in the right one. */
async function compareSizes(
  store: Store,
  blobs: readonly ContentNode[],
  { jobs, signal }: VerifyOptions,
  problems: ProblemList,
): Promise<Descriptor[]> {
  const queue = blobs.map((node) => node.descriptor);
  const sizes = await mapLimit(queue, jobs ?? availableParallelism(), async (blob) => {
    signal?.throwIfAborted();
    return await store.stat(blob);
  });
  return queue.filter((blob, position) => {
    const size = sizes[position];
    if (size === undefined)
      problems.add(
        "BLOB_MISSING",
        blob.digest,
        `Blob ${blob.digest} is not in "${store.location}"`,
      );
    else if (size !== blob.size) problems.addError(sizeMismatch(blob, size), blob.digest);
    return size === blob.size;
  });
}

/** Hashes blobs on all cores; gives those that are what they should be. */
async function hashAll(
  store: Store,
  blobs: readonly ContentNode[],
  diffIds: ReadonlyMap<Digest, ReadonlySet<Digest>>,
  options: VerifyOptions,
  problems: ProblemList,
): Promise<Descriptor[]> {
  const { signal, deep = false, progress = noProgress } = options;
  const jobs = options.jobs ?? availableParallelism();
  const pool = new WorkerPool(jobs);
  // The largest first, so that no core is left alone with one at the end.
  const queue = blobs.map((node) => node.descriptor).toSorted((a, b) => b.size - a.size);
  progress.expect({
    tasks: queue.length,
    bytes: queue.reduce((sum, { size }) => sum + size, 0),
  });
  try {
    const outcomes = await mapLimit(queue, jobs, async (blob) => {
      const task = progress.start("hash", blob.digest, blob.size);
      const sound = await verifyBlob(blob, {
        reader: store,
        pool,
        problems,
        diffIds: deep ? [...(diffIds.get(blob.digest) ?? [])] : [],
        onBytes: (count) => task.advance(count),
        signal,
      });
      task.end(sound ? "done" : "failed");
      return sound;
    });
    return queue.filter((_, position) => outcomes[position]);
  } finally {
    pool.close();
  }
}
