/**
 * An S3 server in memory for tests, with faults on demand. It does not check signatures
 * (Swift does, see the interop tests); it records what it is sent.
 */
import { createHash } from "node:crypto";

/** A request as it came. */
export interface SeenS3 {
  method: string;
  /** With its query, decoded. */
  path: string;
  headers: Record<string, string>;
  size: number;
}

/** What decides about a request before the server does: an answer, or nothing. */
export type S3Fault = (seen: SeenS3, count: number) => Response | Promise<Response> | undefined;

interface Stored {
  bytes: Uint8Array;
  modified: number;
}

/** A running server. */
export class TestS3 {
  readonly seen: SeenS3[] = [];
  /** By bucket and key: `b/blobs/sha256:...`. */
  readonly objects = new Map<string, Stored>();
  readonly uploads = new Map<string, Map<number, Uint8Array>>();
  readonly buckets = new Set(["b"]);
  fault: S3Fault | undefined;
  pageSize = 1000;
  readonly #server: Bun.Server<undefined>;

  constructor() {
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      maxRequestBodySize: 1024 ** 4,
      fetch: (request) => this.#answer(request),
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  /** The attributes of a cache in bucket b, without a name. */
  location(bucket = "b"): string {
    return `type=s3,bucket=${bucket},region=us-east-1,endpoint_url=${this.url},use_path_style=true,access_key_id=AKIDEXAMPLE,secret_access_key=hushhush`;
  }

  /** The methods and paths that came since the last call of this. */
  takeRequests(): string[] {
    return this.seen.splice(0).map(({ method, path }) => `${method} ${path}`);
  }

  put(key: string, bytes: Uint8Array | string, age = 0): void {
    this.objects.set(key, { bytes: Buffer.from(bytes), modified: Date.now() - age });
  }

  text(key: string): string | undefined {
    const found = this.objects.get(key);
    return found && new TextDecoder().decode(found.bytes);
  }

  keys(): string[] {
    return [...this.objects.keys()].toSorted();
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }

  async #answer(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const body = new Uint8Array(await request.arrayBuffer());
    const key = decodeURIComponent(url.pathname.slice(1));
    const seen: SeenS3 = {
      method: request.method,
      path: `/${key}${url.search && decodeURIComponent(url.search)}`,
      headers: Object.fromEntries(request.headers),
      size: body.length,
    };
    this.seen.push(seen);
    const fault = await this.fault?.(seen, this.seen.length);
    if (fault) return fault;
    const [bucket = ""] = key.split("/");
    if (!this.buckets.has(bucket)) return s3Error(404, "NoSuchBucket");
    if (!key.includes("/")) return this.#list(bucket, url);
    const uploadId = url.searchParams.get("uploadId");
    if (request.method === "POST" && url.searchParams.has("uploads")) {
      const id = `upload-${this.uploads.size}`;
      this.uploads.set(id, new Map());
      return xml(
        `<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`,
      );
    }
    if (uploadId !== null) return this.#part(request, url, uploadId, key, body);
    return this.#object(request, key, body);
  }

  #object(request: Request, key: string, body: Uint8Array): Response {
    const found = this.objects.get(key);
    switch (request.method) {
      case "PUT": {
        const source = request.headers.get("x-amz-copy-source");
        const from =
          source === null ? undefined : this.objects.get(decodeURIComponent(source.slice(1)));
        if (source !== null && !from) return s3Error(404, "NoSuchKey");
        this.put(key, from?.bytes ?? body);
        return source === null
          ? new Response(null, { headers: { etag: etag(body) } })
          : xml("<CopyObjectResult><ETag>x</ETag></CopyObjectResult>");
      }
      case "DELETE":
        this.objects.delete(key);
        return new Response(null, { status: 204 });
      default: {
        if (!found)
          return request.method === "HEAD"
            ? new Response(null, { status: 404 })
            : s3Error(404, "NoSuchKey");
        return objectResponse(request, found);
      }
    }
  }

  #part(request: Request, url: URL, id: string, key: string, body: Uint8Array): Response {
    const parts = this.uploads.get(id);
    if (!parts) return s3Error(404, "NoSuchUpload");
    if (request.method === "PUT") {
      parts.set(Number(url.searchParams.get("partNumber")), body);
      return new Response(null, { headers: { etag: etag(body) } });
    }
    this.uploads.delete(id);
    if (request.method === "DELETE") return new Response(null, { status: 204 });
    const sorted = [...parts].toSorted(([a], [b]) => a - b).map(([, bytes]) => bytes);
    this.put(key, Buffer.concat(sorted));
    return xml("<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>");
  }

  #list(bucket: string, url: URL): Response {
    const prefix = url.searchParams.get("prefix") ?? "";
    const after = url.searchParams.get("continuation-token") ?? "";
    const keys = this.keys()
      .filter((key) => key.startsWith(`${bucket}/${prefix}`))
      .map((key) => key.slice(bucket.length + 1))
      .filter((key) => key > after);
    const page = keys.slice(0, this.pageSize);
    const entries = page.map((key) => {
      const { bytes, modified } = this.objects.get(`${bucket}/${key}`) as Stored;
      return `<Contents><Key>${encodeURIComponent(key)}</Key><LastModified>${new Date(modified).toISOString()}</LastModified><Size>${bytes.length}</Size></Contents>`;
    });
    const more = keys.length > page.length;
    const next = more ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : "";
    return xml(
      `<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>${more}</IsTruncated>${next}${entries.join("")}</ListBucketResult>`,
    );
  }
}

/** An error as S3 words it. */
export function s3Error(
  status: number,
  code: string,
  headers: Record<string, string> = {},
): Response {
  return new Response(
    `<?xml version="1.0"?><Error><Code>${code}</Code><Message>The ${code} of a test.</Message></Error>`,
    { status, headers: { "content-type": "application/xml", ...headers } },
  );
}

function xml(text: string): Response {
  return new Response(`<?xml version="1.0"?>${text}`, {
    headers: { "content-type": "application/xml" },
  });
}

function etag(bytes: Uint8Array): string {
  return `"${createHash("md5").update(bytes).digest("hex")}"`;
}

function objectResponse(request: Request, { bytes, modified }: Stored): Response {
  const headers: Record<string, string> = {
    "last-modified": new Date(modified).toUTCString(),
    etag: etag(bytes),
  };
  const [, from] = /^bytes=(\d+)-/.exec(request.headers.get("range") ?? "") ?? [];
  if (request.method === "HEAD")
    return new Response(null, { headers: { ...headers, "content-length": String(bytes.length) } });
  if (from === undefined) return new Response(bytes as Uint8Array<ArrayBuffer>, { headers });
  const start = Number(from);
  return new Response(bytes.subarray(start) as Uint8Array<ArrayBuffer>, {
    status: 206,
    headers: { ...headers, "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` },
  });
}
