/**
 * Content keys: the digest of what a step takes from an input, as BuildKit computes
 * it from the files alone.
 *
 * Source: BuildKit cache/contenthash/checksum.go (Checksum, includedPaths,
 * getFollowLinks), solver/llbsolver/ops/opsutils/contenthash.go. How the files of a
 * wildcard are put together changed with BuildKit 0.26, so there are two forms.
 */
import { createHasher, digestOf } from "./digest.ts";
import { isFilter } from "./explain-keys.ts";
import type { ContentSelector } from "./explain-keys.ts";
import { compileWildcard, PatternList } from "./explain-patterns.ts";
import type { ParentMatches } from "./explain-patterns.ts";
import { EMPTY_DIGEST } from "./explain-tree.ts";
import type { FileTree, TreeEntry } from "./explain-tree.ts";
import { posix } from "./paths.ts";

/** Links that are followed for one path. */
const MAX_LINKS = 255;

/** What the key of one input is in both forms; one of them where they agree. */
export interface ContentDigests {
  /** BuildKit up to 0.25. */
  old: string;
  /** BuildKit since 0.26. */
  new: string;
}

/** The forms of a content key, each once. */
export function contentForms({ old, new: recent }: ContentDigests): string[] {
  return old === recent ? [old] : [old, recent];
}

/**
 * The content key of what selectors take from a tree; undefined where a path that has
 * to be there is not.
 *
 * @param selectors None for the whole tree.
 */
export function contentKey(
  tree: FileTree,
  selectors: readonly ContentSelector[],
): ContentDigests | undefined {
  const whole = { path: "/", followLinks: false, wildcard: false, include: [], exclude: [] };
  const sums = (selectors.length === 0 ? [whole] : selectors).map((one) => checksum(tree, one));
  const found = sums.filter((sum) => sum !== undefined);
  if (found.length < sums.length) return undefined;
  return {
    old: digestOf(found.map((sum) => sum.old).join("\0")),
    new: digestOf(found.map((sum) => sum.new).join("\0")),
  };
}

/** The checksum of what one selector takes; undefined where a plain path is not there. */
export function checksum(tree: FileTree, selector: ContentSelector): ContentDigests | undefined {
  const path = keyPath(selector.path);
  if (!isFilter(selector)) {
    const digest = pathChecksum(tree, path, selector.followLinks);
    return digest === undefined ? undefined : { old: digest, new: digest };
  }
  const included = includedPaths(tree, selector, path).map((one) => {
    // Links are followed at the top alone, as COPY does.
    if (!selector.followLinks || !one.isTop || one.entry.type !== "symlink") return one;
    return { ...one, digest: pathChecksum(tree, one.path, true) ?? one.digest };
  });
  const [first] = included;
  if (!first) return { old: EMPTY_DIGEST, new: EMPTY_DIGEST };
  if (included.length === 1 && posix.basename(path) === posix.basename(first.path))
    return { old: first.digest, new: first.digest };
  const base = selector.wildcard ? splitWildcard(path) : path;
  return {
    old: digestOf(included.map((one) => posix.basename(one.path) + one.digest).join("\0")),
    new: digestOf(
      included
        .map((one) => one.path.slice(base.length).replaceAll("/", "\0") || "\0")
        .map((key, at) => key + (included[at]?.digest ?? ""))
        .join(""),
    ),
  };
}

/** A path as a key: absolute and clean, the root as the empty text. */
function keyPath(path: string): string {
  const joined = posix.join("/", path).replace(/(.)\/$/, "$1");
  return joined === "/" ? "" : joined;
}

