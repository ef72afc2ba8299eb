/** How commands that move content report what they did. */
import type { CommandContext } from "./cli-command.ts";
import type { TransferCounts } from "./copy.ts";
import type { Descriptor } from "./descriptor.ts";
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
