/**
 * Which files differ: what a COPY took when the cache was filled is in the layer that
 * it made. Mapped back to where it came from, its content key is that of the record:
 * then the mapping is proven.
 *
 * Source: BuildKit solver/llbsolver/file (what COPY writes where), tonistiigi/fsutil.
 */
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { isCacheportError } from "./errors.ts";
import type { ExplainCache, FileFinder } from "./explain.ts";
import type { BuildStep } from "./explain-build.ts";
import { contentForms, contentKey, followLinks, includedPaths } from "./explain-content.ts";
import { fileActions, goBase, recordDigest, textIn } from "./explain-digest.ts";
import { isFilter } from "./explain-keys.ts";
import type { ContentSelector } from "./explain-keys.ts";
import { compileWildcard } from "./explain-patterns.ts";
import { readLayerTree } from "./explain-layer.ts";
import type { FileChange } from "./explain-reason.ts";
import { MemoryTree, parentOf } from "./explain-tree.ts";
import type { FileTree, TreeEntry } from "./explain-tree.ts";
import { compareBytes } from "./go-json.ts";
import { posix } from "./paths.ts";

/** A cache with the store that its layers are in. */
export interface FileSource extends ExplainCache {
  reader: ContentReader;
}

/** Makes a finder that reads the layers of caches, each at most once. */
export function fileFinder(
  sources: readonly FileSource[],
  { signal }: { signal?: AbortSignal } = {},
): FileFinder {
  const trees = new Map<string, Promise<MemoryTree | undefined>>();
  const treeOf = (source: FileSource, layer: Descriptor): Promise<MemoryTree | undefined> => {
    const known = trees.get(layer.digest);
    if (known) return known;
    const read = readOrNothing(source.reader, layer, signal);
    trees.set(layer.digest, read);
    return read;
  };
  return async ({ cache, record, keys, step: at, input, contents, was }) => {
    const source = sources[cache] as FileSource;
    const step = keys.build.steps[at] as BuildStep;
    const selectors = keys.needs[at]?.[input]?.content;
    const now = contents.tree(at, input);
    const layer = topLayer(source, record);
    if (step.kind !== "file" || !selectors || !now || !layer) return undefined;
    const written = await treeOf(source, layer);
    if (!written) return undefined;
    const found = mapBack(step, input, written, now, selectors, was);
    const archive = archiveOf(step, input, written, now);
    if (archive !== undefined)
      return { proven: false, files: [{ path: archive, change: "content" }], total: 1 };
    if (!found) return undefined;
    const files = compareTrees(found.tree, now, selectors, found.hasModes);
    if (files.length === 0) return undefined;
    return { proven: found.proven, files, total: countFiles(now, selectors) };
  };
}

/** A layer that is not there tells nothing, and is no failure of the explanation. */
async function readOrNothing(
  reader: ContentReader,
  layer: Descriptor,
  signal: AbortSignal | undefined,
): Promise<MemoryTree | undefined> {
  try {
    return await readLayerTree(reader, layer, signal);
  } catch (error) {
    if (isCacheportError(error, "INTERRUPTED") || !isCacheportError(error)) throw error;
    return undefined;
  }
}

/** The layer that a record's step made. */
function topLayer({ config, layers }: FileSource, record: number): Descriptor | undefined {
  const { results, chains } = config.records[record] ?? { results: [], chains: [] };
  const top = results[0]?.layer ?? chains[0]?.layers.at(-1);
  const blob = top === undefined ? undefined : config.layers[top]?.blob;
  return layers.find(({ digest }) => digest === blob);
}

interface Mapped {
  tree: MemoryTree;
  proven: boolean;
  /** The modes in the layer are those of the files that were copied. */
  hasModes: boolean;
}

/** What stands between a copied file and its source. */
interface Copy {
  src: string;
  dest: string;
  wildcard: boolean;
  /** A mode that was given for all files. */
  chmod: boolean;
}

