/**
 * Which blobs a store has: one list instead of a request for each of them, which costs
 * time and on most stores money.
 */
import type { Digest } from "./digest.ts";
import type { ObjectInfo, ObjectService } from "./object-service.ts";

/** Blobs that a list may name before each one is asked for by itself. */
const MOST_LISTED = 20_000;
/** Blobs that are asked for by themselves before a list is worth it. */
const FEW = 2;

/** What is known of the blobs in a store. */
export class KnownBlobs {
  readonly #service: ObjectService;
  /** What was listed, and what has been written since. */
  #listed: Promise<Map<Digest, ObjectInfo> | undefined> | undefined;
  #isComplete = false;
  #asked = 0;
  readonly #added = new Map<Digest, ObjectInfo>();

  constructor(service: ObjectService) {
    this.#service = service;
  }

  /**
   * Size and age of a blob, undefined when it is absent: the first few are asked for by
   * themselves, all others are looked up in a list.
   *
   * @param sure Ask for what is not in the list: some stores list late what was just written.
   * @throws {CacheportError} STORE_DENIED, STORE_FAILED
   */
  async find(
    digest: Digest,
    { sure = false, signal }: { sure?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<ObjectInfo | undefined> {
    const added = this.#added.get(digest);
    if (added) return added;
    if (this.#asked++ < FEW && !this.#listed) return await this.#service.has(digest, signal);
    this.#listed ??= this.#list();
    const blobs = await this.#listed;
    const info = blobs?.get(digest);
    if (info || (blobs && this.#isComplete && !sure)) return info;
    return await this.#service.has(digest, signal);
  }

  /** Notes a blob that was written. */
  add(digest: Digest, info: ObjectInfo): void {
    this.#added.set(digest, info);
  }

  async #list(): Promise<Map<Digest, ObjectInfo> | undefined> {
    const list = await this.#service.blobs(MOST_LISTED);
    this.#isComplete = list?.complete === true;
    return list && new Map(list.blobs);
  }
}
