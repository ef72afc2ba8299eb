/**
 * Azure Blob Storage.
 *
 * Source: BuildKit cache/remotecache/azblob/{exporter,importer,utils}.go for keys and for
 * what an export does; Azure Blob Storage REST API for the requests.
 */
import type { BlobSource, PutOptions } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import { azureUpload } from "./object-azure-upload.ts";
import type { AzureAsk } from "./object-azure-upload.ts";
import { AzureCredentials } from "./object-credentials-azure.ts";
import { readFault, refusal } from "./object-errors.ts";
import type { RefusalWords } from "./object-errors.ts";
import { ObjectHttp, objectInfo, openedObject } from "./object-http.ts";
import type { ObjectReply, ObjectRequest } from "./object-http.ts";
import type { AzureOptions } from "./object-options.ts";
import type {
  BlobList,
  ObjectInfo,
  ObjectName,
  ObjectService,
  ObjectSettings,
  OpenObject,
  StoredDocument,
} from "./object-service.ts";
import { escapeKey, escapeUri } from "./object-sigv4.ts";
import { uploadVerified } from "./object-upload.ts";
import { xmlElements, xmlText } from "./object-xml.ts";

/** What is asked; without a key the container itself. */
interface Ask extends AzureAsk {
  readonly key?: string;
  readonly signal?: AbortSignal | undefined;
}

/** A cache in a container. */
export class AzureService implements ObjectService {
  readonly kind = "azblob";
  readonly location: string;
  readonly touchRefresh = undefined;
  readonly readsAllNames = true;
  readonly prefixes: { readonly blobs: string; readonly names: string };
  readonly #options: AzureOptions;
  readonly #limit: number;
  readonly #credentials: AzureCredentials;
  readonly #http: ObjectHttp;

