/**
 * Manifests that lie in a layout without a name. Two exports of a cache into one folder in
 * one build leave such a layout: BuildKit writes the last digest into both entries of
 * index.json, and the name of the other one stands for what is not there.
 */
import type { ContentReader } from "./content-store.ts";
import type { Digest } from "./digest.ts";
import { identify } from "./document.ts";
import { isCacheportError } from "./errors.ts";
import { listLayoutFiles } from "./layout-files.ts";

/** Blobs that are looked into: this serves a hint, and is no search of a store of any size. */
const LOOKED_AT = 2000;
/** Bytes of a blob that is looked into. */
const LARGEST = 4 * 1024 * 1024;

/**
 * Finds the documents of a layout that neither an entry nor a document lists.
 *
 * @param folder The path of the layout.
 * @param named What entries list.
 * @returns Their digests, the youngest first.
 */
export async function findOrphans(
  reader: ContentReader,
  folder: string,
  named: ReadonlySet<Digest>,
): Promise<Digest[]> {
  const { blobs } = await listLayoutFiles(folder);
  const young = blobs.toSorted((a, b) => b.modified - a.modified).slice(0, LOOKED_AT);
  const listed = new Set(named);
  const documents: Digest[] = [];
  for (const { digest, size } of young) {
    if (size > LARGEST) continue;
    try {
      const bytes = await reader.read({ mediaType: "", digest, size }, LARGEST);
      const document = identify(bytes, "", "blob");
      if (!document) continue;
      documents.push(digest);
      for (const child of document.children) listed.add(child.digest);
    } catch (error) {
      // Damaged, or of a type that is not known: nothing to propose.
      if (!isCacheportError(error)) throw error;
    }
  }
  return documents.filter((digest) => !listed.has(digest));
}
