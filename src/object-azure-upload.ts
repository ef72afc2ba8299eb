/**
 * Uploads to Azure Blob: one request for what is small, else blocks that nobody sees
 * before their list is committed. GitHub's cache service hands out addresses for the same.
 *
 * Source: Azure Blob Storage REST API, "Put Blob", "Put Block", "Put Block List".
 */
import type { CacheportError } from "./errors.ts";
import type { ObjectReply } from "./object-http.ts";
import type { UploadTarget } from "./object-upload.ts";

/** Blocks of one blob at most. */
const MAX_BLOCKS = 50_000;

/** A request about one blob. */
export interface AzureAsk {
  readonly method: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

/** How one blob is asked about. */
export interface AzureBlob {
  ask(request: AzureAsk): Promise<ObjectReply>;
  refuse(reply: ObjectReply): CacheportError;
  /** Keeps what another writer has stored meanwhile. */
  readonly onlyNew: boolean;
}

/** The upload of one blob. */
export function azureUpload({ ask, refuse, onlyNew }: AzureBlob): UploadTarget {
  const condition: Record<string, string> = onlyNew ? { "if-none-match": "*" } : {};
  const check = (reply: ObjectReply): void => {
    // Another writer was faster; under a digest that is the same content.
    const isThere = onlyNew && reply.headers.get("x-ms-error-code") === "BlobAlreadyExists";
    if (reply.status !== 201 && !isThere) throw refuse(reply);
  };
  return {
    maxParts: MAX_BLOCKS,
    async single(body) {
      const headers = { ...condition, "x-ms-blob-type": "BlockBlob" };
      check(await ask({ method: "PUT", headers, body }));
    },
    async begin() {
      const blocks: string[] = [];
      const first = Promise.withResolvers<void>();
      return {
        async part(index, _offset, body) {
          // The first block makes the blob; Microsoft's emulator loses it when two do so at once.
          if (index > 0) await first.promise;
          // All names of a blob's blocks have one length.
          const id = btoa(`cacheport-${String(index).padStart(6, "0")}`);
          const sent = ask({ method: "PUT", query: { comp: "block", blockid: id }, body });
          // A failure of the first is told by itself; the others need not wait for ever.
          const reply = await sent.finally(first.resolve);
          if (reply.status !== 201) throw refuse(reply);
          blocks[index] = id;
        },
        async complete() {
          const list = blocks.map((id) => `<Latest>${id}</Latest>`).join("");
          const body = new TextEncoder().encode(
            `<?xml version="1.0" encoding="utf-8"?><BlockList>${list}</BlockList>`,
          );
          check(
            await ask({ method: "PUT", query: { comp: "blocklist" }, headers: condition, body }),
          );
        },
        // Azure forgets blocks without a list within a week; nobody sees them till then.
        async abort() {},
      };
    },
  };
}