/** The part of a path before the first element with a wildcard. */
function splitWildcard(path: string): string {
  const parts = path.split("/");
  const at = parts.findIndex((part) => /[*?[]/.test(part.replace(/\\[^]/g, "")));
  return (at < 0 ? parts : parts.slice(0, at)).join("/");
}

function pathChecksum(tree: FileTree, path: string, followLast: boolean): string | undefined {
  const resolved = followLinks(tree, path, followLast);
  return resolved === undefined ? undefined : treeChecksum(tree, resolved);
}

/** The checksum of a file, or of a directory with all that is in it. */
function treeChecksum(tree: FileTree, path: string): string | undefined {
  const entry = tree.entry(path);
  if (!entry) return undefined;
  if (entry.type !== "directory") return entry.digest();
  const hasher = createHasher();
  const encoder = new TextEncoder();
  hasher.update(encoder.encode(`\0${entry.digest()}`));
  for (const name of tree.children(path)) {
    const below = treeChecksum(tree, `${path}/${name}`);
    if (below !== undefined) hasher.update(encoder.encode(`\0${name}${below}`));
  }
  return hasher.digest();
}

/**
 * Where a path leads to when the links on its way are followed; undefined where it
 * leads nowhere.
 *
 * @param followLast Follow a link at the end as well.
 */
export function followLinks(tree: FileTree, path: string, followLast: boolean): string | undefined {
  let links = 0;
  const walk = (from: string, parts: readonly string[], follow: boolean): string | undefined => {
    let at = from;
    for (const [index, part] of parts.entries()) {
      if (part === "..") at = at.slice(0, Math.max(0, at.lastIndexOf("/")));
      if (part === ".." || part === "." || part === "") continue;
      const next = `${at}/${part}`;
      const entry = tree.entry(next);
      if (!entry) return undefined;
      if (entry.type !== "symlink" || (index === parts.length - 1 && !follow)) {
        at = next;
        continue;
      }
      if (++links > MAX_LINKS) return undefined;
      const target = entry.link.startsWith("/") ? "" : at;
      const resolved = walk(target, partsOf(entry.link), true);
      if (resolved === undefined) return undefined;
      at = resolved;
    }
    return at;
  };
  return walk("", partsOf(path), followLast);
}

/** The elements of a path, of which none is empty. */
function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "");
}

/** A path that a selector takes. */
export interface IncludedPath {
  /** As the selector spells it, links before it not resolved. */
  path: string;
  entry: TreeEntry;
  digest: string;
  /** What the selector itself names, not what is below it. */
  isTop: boolean;
}

interface Header extends IncludedPath {
  included: boolean;
  includes: ParentMatches;
  excludes: ParentMatches;
}

/**
 * The files that wildcards or patterns take, and the headers of the directories that
 * they need, in the order in which they count.
 */
export function includedPaths(
  tree: FileTree,
  selector: ContentSelector,
  path: string = keyPath(selector.path),
): IncludedPath[] {
  const include = selector.include.length > 0 ? new PatternList(selector.include) : undefined;
  const exclude = selector.exclude.length > 0 ? new PatternList(selector.exclude) : undefined;
  const matches = selector.wildcard ? compileWildcard(path) : undefined;
  const skipsRoot = path === "" && selector.path.endsWith("/");
  const prefix = selector.wildcard ? splitWildcard(path) : path;
  const resolved = followLinks(tree, prefix, selector.wildcard);
  if (resolved === undefined) return [];
  const found: IncludedPath[] = [];
  const parents: Header[] = [];
  let lastMatch = "";

  /** Where a path stands for the patterns; undefined where no wildcard has taken it. */
  const candidate = (name: string): string | undefined => {
    if (!matches) return name.slice(path.length + 1);
    if (lastMatch === "" || !name.startsWith(`${lastMatch}/`)) {
      if (!matches(name)) return undefined;
      lastMatch = name;
    }
    return name.slice(lastMatch.length + 1);
  };

  const visit = (name: string, real: string): void => {
    const entry = tree.entry(real);
    if (!entry) return;
    while (parents.length > 0 && !name.startsWith(`${parents.at(-1)?.path}/`)) parents.pop();
    const isDirectory = entry.type === "directory";
    const relative = isDirectory && name === path && skipsRoot ? undefined : candidate(name);
    if (relative !== undefined) {
      const parent = parents.at(-1);
      const included = include?.match(relative, parent?.includes);
      const excluded = exclude?.match(relative, parent?.excludes);
      const isIncluded = included?.isMatch !== false && excluded?.isMatch !== true;
      if (isIncluded || isDirectory) {
        const one = { path: name, entry, digest: entry.digest(), isTop: relative === "" };
        if (isIncluded) {
          for (const header of parents)
            if (!header.included) {
              found.push(header);
              header.included = true;
            }
          found.push(one);
        }
        if (isDirectory)
          parents.push({
            ...one,
            included: isIncluded,
            includes: included?.matches ?? [],
            excludes: excluded?.matches ?? [],
          });
      }
    }
    if (isDirectory)
      for (const child of tree.children(real)) visit(`${name}/${child}`, `${real}/${child}`);
  };
  visit(prefix, resolved);
  return found;
}
