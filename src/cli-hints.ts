/**
 * The sentences that tell a user of the command line what to do next, where a failure below
 * has given a code with facts: the one place that knows which command or option helps.
 */
import type { Arguments } from "./cli-command.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import { statSync } from "node:fs";
import { userInfo } from "node:os";
import { CacheportError } from "./errors.ts";
import { dirname } from "./paths.ts";
import type { Remedy } from "./errors.ts";

/** For each remedy its sentence. */
const HINTS: { [Do in Remedy["do"]]: (facts: Extract<Remedy, { do: Do }>) => string } = {
  "raise-document-limit": () =>
    "Raise the limit with --max-document if you trust where it comes from",
  "wait-for-lock": () => "Let the other process end, or wait longer with --lock-timeout",
  "ask-less": () => "Try again later, log in, or lower --jobs",
  "log-in": () =>
    "Log in with docker login, or give --username and --password-stdin; a missing repository may be reported in the same way",
  "trust-certificate": ({ plainHttp }) =>
    `Give its certificate authority with --ca-file, or use --insecure${plainHttp ? " or --plain-http" : ""} if you trust the network`,
  "push-again": () =>
    "Push it again from where it was made, with --check-target, which sends what cannot be read",
  "allow-plain-http": () => "Use --plain-http if you trust the network between here and there",
  "allow-insecure": () => "Use --insecure if you trust the network",
  "allow-private-upload": () => "Use --allow-private-upload if you know that address",
  "choose-port": () => "Give another port with --port, or --port 0 for any that is free",
  "list-names": ({ location }) => `"cacheport ls ${location}" shows what is there`,
  "verify-layout": ({ location }) =>
    `"cacheport verify ${location}" shows everything that is wrong, "cacheport untag" removes a name`,
  "unpack-archive": ({ location }) =>
    `Unpack it first: cacheport copy --all ${location} NEW.tar makes an archive that can be added to`,
  "copy-archive": ({ location }) =>
    `Make an archive of its own first: cacheport copy --all ${location} NEW.tar`,
  "choose-platform": ({ platforms }) =>
    `Whole in it: ${platforms.join(", ")}; copy one of them with --platform ${platforms[0]}`,
  "name-orphan": ({ location, name, digest }) =>
    `A manifest without a name lies there: cacheport tag ${location}@${digest} ${name} gives it the name`,
  "choose-image": () =>
    "Choose one image of it with --platform, or write a type=oci archive, which holds anything",
  "convert-to-cache": ({ location }) =>
    `Make a cache of its own first: cacheport convert ${location} --tag NAME`,
  "convert-layers": () => "Use cacheport convert with --compression",
  "convert-inline-cache": () =>
    "Copy images to a registry or a layout; cacheport convert takes the inline cache of an image",
  "drop-missing": () =>
    "A build with this cache would fail as well: drop what needs the blob with --drop-missing or prune --drop-layer, or export the cache again",
  "write-image-manifest": ({ target }) => imageManifestHint("SRC", target),
};

/** What to do next about a failure; undefined where nobody knows. */
export function hintOf({ hint, remedy, code, cause }: CacheportError): string | undefined {
  if (code === "PERMISSION_DENIED" && hint === undefined && !remedy) {
    const path = (cause as { path?: unknown } | undefined)?.path;
    return typeof path === "string" ? safely(() => ownerHint(path)) : undefined;
  }
  if (!remedy) return hint;
  const sentence = HINTS[remedy.do] as (facts: Remedy) => string;
  return sentence(remedy);
}

/**
 * Whose folder it is that refused a file of this user; undefined where nobody knows.
 *
 * @param path What could not be made, read or written.
 */
export function ownerHint(path: string): string | undefined {
  const { uid, username } = userInfo();
  // 0 may do anything, and systems without users give -1.
  if (uid <= 0) return undefined;
  for (let part = path; ; part = dirname(part)) {
    const stats = statSync(part, { throwIfNoEntry: false });
    if (stats?.uid === uid) return undefined;
    if (stats)
      return `${JSON.stringify(part)} belongs to user ${stats.uid} (mode ${(stats.mode & 0o7777).toString(8)}) and you are ${username} (${uid}): run it as that user, or give the folder to yours`;
    if (dirname(part) === part) return undefined;
  }
}

/** A hint is no reason to fail. */
function safely(make: () => string | undefined): string | undefined {
  try {
    return make();
  } catch {
    return undefined;
  }
}

function imageManifestHint(source: string, target: string, options: readonly string[] = []) {
  const words = ["cacheport convert", source, target, "--to image-manifest", ...options];
  return `Write it as an image manifest: ${words.join(" ")}`;
}

/** Options that a command for another try needs as well. */
const REPEATED_OPTIONS = ["username", "login-host", "ca-file"] as const;
const REPEATED_FLAGS = [
  "password-stdin",
  "insecure",
  "plain-http",
  "allow-private-upload",
] as const;

/**
 * Completes the hint at the command that would get a refused cache into its registry: with
 * the source that the user wrote and the options without which it would not get there.
 *
 * @param source The source's text, for the target that the hint names.
 */
export function completeHint(
  error: unknown,
  source: (target: string) => string,
  args: Arguments<SharedFlag, SharedValue>,
  platform?: string,
): unknown {
  if (!(error instanceof CacheportError) || error.remedy?.do !== "write-image-manifest")
    return error;
  const { target } = error.remedy;
  const options = [
    ...(platform === undefined ? [] : ["--platform", shellWord(platform)]),
    ...REPEATED_OPTIONS.flatMap((name) => {
      const value = args.value(name);
      return value === undefined ? [] : [`--${name}`, shellWord(value)];
    }),
    ...REPEATED_FLAGS.filter((name) => args.flag(name)).map((name) => `--${name}`),
  ];
  const hint = imageManifestHint(shellWord(source(target)), target, options);
  return new CacheportError(error.code, error.message, { hint, cause: error });
}

/** How to be rid of what no name reaches in a place. */
export function gcHint(location: string): string {
  // With its secrets masked it is nothing to paste.
  const place = location.includes("***") ? "" : ` ${shellWord(location)}`;
  return `"cacheport gc${place}" removes what is older than its grace`;
}

/** A word as a shell reads it. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
