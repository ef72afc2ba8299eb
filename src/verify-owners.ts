/** What damaged content belongs to: which layer of which image, under which name. */
import type { NamedEntry } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import type { Document } from "./document.ts";
import { entryLabel } from "./layout-index.ts";
import { CACHE_CONFIG, isDocumentType } from "./media-types.ts";
import { formatPlatform } from "./platform.ts";
import type { Owner } from "./verify-problem.ts";
import type { ContentNode } from "./walk.ts";

/** Owners that are told of one piece of content. */
const TOLD = 3;

/** A document that lists content, and as what. */
interface Place {
  parent: Digest;
  role: string;
  platform: string | null;
}

/** Finds out what content belongs to. */
export class Owners {
  readonly #places = new Map<Digest, Place[]>();
  readonly #names = new Map<Digest, (string | null)[]>();

  constructor(entries: readonly NamedEntry[], nodes: Iterable<ContentNode>) {
    for (const entry of entries) append(this.#names, entry.descriptor.digest, entryLabel(entry));
    for (const { descriptor, document, children } of nodes) {
      if (!document) continue;
      const parent = descriptor.digest;
      for (const [at, child] of children.entries()) {
        const platform = child.platform ? formatPlatform(child.platform) : null;
        append(this.#places, child.digest, { parent, role: roleOf(document, child, at), platform });
      }
    }
  }

  /** @returns The first few, none for content that nothing lists */
  find(digest: Digest): Owner[] {
    const found: Owner[] = [];
    const seen = new Set<Digest>();
    const above: { digest: Digest; owner: Omit<Owner, "name"> }[] = [
      { digest, owner: { platform: null, role: "" } },
    ];
    for (let next = above.shift(); next && found.length < TOLD; next = above.shift()) {
      const { owner } = next;
      for (const name of this.#names.get(next.digest) ?? [])
        if (found.length < TOLD) found.push({ name, ...owner });
      // Documents that are shared by many are climbed through once.
      if (seen.has(next.digest)) continue;
      seen.add(next.digest);
      for (const { parent, role, platform } of this.#places.get(next.digest) ?? [])
        above.push({
          digest: parent,
          owner: { role: owner.role || role, platform: owner.platform ?? platform },
        });
    }
    return found;
  }
}

function append<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const values = map.get(key) ?? [];
  values.push(value);
  map.set(key, values);
}

/** What a document has a child as; positions count from 1. */
function roleOf(document: Document, child: Descriptor, at: number): string {
  if (child.mediaType === CACHE_CONFIG) return "cache config";
  if (document.isIndex && !document.cache)
    return isDocumentType(child.mediaType) ? "manifest" : "entry";
  if (document.config && at === 0) return "config";
  return `layer ${document.config ? at : at + 1}`;
}
