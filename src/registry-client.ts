/**
 * Requests about one repository, and what its refusals mean: the common ground of
 * reading and writing.
 */
import { isDocument } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import type { CacheportError, ErrorCode } from "./errors.ts";
import { DOCUMENT_TYPES, isLeafType } from "./media-types.ts";
import type { NormalizedReference } from "./reference.ts";
import type { RegistryCall } from "./registry-connection.ts";
import { refusalError } from "./registry-errors.ts";
import type { RefusedDocument } from "./registry-errors.ts";
import { RegistryTransport } from "./registry-transport.ts";
import type { Reply, TransportOptions } from "./registry-transport.ts";

/**
 * Every kind of document, and what a registry may have beside them. Each is named:
 * some registries hide a manifest whose type is not, whatever the asterisks say.
 */
const ACCEPT = [...DOCUMENT_TYPES, "*/*"].join(", ");

/** What a request does, which decides what a token must permit. */
type Access = "pull" | "push" | "delete";

const ACTIONS: Record<Access, string> = {
  pull: "pull",
  push: "pull,push",
  delete: "delete,pull,push",
};

/** What stands beside a refusal when it is explained. */
export interface RefusalNote {
  /** The code of the error when the thing is not there. */
  readonly missing?: ErrorCode | undefined;
  readonly document?: RefusedDocument | undefined;
}

/** One repository of a registry. */
export class RepositoryClient {
  readonly transport: RegistryTransport;
  /** The repository inside the registry: `team/app`. */
  readonly path: string;
  /** Host and repository, for messages. */
  readonly location: string;
  /** The registry took something for this repository, so it is there. */
  exists = false;
  /** Whether the registry has the referrers API; undefined before it was seen. */
  referrersApi: boolean | undefined;
  readonly #turns = new Map<string, Promise<void>>();

  constructor({ domain, path }: NormalizedReference, options: TransportOptions) {
    this.transport = new RegistryTransport(domain, path, options);
    this.path = path;
    this.location = `${domain}/${path}`;
  }

  /** Runs what must not run twice at once for one key; the next waits for the one before. */
  async inTurn(key: string, run: () => Promise<void>): Promise<void> {
    const before = this.#turns.get(key) ?? Promise.resolve();
    const turn = before.catch(() => {}).then(run);
    this.#turns.set(key, turn);
    await turn;
  }

  /** What a token must permit. */
  scopes(access: Access): string[] {
    return [`repository:${this.path}:${ACTIONS[access]}`];
  }

  /** A request about a manifest, by its tag or its digest. */
  manifest(
    method: string,
    name: string,
    access: Access = "pull",
    signal?: AbortSignal,
  ): RegistryCall {
    return {
      method,
      url: `/v2/${this.path}/manifests/${name}`,
      headers: { accept: ACCEPT },
      scopes: this.scopes(access),
      signal,
    };
  }

  /** A request about a blob. */
  blob(
    method: string,
    digest: Digest,
    access: Access = "pull",
    signal?: AbortSignal,
  ): RegistryCall {
    return {
      method,
      url: `/v2/${this.path}/blobs/${digest}`,
      scopes: this.scopes(access),
      signal,
    };
  }

  /**
   * The requests that lead to a descriptor's content, the likeliest first. It is
   * the content's own type that decides: what an index-shaped cache lists are blobs.
   *
   * A config or a layer may have any type, that of a document or `application/json`
   * among them, and is a blob; an entry of an index without a good type may be a
   * document. Blobs are asked for first then: what is there under the digest is right,
   * and docker-registry 2.8 answers 500 to a question for a manifest that is none.
   */
  content(
    method: string,
    descriptor: Descriptor,
    access: Access = "pull",
    signal?: AbortSignal,
  ): RegistryCall[] {
    const { mediaType, digest, isBlob = false } = descriptor;
    const manifest = this.manifest(method, digest, access, signal);
    const blob = this.blob(method, digest, access, signal);
    if (isDocument(descriptor)) return [manifest, blob];
    return isBlob || isLeafType(mediaType) ? [blob] : [blob, manifest];
  }

  /** The error for an answer that is no success. */
  async refusal(
    action: string,
    reply: Reply,
    { missing, document }: RefusalNote = {},
  ): Promise<CacheportError> {
    const { transport } = this;
    const denied = reply.status === 401 || reply.status === 403;
    return refusalError(reply, {
      action,
      location: this.location,
      exists: this.exists,
      missing,
      document,
      credentials: denied ? await transport.credentialProblem() : undefined,
      authenticated: denied && (await transport.authenticated()),
      redact: (text) => transport.redact(text),
    });
  }
}