  constructor(options: AzureOptions, settings: ObjectSettings) {
    const { accountName, key, account } = options;
    this.#options = options;
    this.#limit = settings.limits.config;
    this.location = options.location;
    this.prefixes = { blobs: options.blobs, names: options.manifests };
    const signed = account.searchParams.has("sig");
    this.#credentials = new AzureCredentials({ accountName, key, signed }, settings);
    this.#http = new ObjectHttp({
      ...settings,
      server: `Azure Blob at "${account.host}"`,
      sign: (request) => this.#credentials.headers(request, this.#http.now()),
      isTemporary: (reply) => readFault(reply).code === "ServerBusy",
      renew: async (reply, sent) =>
        reply.status === 401 || readFault(reply).code === "AuthenticationFailed"
          ? await this.#credentials.renew(sent)
          : false,
    });
  }

  /** BuildKit creates the container as well. */
  async prepare(): Promise<void> {
    const query = { restype: "container" };
    const there = await this.#request({ method: "HEAD", query });
    if (there.status === 200) return;
    const { container } = this.#options;
    if (there.status !== 404)
      throw this.#refusal(there, {
        action: `Cannot use "${this.location}": failed to get properties of cache container ${container}`,
      });
    const made = await this.#request({ method: "PUT", query });
    if (made.status === 201 || readFault(made).code === "ContainerAlreadyExists") return;
    throw this.#refusal(made, {
      action: `Cannot use "${this.location}": failed to create cache container ${container}`,
    });
  }

  async has(digest: Digest, signal?: AbortSignal): Promise<ObjectInfo | undefined> {
    const reply = await this.#request({ method: "HEAD", key: this.#blobKey(digest), signal });
    if (reply.status === 404) return undefined;
    if (reply.status === 200) return objectInfo(reply.headers);
    throw this.#refusal(reply, {
      action: `Cannot look for blob "${digest}" in "${this.location}"`,
    });
  }

  async open(digest: Digest, from: number, signal?: AbortSignal): Promise<OpenObject> {
    const headers: Record<string, string> = {};
    if (from > 0) headers["range"] = `bytes=${from}-`;
    const ask: Ask = { method: "GET", key: this.#blobKey(digest), headers, signal };
    const reply = await this.#http.open(this.#requestOf(ask));
    if ("stream" in reply) return openedObject(reply, from);
    throw this.#refusal(reply, {
      action: `Cannot read blob "${digest}" of "${this.location}"`,
      missing: "BLOB_MISSING",
    });
  }

  async write(
    blob: Descriptor,
    source: BlobSource,
    options: PutOptions & { replace: boolean },
  ): Promise<void> {
    const key = this.#blobKey(blob.digest);
    const { signal } = options;
    const action = `Cannot write blob "${blob.digest}" to "${this.location}"`;
    const target = azureUpload({
      ask: (ask) => this.#request({ ...ask, key, signal }),
      refuse: (reply) => this.#refusal(reply, { action }),
      onlyNew: !options.replace,
    });
    await uploadVerified(blob, source, target, options);
  }

  async copyFrom(): Promise<boolean> {
    return false;
  }

  async touch(): Promise<void> {}

  async blobs(most = Number.POSITIVE_INFINITY): Promise<BlobList | undefined> {
    const blobs = new Map<Digest, ObjectInfo>();
    let complete = true;
    for await (const page of this.#list(`${this.#options.blobs}sha`)) {
      for (const { name, ...info } of page) {
        const digest = name.slice(this.#options.blobs.length);
        if (isDigest(digest)) blobs.set(digest, info);
      }
      complete = blobs.size < most;
      if (!complete) break;
    }
    return { blobs, complete, now: this.#http.now() };
  }

  async remove(digest: Digest): Promise<void> {
    await this.#delete(this.#blobKey(digest), `blob "${digest}"`);
  }

  async names(): Promise<ObjectName[] | undefined> {
    const names: ObjectName[] = [];
    const { manifests } = this.#options;
    for await (const page of this.#list(manifests)) {
      for (const { name: key, ...info } of page) {
        const name = key.slice(manifests.length);
        // One folder may serve for both.
        if (!isDigest(name.slice(name.lastIndexOf("/") + 1))) names.push({ name, ...info });
      }
    }
    return names;
  }

  async documents(name: string): Promise<StoredDocument[]> {
    const ask: Ask = { method: "GET", key: this.#nameKey(name) };
    const reply = await this.#http.request(this.#requestOf(ask), this.#limit);
    if (reply.status === 200) return [{ name, bytes: reply.body }];
    if (reply.status === 404 && readFault(reply).code !== "ContainerNotFound") return [];
    throw this.#refusal(reply, {
      action: `Cannot use "${this.location}": failed to load cache manifest ${name}`,
    });
  }

  async writeDocument(name: string, body: Uint8Array): Promise<void> {
    const headers = { "x-ms-blob-type": "BlockBlob" };
    const reply = await this.#request({ method: "PUT", key: this.#nameKey(name), headers, body });
    if (reply.status === 201) return;
    throw this.#refusal(reply, { action: `Cannot write cache "${name}" to "${this.location}"` });
  }

  async removeDocument(name: string): Promise<void> {
    await this.#delete(this.#nameKey(name), `cache "${name}"`);
  }

  /** The rules stand in the account's management, which a store's credentials do not reach. */
  async lifecycle(): Promise<undefined> {
    return undefined;
  }

  close(): void {
    this.#http.close();
  }

  #blobKey(digest: Digest): string {
    return this.#options.blobs + digest;
  }

  /** @throws {CacheportError} USAGE for a name that would lead elsewhere, or nowhere */
  #nameKey(name: string): string {
    const parts = name.split("/").filter((part) => part !== "" && part !== ".");
    if (parts.length > 0 && !parts.includes("..")) return this.#options.manifests + parts.join("/");
    throw new CacheportError(
      "USAGE",
      `Cannot use the name ${JSON.stringify(name)} in "${this.location}": its key would be another one`,
    );
  }

  async #delete(key: string, what: string): Promise<void> {
    const reply = await this.#request({ method: "DELETE", key });
    if (reply.status === 202 || reply.status === 404) return;
    throw this.#refusal(reply, { action: `Cannot remove ${what} from "${this.location}"` });
  }

  /** The blobs under a prefix with their whole keys, page by page. */
  async *#list(prefix: string): AsyncGenerator<ObjectName[]> {
    let marker = "";
    do {
      const query = {
        restype: "container",
        comp: "list",
        prefix,
        ...(marker !== "" && { marker }),
      };
      const reply = await this.#request({ method: "GET", query });
      if (reply.status !== 200)
        throw this.#refusal(reply, { action: `Cannot list "${this.location}"` });
      yield xmlElements(reply.body, "Blob").map((entry) => {
        const modified = Date.parse(xmlText(entry, "Last-Modified") ?? "");
        return {
          name: xmlText(entry, "Name") ?? "",
          size: Number(xmlText(entry, "Content-Length")),
          ...(!Number.isNaN(modified) && { modified }),
        };
      });
      marker = xmlText(reply.body, "NextMarker") ?? "";
    } while (marker !== "");
  }

  async #request(ask: Ask): Promise<ObjectReply> {
    return await this.#http.request(this.#requestOf(ask));
  }

  #requestOf({ method, key, query, headers, body, signal }: Ask): ObjectRequest {
    const { account, container } = this.#options;
    const url = new URL(account);
    const path = `${url.pathname.replace(/\/$/, "")}/${container}`;
    url.pathname = key === undefined ? path : `${path}/${escapeKey(key)}`;
    // A shared access signature is part of the account's address.
    const asked = Object.entries(query ?? {}).map(
      ([name, value]) => `${escapeUri(name)}=${escapeUri(value)}`,
    );
    url.search = [...asked, ...(account.search === "" ? [] : [account.search.slice(1)])].join("&");
    return { method, url, headers, body, signal };
  }

  #refusal(reply: ObjectReply, words: RefusalWords): CacheportError {
    const { code } = readFault(reply);
    if (code === "ContainerNotFound")
      return new CacheportError(
        "LOCATION_NOT_FOUND",
        `${words.action}: there is no container "${this.#options.container}"`,
        { hint: "Writing creates it; for reading check container= and the account" },
      );
    return refusal(reply, words);
  }
}