function copiesOf(step: BuildStep, input: number): Copy[] {
  return fileActions(step)
    .filter(({ kind, secondaryInput }) => kind === "copy" && secondaryInput === input)
    .map(({ action }) => ({
      src: textIn(action["src"]),
      dest: textIn(action["dest"]),
      wildcard: action["allowWildcard"] === true && /[*?[]/.test(textIn(action["src"])),
      chmod:
        (typeof action["mode"] === "number" && action["mode"] >= 0) ||
        action["modeStr"] !== undefined,
    }));
}

/**
 * Puts what a step wrote where it came from. Of the ways that are possible the one is
 * taken whose content key is that of the record; else the first, not proven.
 */
function mapBack(
  step: BuildStep,
  input: number,
  written: MemoryTree,
  now: FileTree,
  selectors: readonly ContentSelector[],
  was: string,
): Mapped | undefined {
  const copies = copiesOf(step, input);
  const hasModes = !copies.some(({ chmod }) => chmod);
  let first: Mapped | undefined;
  for (const claimed of [false, true])
    for (const rootMode of ["written", "now"] as const)
      for (const modes of hasModes ? (["written"] as const) : (["now"] as const)) {
        const tree = new MemoryTree();
        const isMapped = copies.every((copy) =>
          addCopy({ tree, written, now, copies, claimed, rootMode, modes }, copy),
        );
        if (!isMapped) continue;
        const key = contentKey(tree, selectors);
        const proven =
          key !== undefined && contentForms(key).some((one) => recordDigest(one, -1) === was);
        if (proven) return { tree, proven, hasModes: true };
        first ??= { tree, proven, hasModes };
      }
  return first;
}

interface Mapping {
  tree: MemoryTree;
  written: MemoryTree;
  now: FileTree;
  copies: readonly Copy[];
  /** Leave out what other copies of the step put into the same directory. */
  claimed: boolean;
  rootMode: "written" | "now";
  modes: "written" | "now";
}

/** Adds the files of one copy to the tree; false where its place cannot be told. */
function addCopy(mapping: Mapping, copy: Copy): boolean {
  const { tree, written } = mapping;
  const dest = clean(copy.dest);
  const src = clean(copy.src);
  if (copy.wildcard) {
    const matches = compileWildcard(goBase(copy.src));
    const folder = parentOf(src);
    if (/[*?[]/.test(folder)) return false;
    for (const name of written.children(dest)) {
      const entry = written.entry(`${dest}/${name}`);
      if (!entry || entry.type === "directory" || !matches(name)) continue;
      tree.set(`${folder}/${name}`, withMode(mapping, entry, `${folder}/${name}`));
    }
    return true;
  }
  const direct = written.entry(dest);
  const inside = `${dest}/${goBase(copy.src)}`;
  const below = written.entry(inside);
  const isDirectoryNow = mapping.now.entry(src)?.type === "directory";
  if (src !== "" && below && below.type !== "directory" && !isDirectoryNow)
    tree.set(src, withMode(mapping, below, src));
  else if (src !== "" && direct && direct.type !== "directory")
    tree.set(src, withMode(mapping, direct, src));
  else if (direct || dest === "") addFolder(mapping, copy, dest, src);
  else return false;
  return true;
}

function addFolder(mapping: Mapping, copy: Copy, dest: string, src: string): void {
  const { tree, written, now, copies, claimed, rootMode } = mapping;
  const others = new Set(
    claimed
      ? copies
          .filter((other) => other !== copy)
          .map(({ src: from, dest: to }) => `${clean(to)}/${goBase(from)}`)
      : [],
  );
  const root = written.entry(dest);
  const own = rootMode === "now" ? now.entry(src) : root;
  if (src !== "" && own) tree.set(src, own);
  const visit = (from: string, to: string): void => {
    for (const name of written.children(from)) {
      const path = `${from}/${name}`;
      const entry = written.entry(path);
      if (!entry || others.has(path)) continue;
      tree.set(`${to}/${name}`, withMode(mapping, entry, `${to}/${name}`));
      if (entry.type === "directory") visit(path, `${to}/${name}`);
    }
  };
  visit(dest, src);
}

/** With --chmod the old mode is lost: that of today is tried. */
function withMode({ modes, now }: Mapping, entry: TreeEntry, path: string): TreeEntry {
  if (modes === "written") return entry;
  const today = now.entry(path);
  const isSame =
    today?.type === "file" &&
    entry.type === "file" &&
    today.size === entry.size &&
    today.contentDigest() === entry.contentDigest();
  return isSame ? today : entry;
}

function clean(path: string): string {
  return posix.join("/", path).replace(/\/+$/, "");
}

/** The archive that an ADD unpacked; undefined for any other copy. */
function archiveOf(
  step: BuildStep,
  input: number,
  written: MemoryTree,
  now: FileTree,
): string | undefined {
  const [add, ...others] = fileActions(step).filter(
    ({ kind, secondaryInput, action }) =>
      kind === "copy" &&
      secondaryInput === input &&
      action["attemptUnpackDockerCompatibility"] === true,
  );
  if (!add || others.length > 0) return undefined;
  const src = clean(textIn(add.action["src"]));
  const dest = clean(textIn(add.action["dest"]));
  const isThere = [dest, `${dest}/${goBase(src)}`].some(
    (path) => written.entry(path)?.type === "file",
  );
  return !isThere && now.entry(src)?.type === "file" ? src.slice(1) : undefined;
}

/** The files that selectors take from a tree, by their paths. */
function selected(tree: FileTree, selectors: readonly ContentSelector[]): Map<string, TreeEntry> {
  const found = new Map<string, TreeEntry>();
  const visit = (path: string, real: string): void => {
    const entry = tree.entry(real);
    if (!entry) return;
    if (path !== "") found.set(path, entry);
    if (entry.type === "directory")
      for (const name of tree.children(real)) visit(`${path}/${name}`, `${real}/${name}`);
  };
  if (selectors.length === 0) visit("", "");
  for (const selector of selectors) {
    if (isFilter(selector)) {
      for (const { path, entry } of includedPaths(tree, selector))
        if (path !== "") found.set(path, entry);
      continue;
    }
    const path = clean(selector.path);
    const real = followLinks(tree, path, selector.followLinks);
    if (real !== undefined) visit(path, real);
  }
  return found;
}

function countFiles(tree: FileTree, selectors: readonly ContentSelector[]): number {
  return selected(tree, selectors)
    .values()
    .filter(({ type }) => type !== "directory")
    .reduce((count) => count + 1, 0);
}

/** What differs between two trees, in the order of the paths. */
function compareTrees(
  was: FileTree,
  is: FileTree,
  selectors: readonly ContentSelector[],
  hasModes: boolean,
): FileChange[] {
  const [old, now] = [selected(was, selectors), selected(is, selectors)];
  const changes: FileChange[] = [];
  for (const path of [...new Set([...old.keys(), ...now.keys()])].toSorted(compareBytes)) {
    const [a, b] = [old.get(path), now.get(path)];
    const shown = path.slice(1);
    if (!a || !b) {
      const [present, tree] = a ? [a, was] : [b as TreeEntry, is];
      // A directory with files in it is told by its files.
      if (present.type === "directory" && tree.children(path).length > 0) continue;
      changes.push({ path: shown, change: a ? "removed" : "added" });
    } else changes.push(...compareEntries(shown, a, b, hasModes));
  }
  return changes;
}

function compareEntries(
  path: string,
  was: TreeEntry,
  is: TreeEntry,
  hasModes: boolean,
): FileChange[] {
  if (was.type !== is.type) return [{ path, change: "type", from: was.type, to: is.type }];
  const changes: FileChange[] = [];
  if (was.type === "file" && (was.size !== is.size || was.contentDigest() !== is.contentDigest()))
    changes.push({ path, change: "content", from: `${was.size} B`, to: `${is.size} B` });
  if (was.link !== is.link) changes.push({ path, change: "link", from: was.link, to: is.link });
  if (hasModes && was.type !== "symlink" && was.mode !== is.mode)
    changes.push({ path, change: "mode", from: was.mode.toString(8), to: is.mode.toString(8) });
  return changes;
}
