/** Bounded parallel work. */

/** Blobs that are worked on at once, unless told otherwise. */
export const DEFAULT_JOBS = 4;

/**
 * Runs a function over items, at most `limit` at once, and gives the results in
 * the items' order. After a failure no further item is started; the running ones
 * are waited for, then the first failure is thrown.
 *
 * @param limit At least 1.
 * @param run May call `leave` when what is left to do does not count any more, so that the
 *   next item begins; at most twice `limit` are unfinished.
 */
export async function mapLimit<T, R>(
  items: readonly T[],
  limit: number,
  run: (item: T, index: number, leave: () => void) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  const gate = new Gate(limit);
  let next = 0;
  let failure: { error: unknown } | undefined;
  const worker = async (): Promise<void> => {
    while (next < items.length && !failure) {
      const leave = await gate.enter();
      try {
        if (next >= items.length || failure) return;
        const index = next++;
        results[index] = await run(items[index] as T, index, leave);
      } catch (error) {
        failure ??= { error };
      } finally {
        leave();
      }
    }
  };
  const workers = Array.from({ length: Math.min(2 * limit, items.length) }, worker);
  await Promise.all(workers);
  if (failure) throw failure.error;
  return results;
}

/** A weighted semaphore that serves its callers in the order in which they came. */
export class Gate {
  #free: number;
  #size: number;
  readonly #waiting: { weight: number; admit: () => void }[] = [];

  /** @param size At least 1. */
  constructor(size: number) {
    this.#size = size;
    this.#free = size;
  }

  /** Changes how many may be inside at once. */
  resize(size: number): void {
    this.#free += size - this.#size;
    this.#size = size;
    this.#admitNext();
  }

  /**
   * Waits for a place.
   *
   * @param weight Places to take at once; at most all of them are taken.
   * @returns Gives the places back; may be called twice.
   */
  async enter(weight = 1): Promise<() => void> {
    const places = Math.min(weight, this.#size);
    await new Promise<void>((admit) => {
      this.#waiting.push({ weight: places, admit });
      this.#admitNext();
    });
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#free += places;
      this.#admitNext();
    };
  }

  #admitNext(): void {
    for (;;) {
      const next = this.#waiting[0];
      if (!next || next.weight > Math.max(this.#free, 0)) return;
      this.#waiting.shift();
      this.#free -= next.weight;
      next.admit();
    }
  }
}
