/** Opens a location and finds what it names: the first step of most commands. */
import { arch } from "node:os";
import { choosePlatform } from "./image-choose.ts";
import type { Arguments, OptionSpec } from "./cli-command.ts";
import type { NamedEntry, Store } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Location } from "./location.ts";
import { openSource } from "./location-open.ts";
import type { OpenOptions } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import { localPlatform, parsePlatform } from "./platform.ts";
import { nameType } from "./walk.ts";

/** The option that walks into an index. */
export const PLATFORM_OPTION = {
  name: "platform",
  value: "OS/ARCH[/VARIANT]",
  description:
    "Take the manifest for this platform from an index; local for this machine's, all for the whole index",
} as const satisfies OptionSpec;

/** A location's store and what was found in it. Close the store. */
export interface ResolvedSource {
  store: Store;
  location: Location;
  descriptor: Descriptor;
  entry: NamedEntry | undefined;
}

/**
 * Opens a location and resolves its name, then `--platform` where it was given.
 *
 * @throws {CacheportError} LOCATION_NOT_FOUND, NAME_NOT_FOUND, NAME_AMBIGUOUS,
 *   PLATFORM_NOT_FOUND, ...
 */
export async function resolveSource(
  source: string | Location,
  settings: StoreSettings,
  args: Arguments<never, "platform"> | undefined,
  options: OpenOptions = {},
): Promise<ResolvedSource> {
  const { store, location, query } = await openSource(source, settings, options);
  try {
    const resolved = await store.resolve(query);
    const asked = args?.value("platform");
    // An index is taken whole unless one platform is asked for.
    const platform = asked === "all" ? undefined : asked;
    const descriptor =
      platform === undefined
        ? await nameType(store, resolved.descriptor, settings)
        : await choosePlatform(
            store,
            resolved.descriptor,
            // Containers on any machine run Linux.
            parsePlatform(platform, localPlatform("linux", arch())),
            settings,
          );
    return { store, location, descriptor, entry: resolved.entry };
  } catch (error) {
    await store.close();
    throw error;
  }
}
