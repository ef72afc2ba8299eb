/** How commands that move content run, and how they report what they did. */
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import { completeHint } from "./cli-hints.ts";
import type { DroppedResults } from "./cache-prune.ts";
import { formatWritten, TargetBefore } from "./cli-target.ts";
import type { Written } from "./cli-target.ts";
import type { ContentWriter, NameUpdate } from "./content-store.ts";
import type { TransferCounts } from "./copy.ts";
import type { Descriptor } from "./descriptor.ts";
import { IMPORT_LIMIT } from "./cache-manifest.ts";
import { folderNear, openWriter } from "./location-open.ts";
import type { ArchiveOptions, StoreSettings } from "./location-settings.ts";
import type { Location } from "./location.ts";
import type { PlanPart, WriteOptions } from "./plan.ts";
import { formatFields } from "./cli-table.ts";
import { count, jsonText } from "./cli-text.ts";
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
  result: TransferResult & Partial<Written> & { deleted?: string[]; dryRun?: boolean },
  fields: readonly (readonly [string, string | undefined])[],
  { colors, summaryShown }: CommandContext,
): string {
  const { copied, skipped, bytes } = result.blobs;
  return formatFields(
    [
      ...fields,
      ["digest", result.digest ?? undefined],
      ["names", result.names.join(", ") || undefined],
      ...(result.to && result.moved ? formatWritten(result as Written) : []),
      ["deleted", result.deleted?.join(", ") || undefined],
      [
        "blobs",
        result.dryRun || summaryShown
          ? undefined
          : `${copied} copied (${formatBytes(bytes)}), ${skipped} there already`,
      ],
    ],
    { colors },
  );
}

/** What went from a cache, in a few words. */
export function droppedText({ results, records, layers, bytes }: DroppedResults): string {
  return `${count(results, "result")}, ${count(records, "record")}, ${count(layers.length, "layer")} (${formatBytes(bytes)})`;
}

/** One write of a command. */
export interface Transfer<T> {
  target: Location;
  names: readonly NameUpdate[];
  /** Say what would be written and write nothing. */
  dryRun: boolean;
  archive?: ArchiveOptions | undefined;
  /** The text that names what was to become a target, for the hint of an error. */
  sourceOf?(target: string): string;
  /** The `--platform` that was given, for the same hint. */
  platform?: string | undefined;
  write(
    writer: ContentWriter,
    options: StoreSettings & WriteOptions & { tempFolder: string },
  ): Promise<T>;
}

/**
 * Opens a target, writes to it and closes it again: the one way in which commands do so.
 *
 * @returns What was written, undefined in a dry run, and the target as it was before.
 */
export async function runTransfer<T>(
  context: CommandContext,
  args: Arguments<SharedFlag, SharedValue>,
  settings: StoreSettings,
  { target, names, dryRun, archive, sourceOf, platform, write }: Transfer<T>,
): Promise<{ made: T | undefined; before: TargetBefore }> {
  const before = new TargetBefore(target);
  if (dryRun) {
    await before.lookUp(names, settings);
    return { made: undefined, before };
  }
  const writer = await openWriter(target, settings, archive);
  try {
    await before.lookUp(names, settings, writer);
    const made = await write(writer, {
      ...settings,
      names,
      progress: context.progress,
      onNames: before.onNames,
      tempFolder: folderNear(target),
    });
    return { made, before };
  } catch (error) {
    throw sourceOf ? completeHint(error, sourceOf, args, platform) : error;
  } finally {
    await writer.close();
  }
}

/** Warns of the documents of a plan that are too large for BuildKit to import from a target. */
export function noteImportLimits(
  context: CommandContext,
  parts: readonly PlanPart[],
  target: Location,
): void {
  // BuildKit reads a document of any size from an object store.
  if (target.kind === "object") return;
  for (const { manifest, config } of parts)
    noteImportLimit(context, manifest.descriptor, config.descriptor);
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
      `The ${what} ${digest} has ${formatBytes(size)} and BuildKit imports none over 1 MiB; cacheport prune --fit makes it fit`,
    );
  }
}
