/** Bounded parallel work. */

/** Blobs that are worked on at once, unless told otherwise. */
export const DEFAULT_JOBS = 4;

/**
 * Runs a function over items, at most `limit` at once, and gives the results in
 * the items' order. After a failure no further item is started; the running ones
 * are waited for, then the first failure is thrown.
 *
 * @param limit At least 1.
 */
export async function mapLimit<T, R>(
  items: readonly T[],
  limit: number,
  run: (item: T, index: number) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  let failure: { error: unknown } | undefined;
  const worker = async (): Promise<void> => {
    while (next < items.length && !failure) {
      const index = next++;
      try {
        results[index] = await run(items[index] as T, index);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  const workers = Array.from({ length: Math.min(limit, items.length) }, worker);
  await Promise.all(workers);
  if (failure) throw failure.error;
  return results;
}
