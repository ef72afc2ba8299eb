/**
 * The challenges by which a registry says how it wants to be asked.
 *
 * Source: RFC 9110, section 11.6.1 (WWW-Authenticate); distribution,
 * docs/spec/auth/token.md.
 */

/** One way to authenticate that a server offers. */
export interface Challenge {
  /** In lower case: `bearer`, `basic`. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = /[\w!#$%&'*+.^`|~-]+/y;
const PARAMETER = /([\w!#$%&'*+.^`|~-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))/y;
const SEPARATORS = /[ \t,]*/y;

/** Longer headers are cut: no registry needs so much. */
const MAX_HEADER = 16 * 1024;

/**
 * Parses a WWW-Authenticate header, which may hold several challenges; what does
 * not follow the grammar ends the parse.
 *
 * @example
 * parseChallenges('Bearer realm="https://a/token",service="r"')[0]?.scheme; // "bearer"
 */
export function parseChallenges(header: string | null): Challenge[] {
  const text = (header ?? "").slice(0, MAX_HEADER);
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  let position = 0;
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = position;
    const found = pattern.exec(text);
    if (found) position += found[0].length;
    return found;
  };
  for (;;) {
    match(SEPARATORS);
    const parameter = match(PARAMETER);
    if (parameter) {
      const [, name = "", quoted, bare] = parameter;
      challenges
        .at(-1)
        ?.parameters.set(name.toLowerCase(), quoted?.replace(/\\(.)/g, "$1") ?? bare ?? "");
      continue;
    }
    const scheme = match(TOKEN);
    if (!scheme) return challenges;
    challenges.push({ scheme: scheme[0].toLowerCase(), parameters: new Map() });
  }
}

/**
 * Brings scopes into one form: actions sorted, those of one resource joined,
 * duplicates gone.
 *
 * @param scopes Texts such as `repository:team/app:push,pull`.
 */
export function normalizeScopes(scopes: readonly string[]): string[] {
  const actions = new Map<string, Set<string>>();
  for (const scope of scopes) {
    const colon = scope.lastIndexOf(":");
    if (colon <= 0) continue;
    const resource = scope.slice(0, colon);
    const known = actions.get(resource) ?? new Set();
    for (const action of scope.slice(colon + 1).split(",")) if (action) known.add(action);
    actions.set(resource, known);
  }
  return [...actions]
    .filter(([, known]) => known.size > 0)
    .map(([resource, known]) => `${resource}:${[...known].toSorted().join(",")}`)
    .toSorted();
}
