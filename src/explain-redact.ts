/**
 * Values of builds as they may be shown: secrets never, others cut.
 *
 * Provenance holds environment variables and arguments in clear.
 */
import type { Build } from "./explain-build.ts";
import { isJsonObject } from "./go-json.ts";

/** What stands where a value is not shown. */
export const HIDDEN = "(hidden)";
/** Characters of a value that are shown. */
const SHOWN = 60;
/** Shorter values are too common to look for in other texts. */
const MIN_SECRET = 4;

const SECRET_NAME =
  /pass(?:wd|word|phrase)?|secret|token|credential|private|auth(?!or)|cookie|session|signature|dsn|connection_?string|(?:^|[_-])(?:key|pwd|pw|pat|cert)(?:$|[_-])|(?:api|access|account|signing|encryption|ssh|gpg)_?key/i;

/** Secrets that give themselves away by what is around them. */
const SECRET_TEXTS: readonly [RegExp, string][] = [
  [/(:\/\/[^\s/:@]*:)[^\s/@]+(@)/g, `$1${HIDDEN}$2`],
  [/\b(Bearer|Basic|token)(\s+)[\w.~+/-]{8,}=*/gi, `$1$2${HIDDEN}`],
  [
    /([\w-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key)[\w-]*["']?\s*[=:]\s*["']?)[^\s"'&;|]+/gi,
    `$1${HIDDEN}`,
  ],
  [
    /\b(?:gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|AKIA[A-Z0-9]{12,}|xox[abp]-[\w-]{10,}|npm_\w{20,})/g,
    HIDDEN,
  ],
];

/** Tells whether the name of a variable looks like that of a secret. */
export function isSecretName(name: string): boolean {
  return SECRET_NAME.test(name);
}

/** Shows values of some builds. */
export class Redactor {
  readonly #all: boolean;
  readonly #secrets: readonly string[];

  /** @param all Show no value at all. */
  constructor(builds: readonly Build[], all: boolean = false) {
    this.#all = all;
    const secrets = new Set<string>();
    for (const build of builds)
      for (const [name, value] of variables(build))
        if (isSecretName(name) && value.length >= MIN_SECRET) secrets.add(value);
    // Longer ones first: one may be part of another.
    this.#secrets = [...secrets].toSorted((a, b) => b.length - a.length);
  }

  /** The value of a variable. */
  value(name: string, value: string): string {
    if (this.#all || isSecretName(name)) return HIDDEN;
    return cut(this.#mask(value));
  }

  /** A text that may hold secrets, as a command, cut. */
  text(text: string): string {
    return this.#all ? HIDDEN : cut(this.#mask(text));
  }

  /** An instruction as it stands in the Dockerfile, whole but for the secrets in it. */
  instruction(text: string): string {
    return this.#mask(text);
  }

  #mask(text: string): string {
    let masked = text;
    for (const secret of this.#secrets) masked = masked.replaceAll(secret, HIDDEN);
    for (const [pattern, by] of SECRET_TEXTS) masked = masked.replaceAll(pattern, by);
    return masked;
  }
}

/** Cuts a value; line feeds would break a line of output. */
function cut(text: string): string {
  const flat = text.replaceAll(/\r?\n/g, "\\n");
  return flat.length > SHOWN ? `${flat.slice(0, SHOWN - 1).toWellFormed()}…` : flat;
}

/** Environment variables of all steps, and build arguments. */
function* variables({ steps, args }: Build): Generator<[name: string, value: string]> {
  for (const [name, value] of Object.entries(args)) yield [name.replace(/^build-arg:/, ""), value];
  for (const { kind, op } of steps) {
    const meta = op["meta"];
    if (kind !== "exec" || !isJsonObject(meta) || !Array.isArray(meta["env"])) continue;
    for (const entry of meta["env"]) {
      if (typeof entry !== "string") continue;
      const at = entry.indexOf("=");
      if (at > 0) yield [entry.slice(0, at), entry.slice(at + 1)];
    }
  }
}
