/**
 * What a step asks of each of its inputs: the selector of the definition's link, and
 * which paths make up the content key, where the input has one.
 *
 * Source: BuildKit solver/llbsolver/ops/exec.go (getMountDeps), file.go (CacheMap,
 * dedupeSelectors), opsutils/contenthash.go.
 */
import { digestOf } from "./digest.ts";
import type { BuildStep } from "./explain-build.ts";
import { fileActions, numberIn, objectsIn, textIn } from "./explain-digest.ts";
import { compareBytes, isJsonObject } from "./go-json.ts";
import { posix } from "./paths.ts";

/** One path of an input that is looked at, with what narrows it. */
export interface ContentSelector {
  path: string;
  followLinks: boolean;
  wildcard: boolean;
  include: readonly string[];
  exclude: readonly string[];
}

/** What a step asks of one input. */
export interface InputNeed {
  /** A digest, or empty for none. */
  selector: string;
  /** What the content key is made of, an empty list for the whole input; undefined when it has none. */
  content: ContentSelector[] | undefined;
}

/** What a step asks of its inputs, one for each. */
export function inputNeeds(step: BuildStep): InputNeed[] {
  if (step.kind === "exec") return execNeeds(step);
  if (step.kind === "file") return fileNeeds(step);
  return step.inputs.map(() => ({ selector: "", content: undefined }));
}

/** Secret, ssh and tmpfs mounts take nothing from an input. */
const WITHOUT_INPUT = new Set([1, 2, 4]);

function execNeeds({ op, inputs }: BuildStep): InputNeed[] {
  const paths = inputs.map((): string[] => []);
  const hasContent = inputs.map(() => false);
  for (const mount of objectsIn(op["mounts"])) {
    const input = numberIn(mount["input"]);
    const list = paths[input];
    if (!list || WITHOUT_INPUT.has(numberIn(mount["mountType"]))) continue;
    const path = posix.join("/", textIn(mount["selector"]));
    list.push(path);
    const isSafe = numberIn(mount["output"]) === -1 || mount["readonly"] === true || path === "/";
    const wish = numberIn(mount["contentCache"]);
    hasContent[input] = wish === 1 ? true : isSafe && wish !== 2 && mount["dest"] !== "/";
  }
  return paths.map((list, at): InputNeed => {
    const selector = list.length === 0 ? "" : digestOf(list.join("\0"));
    if (!hasContent[at]) return { selector, content: undefined };
    const kept = withoutNested(list);
    if (kept.includes("/")) return { selector, content: [] };
    return { selector, content: kept.map((path) => plainSelector(path, true)) };
  });
}

function plainSelector(path: string, followLinks: boolean): ContentSelector {
  return { path, followLinks, wildcard: false, include: [], exclude: [] };
}

/** Distinct paths in order, without those below another one. */
function withoutNested(paths: readonly string[]): string[] {
  const distinct = [...new Set(paths)];
  return distinct
    .filter(
      (path) =>
        !distinct.some(
          (other) => other !== path && path.startsWith(other.endsWith("/") ? other : `${other}/`),
        ),
    )
    .toSorted(compareBytes);
}

function fileNeeds(step: BuildStep): InputNeed[] {
  const selectors = step.inputs.map((): ContentSelector[] => []);
  const targets = new Set<number>();
  for (const { kind, action, input, secondaryInput } of fileActions(step)) {
    targets.add(input);
    for (const [owner, path] of ownersByName(action["owner"]))
      selectors[owner]?.push(plainSelector(path, true));
    if (kind !== "copy") continue;
    const path = textIn(action["src"]);
    selectors[secondaryInput]?.push({
      path,
      followLinks: action["followSymlink"] === true,
      wildcard: action["allowWildcard"] === true && hasWildcard(path),
      include: texts(action["include_patterns"]),
      exclude: texts(action["exclude_patterns"]),
    });
  }
  return selectors.map((list, at): InputNeed => {
    if (list.length === 0 || targets.has(at)) return { selector: "", content: undefined };
    const paths = list.map(({ path }) => path).toSorted((a, b) => compareBytes(b, a));
    return { selector: digestOf(paths.join("\0")), content: distinctSelectors(list) };
  });
}

function ownersByName(owner: unknown): [input: number, path: string][] {
  if (!isJsonObject(owner)) return [];
  const files = { user: "/etc/passwd", group: "/etc/group" };
  return Object.entries(files).flatMap(([field, path]): [number, string][] => {
    const part = owner[field];
    const user = isJsonObject(part) && isJsonObject(part["User"]) ? part["User"] : {};
    const byName = user["byName"] ?? user["ByName"];
    return isJsonObject(byName) ? [[numberIn(byName["input"]), path]] : [];
  });
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

/** Plain paths once and without those below another one; selectors that filter as they are. */
function distinctSelectors(list: readonly ContentSelector[]): ContentSelector[] {
  const filters = list.filter(isFilter);
  const plain = list.filter((one) => !isFilter(one));
  const pathsOf = (follow: boolean): ContentSelector[] =>
    withoutNested(plain.filter((one) => one.followLinks === follow).map(({ path }) => path)).map(
      (path) => plainSelector(path, follow),
    );
  return [...pathsOf(false), ...pathsOf(true), ...filters].toSorted((a, b) =>
    compareBytes(a.path, b.path),
  );
}

/** Tells whether a selector looks for files itself: by wildcard or by patterns. */
export function isFilter({ wildcard, include, exclude }: ContentSelector): boolean {
  return wildcard || include.length > 0 || exclude.length > 0;
}

/** Tells whether a path has a wildcard that is not escaped. */
export function hasWildcard(path: string): boolean {
  return /[*?[]/.test(path.replace(/\\[^]/g, ""));
}
