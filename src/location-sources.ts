/** Opens several sources of one command, those in one place together. */
import type { NameQuery, Store } from "./content-store.ts";
import { CacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import { isSameStore, locate, locationQuery, openSource } from "./location-open.ts";
import type { StoreSettings } from "./location-settings.ts";
import type { OpenedSource } from "./location-open.ts";

/** The stores that were opened. Close them. */
export class SourceStores {
  readonly #settings: StoreSettings;
  readonly #near: string | undefined;
  readonly #opened: { location: Location; store: Store }[] = [];

  /** @param near as in {@link openSource} */
  constructor(settings: StoreSettings, near?: string) {
    this.#settings = settings;
    this.#near = near;
  }

  /**
   * Opens a source.
   *
   * @throws {CacheportError} as {@link openSource}; USAGE for standard input a second time
   */
  async open(source: string | Location): Promise<OpenedSource> {
    const location = typeof source === "string" ? locate(source, "source") : source;
    const query: NameQuery = locationQuery(location);
    const known = this.#opened.find((other) => isSameStore(other.location, location));
    if (known) return { store: known.store, location, query };
    if (this.#opened.some((other) => areStreams(other.location, location))) {
      throw new CacheportError("USAGE", "Cannot read two archives from standard input", {
        hint: "Write one of them to a file first",
      });
    }
    const near = this.#near;
    const { store, query: found } = await openSource(location, this.#settings, { near });
    this.#opened.push({ location, store });
    return { store, location, query: found };
  }

  async close(): Promise<void> {
    await Promise.all(this.#opened.map(({ store }) => store.close()));
  }
}

function areStreams(...locations: Location[]): boolean {
  return locations.every(({ kind }) => kind === "stream");
}
