/** How commands that move content report what they did. */
import type { CommandContext } from "./command.ts";
import type { TransferCounts } from "./copy.ts";
import type { Descriptor } from "./descriptor.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import { formatFields } from "./table.ts";
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
    context.note(context.json ? JSON.stringify(value) : text().trimEnd());
  } else {
    await context.result(value, text);
  }
}

/** A result in lines for people. */
export function formatTransfer(
  result: TransferResult,
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
        `${copied} copied (${formatBytes(bytes)}), ${skipped} there already`,
      ],
    ],
    { colors },
  );
}

/** Puts the source that the user wrote into a hint that names a command for it. */
export function nameSource(error: unknown, source: string): unknown {
  if (
    !isCacheportError(error, "REGISTRY_REJECTED") ||
    !error.hint?.includes(" SRC ")
  )
    return error;
  const hint = error.hint.replace(" SRC ", ` ${source} `);
  return new CacheportError(error.code, error.message, { hint, cause: error });
}
