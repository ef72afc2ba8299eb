/**
 * Patterns for paths: those of .dockerignore and `--exclude`, and wildcards of COPY.
 *
 * Sources: moby/patternmatcher (rules of .dockerignore, `**`, `!`), Go's path.Match.
 */
import { posix } from "./paths.ts";

/** Which patterns matched a directory: what is below it starts from there. */
export type ParentMatches = readonly boolean[];

interface Pattern {
  isExclusion: boolean;
  matches(path: string): boolean;
}

/** A list of patterns, of which the last that matches decides. */
export class PatternList {
  readonly #patterns: readonly Pattern[];
  /** Some pattern takes back what others matched. */
  readonly hasExclusions: boolean;

  /** @param patterns One a line as in .dockerignore, without comments. */
  constructor(patterns: readonly string[]) {
    this.#patterns = patterns
      .map((pattern) => pattern.trim())
      .filter((pattern) => pattern !== "" && pattern !== "!")
      .map((pattern) => {
        const isExclusion = pattern.startsWith("!");
        return { isExclusion, matches: compilePattern(isExclusion ? pattern.slice(1) : pattern) };
      });
    this.hasExclusions = this.#patterns.some(({ isExclusion }) => isExclusion);
  }

  /**
   * Matches one path, given what matched the directory that it is in.
   *
   * @param path Relative, with forward slashes.
   */
  match(path: string, parent: ParentMatches = []): { isMatch: boolean; matches: ParentMatches } {
    let isMatch = false;
    const matches = this.#patterns.map(({ isExclusion, matches: test }, at) => {
      let own = parent[at] ?? false;
      // An exclusion has a say only where something matched before it, and the other way round.
      if (!own && isExclusion === isMatch) own = test(path);
      if (own) isMatch = !isExclusion;
      return own;
    });
    return { isMatch, matches };
  }
}

/** Compiles one pattern of a list; a leading slash means nothing. */
function compilePattern(written: string): (path: string) => boolean {
  const pattern = posix
    .normalize(written)
    .replace(/^\/+/, "")
    .replace(/(.)\/$/, "$1");
  let expression = "";
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern[at] as string;
    if (character === "*" && pattern[at + 1] === "*") {
      at++;
      if (pattern[at + 1] === "/") at++;
      expression += at + 1 === pattern.length ? ".*" : "(?:.*/)?";
    } else if (character === "*") expression += "[^/]*";
    else if (character === "?") expression += "[^/]";
    else if (character === "\\" && at + 1 < pattern.length) expression += escaped(pattern[++at]);
    else if (character === "[" || character === "]") expression += character;
    else expression += escaped(character);
  }
  // A pattern that begins with `**` and is plain otherwise is a plain end of the path.
  const end = /^\*\*([^*?[\]\\]+)$/.exec(pattern)?.[1];
  if (end !== undefined && !end.startsWith("/")) return (path) => path.endsWith(end);
  return matcher(`^${expression}$`);
}

function escaped(character: string | undefined): string {
  return (character ?? "").replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
}

function matcher(expression: string): (path: string) => boolean {
  try {
    const compiled = new RegExp(expression, "s");
    return (path) => compiled.test(path);
  } catch {
    // What Go refuses as well: such a build was never made.
    return () => false;
  }
}

/** Compiles a wildcard as Go's path.Match reads it: nothing in it matches a slash. */
export function compileWildcard(wildcard: string): (path: string) => boolean {
  let expression = "";
  for (let at = 0; at < wildcard.length; at++) {
    const character = wildcard[at] as string;
    if (character === "*") expression += "[^/]*";
    else if (character === "?") expression += "[^/]";
    else if (character === "\\") expression += escaped(wildcard[++at]);
    else if (character === "[") {
      const end = classEnd(wildcard, at);
      if (end < 0) return () => false;
      const inner = wildcard.slice(at + 1, end);
      const isNegated = inner.startsWith("^");
      const members = (isNegated ? inner.slice(1) : inner).replaceAll(/[[\]^]/g, "\\$&");
      expression += isNegated ? `(?!/)[^${members}]` : `(?!/)[${members}]`;
      at = end;
    } else expression += escaped(character);
  }
  return matcher(`^${expression}$`);
}

/** Where a class of characters ends, -1 where it does not. */
function classEnd(wildcard: string, start: number): number {
  let at = start + 1;
  if (wildcard[at] === "^") at++;
  for (; at < wildcard.length; at++) {
    if (wildcard[at] === "\\") at++;
    else if (wildcard[at] === "]") return at;
  }
  return -1;
}
