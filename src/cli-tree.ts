/** All content below an entry, as a tree. */
import { entryLabel } from "./layout-index.ts";
import type { ContentReader, NamedEntry } from "./content-store.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { formatPlatform } from "./platform.ts";
import { printable } from "./cli-text.ts";
import { formatBytes } from "./units.ts";
import { walk } from "./walk.ts";
import type { ContentNode, WalkOptions } from "./walk.ts";

/** A piece of content and what it lists. */
export interface ContentTree {
  /** The name of a root, null below it. */
  name: string | null;
  /** Its names as `ls` has them, null below it. */
  refName: string | null;
  imageName: string | null;
  digest: Digest;
  mediaType: string;
  /** Bytes. */
  size: number;
  platform: Platform | null;
  /** Why a document could not be read, null when it could. */
  problem: string | null;
  /** For a layer of a cache, the step that made it, where it is known. */
  step?: string;
  /** The document was met before in this tree, and what it lists stands there. */
  repeated: boolean;
  children: ContentTree[];
}

/**
 * Walks below entries, together: what they share is read once. A document that cannot be
 * read shows its problem.
 */
export async function contentTrees(
  reader: ContentReader,
  entries: readonly NamedEntry[],
  options: WalkOptions,
): Promise<ContentTree[]> {
  const problems = new Map<Digest, string>();
  const usable = entries.filter(({ problem }) => problem === undefined);
  const roots = usable.map(({ descriptor }) => descriptor);
  const nodes = await walk(reader, roots, {
    ...options,
    onBroken: ({ digest }, error) => problems.set(digest, error.message),
  });
  const byDigest = new Map(nodes.map((node) => [node.descriptor.digest, node]));
  return entries.map((entry) => buildTree(entry, byDigest, problems));
}

function buildTree(
  entry: NamedEntry,
  byDigest: ReadonlyMap<Digest, ContentNode>,
  problems: ReadonlyMap<Digest, string>,
): ContentTree {
  const { descriptor: root, problem } = entry;
  const names = { refName: entry.refName ?? null, imageName: entry.imageName ?? null };
  if (problem !== undefined) {
    const { mediaType, digest, size } = root;
    const none = { platform: null, repeated: false, children: [] };
    return { name: entryLabel(entry), ...names, digest, mediaType, size, problem, ...none };
  }
  const shown = new Set<Digest>();
  const unnamed = { name: null, refName: null, imageName: null };
  const build = (
    descriptor: Descriptor,
    own: Pick<ContentTree, "name" | "refName" | "imageName">,
  ): ContentTree => {
    const node = byDigest.get(descriptor.digest) as ContentNode;
    // Indexes that share their entries make a tree that has no end in practice.
    const repeated = node.children.length > 0 && shown.has(descriptor.digest);
    shown.add(descriptor.digest);
    return {
      ...own,
      digest: descriptor.digest,
      mediaType: node.descriptor.mediaType,
      size: descriptor.size,
      platform: descriptor.platform ?? null,
      problem: problems.get(descriptor.digest) ?? null,
      repeated,
      children: repeated ? [] : node.children.map((child) => build(child, unnamed)),
    };
  };
  return build(root, { name: entryLabel(entry), ...names });
}

/** Gives the blobs of a tree the names of the steps that made them. */
export function nameTree(
  tree: ContentTree,
  stepOf: (digest: Digest) => string | undefined,
): ContentTree {
  const step = stepOf(tree.digest);
  return {
    ...tree,
    ...(step === undefined ? {} : { step }),
    children: tree.children.map((child) => nameTree(child, stepOf)),
  };
}

/** Draws a tree with lines. */
export function formatTree(tree: ContentTree): string {
  const lines = [describe(tree)];
  const draw = (children: readonly ContentTree[], indent: string): void => {
    for (const [position, child] of children.entries()) {
      const isLast = position === children.length - 1;
      lines.push(`${indent}${isLast ? "└── " : "├── "}${describe(child)}`);
      draw(child.children, `${indent}${isLast ? "    " : "│   "}`);
    }
  };
  draw(tree.children, "");
  return lines.map((line) => `${line}\n`).join("");
}

function describe(tree: ContentTree): string {
  const parts = [tree.digest, formatBytes(tree.size), tree.mediaType || "(no media type)"];
  if (tree.platform) parts.push(formatPlatform(tree.platform));
  if (tree.step !== undefined) parts.push(tree.step);
  if (tree.name !== null) parts.unshift(tree.name);
  if (tree.repeated) parts.push("(as above)");
  if (tree.problem !== null) parts.push(`! ${tree.problem}`);
  return printable(parts.join("  "));
}
