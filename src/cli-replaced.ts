/** What a moved name leaves behind: the manifest that it meant before, with `--delete-replaced`. */
import type { CommandContext, OptionSpec } from "./cli-command.ts";
import type { Written } from "./cli-target.ts";
import { deletesManifests } from "./content-store.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError } from "./errors.ts";
import { openWriter, openSource } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import type { Location } from "./location.ts";
import { neededDigests } from "./reachable.ts";

/** The option of commands that move names. */
export const DELETE_REPLACED_OPTION = {
  name: "delete-replaced",
  description:
    "Then delete the manifest that a moved name meant before, if nothing else names it; a folder is cleaned as gc does it, so what is younger than an hour stays",
} as const satisfies OptionSpec;

/** What a write did to names, and what is gone since nothing names it any more. */
export interface Settled extends Written {
  /** Absent where nothing was to be deleted. */
  deleted?: Digest[];
}

/**
 * What a write did to the names of its target; deletes what they meant before.
 *
 * @param isAsked With `--delete-replaced`, and something was written.
 */
export async function settleNames(
  context: CommandContext,
  target: Location,
  settings: StoreSettings,
  written: Written,
  isAsked: boolean,
): Promise<Settled> {
  if (!isAsked) return written;
  return { ...written, deleted: await deleteReplaced(context, target, settings, written) };
}

/**
 * Deletes the manifests that names of a target meant before a write: in a registry by
 * digest, in a folder together with all that no name reaches (as `gc`). What another name
 * stands for, or what anything that is named lists or refers to, stays.
 *
 * @returns The manifests that are gone.
 */
async function deleteReplaced(
  context: CommandContext,
  target: Location,
  settings: StoreSettings,
  { moved }: Written,
): Promise<Digest[]> {
  const replaced = [...new Set(moved.map(({ from }) => from))];
  if (replaced.length === 0) return [];
  if (target.kind === "directory") return collect(target.path, replaced, settings);
  if (target.kind !== "registry") {
    // An object store keeps no manifests; an archive keeps what it has until it is written anew.
    if (target.kind === "archive")
      context.note(
        `What was replaced stays in the archive until it is written anew: cacheport copy --all ${target.path} NEW.tar`,
      );
    return [];
  }
  const writer = await openWriter(target, settings);
  const { store } = await openSource(target, settings);
  const deleted: Digest[] = [];
  try {
    if (!deletesManifests(writer)) return [];
    const roots = (await store.list()).map(({ descriptor }) => descriptor);
    // A document that cannot be read may name anything.
    const needed = await neededDigests(store, roots, settings);
    for (const digest of replaced) {
      if (needed.has(digest)) continue;
      await writer.deleteManifest(digest);
      deleted.push(digest);
    }
  } catch (error) {
    if (isCacheportError(error, "BLOB_NOT_FOUND")) return deleted;
    if (!isCacheportError(error) || settings.signal.aborted) throw error;
    context.note(`What was replaced stays: ${error.message}`);
  } finally {
    await store.close();
    await writer.close();
  }
  return deleted;
}

async function collect(
  path: string,
  replaced: readonly Digest[],
  settings: StoreSettings,
): Promise<Digest[]> {
  const { collectGarbage, DEFAULT_GRACE } = await import("./gc.ts");
  const { removed } = await collectGarbage(path, {
    ...settings,
    grace: DEFAULT_GRACE,
    dryRun: false,
    location: path,
  });
  const gone = new Set(removed.map(({ digest }) => digest));
  return replaced.filter((digest) => gone.has(digest));
}
