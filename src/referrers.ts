/**
 * What refers to content: signatures, SBOMs and attestations of manifests, found as the place
 * keeps them: in a registry by the referrers API or its tag scheme, in a layout by the
 * `subject` of its entries, in both by cosign's tags.
 *
 * Sources: OCI distribution-spec 1.1, "Listing Referrers"; OCI image-spec, `subject`; cosign's
 * specification of its tags (`sha256-<hex>.sig`, `.att`, `.sbom`).
 */
import { mapLimit } from "./concurrency.ts";
import type { NameUpdate, Store } from "./content-store.ts";
import { listsReferrers } from "./content-store.ts";
import type { CopyRoot } from "./copy.ts";
import type { Descriptor } from "./descriptor.ts";
import { isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { entryLabel } from "./layout-index.ts";
import { ANNOTATION_MANIFEST_SUBJECT } from "./media-types.ts";
import { tagOfName } from "./reference.ts";
import { walk } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

/** Something that refers to a manifest, ready to be copied. */
export interface Referrer extends CopyRoot {
  readonly subject: Digest;
}

/** A signature may be signed: how far it is followed. */
const MAX_ROUNDS = 4;

/** cosign's tags: the digest of what is meant, with a dash for its colon, and a kind. */
const COSIGN_TAG = /^(sha256|sha512)-([0-9a-f]+)\.(?:sig|att|sbom)$/;

/**
 * Finds what refers to roots, to the manifests that they reach, and to what is found so.
 *
 * @returns Each once, in the order of discovery, without what the roots reach themselves.
 * @throws {CacheportError} whatever listing and reading throws
 */
export async function findReferrers(
  store: Store,
  roots: readonly Descriptor[],
  options: WalkOptions,
): Promise<Referrer[]> {
  const found = new Map<Digest, Referrer>();
  const seen = new Set<Digest>();
  const listing = new Listing(store, options);
  let fresh = await documentsOf(store, roots, options);
  for (let round = 0; round < MAX_ROUNDS && fresh.length > 0; round++) {
    for (const digest of fresh) seen.add(digest);
    const lists = await mapLimit(fresh, options.jobs ?? 4, (digest) => listing.of(digest));
    const next = lists.flat().filter(({ descriptor: { digest } }) => !seen.has(digest));
    for (const referrer of next) found.set(referrer.descriptor.digest, referrer);
    const descriptors = next.map(({ descriptor }) => descriptor);
    fresh = (await documentsOf(store, descriptors, options)).filter((digest) => !seen.has(digest));
  }
  return [...found.values()];
}

/** The manifests and indexes that roots reach. */
async function documentsOf(
  store: Store,
  roots: readonly Descriptor[],
  options: WalkOptions,
): Promise<Digest[]> {
  if (roots.length === 0) return [];
  const nodes = await walk(store, roots, options);
  return nodes.filter(({ document }) => document).map(({ descriptor }) => descriptor.digest);
}

/** Answers for one digest after another what refers to it; what serves all is read once. */
class Listing {
  readonly #store: Store;
  readonly #options: WalkOptions;
  #tags: Promise<Map<Digest, Referrer[]>> | undefined;
  #subjects: Promise<Map<Digest, Referrer[]>> | undefined;

  constructor(store: Store, options: WalkOptions) {
    this.#store = store;
    this.#options = options;
  }

  async of(digest: Digest): Promise<Referrer[]> {
    this.#tags ??= this.#cosign();
    const tagged = (await this.#tags).get(digest) ?? [];
    if (listsReferrers(this.#store)) {
      const listed = await this.#store.listReferrers(digest);
      return [...listed.map((descriptor) => referrer(descriptor, digest)), ...tagged];
    }
    this.#subjects ??= this.#bySubject();
    return [...((await this.#subjects).get(digest) ?? []), ...tagged];
  }

  /** What cosign's tags say, which name what they are about. */
  async #cosign(): Promise<Map<Digest, Referrer[]>> {
    const found = new Map<Digest, Referrer[]>();
    const names =
      (await this.#store.listNames?.()) ??
      (await this.#store.list()).flatMap((entry) => entryLabel(entry) ?? []);
    for (const name of names) {
      const tag = tagOfName(name) ?? "";
      const [, algorithm, hex] = COSIGN_TAG.exec(tag) ?? [];
      const subject = `${algorithm}:${hex}`;
      if (!isDigest(subject)) continue;
      const { descriptor } = await this.#store.resolve({ name });
      const names: NameUpdate[] = [{ kind: "set", name: { refName: tag } }];
      add(found, { descriptor, names, subject });
    }
    return found;
  }

  /** The entries of a layout by what they refer to. */
  async #bySubject(): Promise<Map<Digest, Referrer[]>> {
    const found = new Map<Digest, Referrer[]>();
    const entries = await this.#store.list();
    const options = { ...this.#options, onBroken: () => {} };
    const distinct = new Map(entries.map(({ descriptor }) => [descriptor.digest, descriptor]));
    for (const node of await walk(this.#store, [...distinct.values()], options)) {
      const subject = node.document?.subject?.digest;
      if (subject !== undefined) add(found, referrer(node.descriptor, subject));
    }
    return found;
  }
}

/** A layout lists it without a name, marked so that tag walks pass it over. */
function referrer(descriptor: Descriptor, subject: Digest): Referrer {
  const { mediaType, digest, size } = descriptor;
  const annotations = { [ANNOTATION_MANIFEST_SUBJECT]: subject };
  return {
    descriptor: { mediaType, digest, size, annotations },
    names: [{ kind: "list" }],
    subject,
  };
}

function add(found: Map<Digest, Referrer[]>, one: Referrer): void {
  const list = found.get(one.subject);
  if (list) list.push(one);
  else found.set(one.subject, [one]);
}
