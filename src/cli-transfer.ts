/** How commands that move content report what they did. */
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import type { TransferCounts } from "./copy.ts";
import type { Descriptor } from "./descriptor.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { IMPORT_LIMIT } from "./inspect.ts";
import type { Location } from "./location.ts";
import { formatFields } from "./cli-table.ts";
import { jsonText } from "./cli-text.ts";
import { formatBytes } from "./units.ts";

/** The JSON value of `convert`, `copy`, `merge` and `prune`. */
export interface TransferResult {
  mediaType: string | null;
  digest: string | null;
  size: number;
  /** Null for what is no cache. */
  shape: string | null;
  names: string[];
  blobs: TransferCounts;
}

/** Puts a result together; without a descriptor nothing was written. */
export function transferResult(
  descriptor: Descriptor | undefined,
  shape: string | null,
  names: string[],
  blobs: TransferCounts,
): TransferResult {
  return {
    mediaType: descriptor?.mediaType ?? null,
    digest: descriptor?.digest ?? null,
    size: descriptor?.size ?? 0,
    shape,
    names,
    blobs,
  };
}

/**
 * Prints a result: on standard output, or as a note where the content itself goes
 * there.
 */
export async function printTransfer(
  context: CommandContext,
  target: Location,
  value: object,
  text: () => string,
): Promise<void> {
  if (target.kind === "stream") {
    context.note(context.json ? jsonText(value) : text().trimEnd().split("\n"));
  } else {
    await context.result(value, text);
  }
}

/** A result in lines for people. */
export function formatTransfer(
  result: TransferResult & { dryRun?: boolean },
  fields: readonly (readonly [string, string | undefined])[],
  { colors }: CommandContext,
): string {
  const { copied, skipped, bytes } = result.blobs;
  return formatFields(
    [
      ...fields,
      ["digest", result.digest ?? undefined],
      ["names", result.names.join(", ") || undefined],
      [
        "blobs",
        result.dryRun
          ? undefined
          : `${copied} copied (${formatBytes(bytes)}), ${skipped} there already`,
      ],
    ],
    { colors },
  );
}

/** Warns of the documents of a cache that are too large for BuildKit to import. */
export function noteImportLimit(
  context: CommandContext,
  manifest: Descriptor,
  config: Descriptor,
): void {
  const documents = { manifest, "cache config": config };
  for (const [what, { digest, size }] of Object.entries(documents)) {
    if (size <= IMPORT_LIMIT) continue;
    context.note(
      `The ${what} ${digest} has ${formatBytes(size)} and BuildKit imports none over 1 MiB; cacheport prune makes a cache smaller`,
    );
  }
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
 * Completes a hint that names a command: with the source that the user wrote and
 * the options without which it would not get there.
 *
 * @param source The source's text, for the target that the hint names.
 */
export function completeHint(
  error: unknown,
  source: (target: string) => string,
  args: Arguments<SharedFlag, SharedValue>,
  platform?: string,
): unknown {
  if (!isCacheportError(error, "REGISTRY_REJECTED")) return error;
  const hint = error.hint?.replace(/ SRC (\S+)(.*)$/, (_, target, rest) => {
    const options = [
      ...(platform === undefined ? [] : ["--platform", shellWord(platform)]),
      ...REPEATED_OPTIONS.flatMap((name) => {
        const value = args.value(name);
        return value === undefined ? [] : [`--${name}`, shellWord(value)];
      }),
      ...REPEATED_FLAGS.filter((name) => args.flag(name)).map((name) => `--${name}`),
    ];
    const words = [shellWord(source(target)), `${target}${rest}`, ...options];
    return ` ${words.join(" ")}`;
  });
  return new CacheportError(error.code, error.message, { hint, cause: error });
}

/** A word as a shell reads it. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
