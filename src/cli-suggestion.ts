/** "Did you mean": the nearest of the words that would have been right. */

/**
 * The number of single-character edits between two words: insertions, deletions,
 * substitutions and swaps of neighbours (optimal string alignment).
 */
export function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const cost = a[row - 1] === b[column - 1] ? 0 : 1;
      let best = Math.min(
        (last[column] as number) + 1,
        (current[column - 1] as number) + 1,
        (last[column - 1] as number) + cost,
      );
      const swapped =
        row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) best = Math.min(best, (beforeLast[column - 2] as number) + 1);
      current.push(best);
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length] as number;
}

/**
 * The word that was most likely meant, or undefined when none is near: it begins
 * with what was written (two letters at least), or is at most a third of its
 * length away.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const written = word.toLowerCase();
  let best: string | undefined;
  // A long word is near nothing that a program offers.
  let bestDistance = written.length > 64 ? 0 : Infinity;
  for (const candidate of candidates) {
    if (bestDistance === 0) break;
    const distance = editDistance(written, candidate.toLowerCase());
    const limit = Math.max(1, Math.floor(candidate.length / 3));
    const near = distance <= limit || (written.length >= 2 && candidate.startsWith(written));
    if (near && distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}
