/**
 * Digests by their start, as tables show them: `90bc05371bd1` or `sha256:90bc05371bd1` for
 * the one of them in a store that starts so.
 */
import type { Store } from "./content-store.ts";
import { shortDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import type { StoreSettings } from "./location-settings.ts";
import { walk } from "./walk.ts";

/** Digests that a message lists at most. */
const LISTED = 5;

/**
 * Chooses the digest that is written whole, or starts as it is written.
 *
 * @param action The start of a message: `Cannot drop layer "90bc"`.
 * @returns Undefined when none of them starts so.
 * @throws {CacheportError} NAME_AMBIGUOUS
 */
export function chooseDigest(
  candidates: Iterable<Digest>,
  start: string,
  action: string,
): Digest | undefined {
  const fitting = [...new Set(candidates)].filter(
    (digest) => digest.startsWith(start) || digest.slice(digest.indexOf(":") + 1).startsWith(start),
  );
  if (fitting.length < 2) return fitting[0];
  const shown = fitting.slice(0, LISTED).map((digest) => digest.slice(0, start.length + 16));
  throw new CacheportError("NAME_AMBIGUOUS", `${action}: ${fitting.length} digests start with it`, {
    hint: `Write more of the digest: ${shown.join(", ")}${fitting.length > LISTED ? ", ..." : ""}`,
  });
}

/**
 * Finds the content of a store whose digest starts as it is written, among all that its
 * entries reach.
 *
 * @throws {CacheportError} BLOB_NOT_FOUND, NAME_AMBIGUOUS
 */
export async function findByStart(
  store: Store,
  start: string,
  settings: StoreSettings,
): Promise<Digest> {
  const action = `Cannot find "${start}" in "${store.location}"`;
  const roots = (await store.list()).filter(({ problem }) => problem === undefined);
  const nodes = await walk(
    store,
    roots.map(({ descriptor }) => descriptor),
    // What cannot be read reaches nothing; its own digest counts.
    { ...settings, onBroken: () => undefined },
  );
  const digests = nodes.map(({ descriptor }) => descriptor.digest);
  const found = chooseDigest(digests, start, action);
  if (found) return found;
  const named = roots.slice(0, LISTED).map(({ descriptor }) => shortDigest(descriptor.digest));
  throw new CacheportError(
    "BLOB_NOT_FOUND",
    `${action}: no digest that an entry reaches starts so`,
    {
      hint: named.length > 0 ? `The entries are: ${named.join(", ")}` : undefined,
    },
  );
}
