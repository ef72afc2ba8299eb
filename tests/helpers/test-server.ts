/** HTTP servers for tests: answers by a function, faults on order, every request written down. */
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";

/** A request as it arrived. */
export interface SeenRequest {
  method: string;
  /** Path and query. */
  url: string;
  headers: Record<string, string>;
  body: Uint8Array;
}

/** An answer that is ready to be sent. */
export interface Answer {
  status: number;
  headers?: Record<string, string | undefined>;
  body?: Uint8Array | string;
}

/** Changes what happens to some requests. */
export interface Fault {
  method?: string;
  path: RegExp;
  /** How often it happens; 1 unless told otherwise. */
  times?: number;
  /** Breaks the connection after so many bytes of the request's body. */
  resetAfter?: number;
  /** Answers in its own way. */
  act?(answer: Answer, response: ServerResponse, request: SeenRequest): void;
  /** Answers with this instead of the registry's own answer. */
  answer?: Answer | ((request: SeenRequest) => Answer);
}

export function sha256(bytes: Uint8Array | string): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** An answer in the form that registries refuse in. */
export function failed(status: number, code: string, message = code): Answer {
  return {
    status,
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ errors: [{ code, message }] }),
  };
}

/** A server whose requests are answered by a function. */
export class TestServer {
  readonly seen: SeenRequest[] = [];
  readonly faults: Fault[] = [];
  /** The most requests that were under way at once. */
  busiest = 0;
  #busy = 0;
  readonly #server: ReturnType<typeof createServer>;
  readonly #tls: boolean;
  answer: (request: SeenRequest) => Answer | Promise<Answer>;

  constructor(
    answer: (request: SeenRequest) => Answer | Promise<Answer>,
    tls?: { key: string; cert: string },
  ) {
    this.answer = answer;
    this.#tls = tls !== undefined;
    const listener = (request: IncomingMessage, response: ServerResponse) =>
      void this.#serve(request, response);
    this.#server = tls
      ? (createTlsServer(tls, listener) as ReturnType<typeof createServer>)
      : createServer(listener);
  }

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return this;
  }

  /** Host and port. */
  get domain(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get origin(): string {
    return `${this.#tls ? "https" : "http"}://${this.domain}`;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** The requests of a method whose address matches. */
  requests(method: string, path = /./): SeenRequest[] {
    return this.seen.filter((request) => request.method === method && path.test(request.url));
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#busy += 1;
    this.busiest = Math.max(this.busiest, this.#busy);
    response.on("close", () => (this.#busy -= 1));
    incoming.on("error", () => {});
    const method = incoming.method ?? "";
    const url = incoming.url ?? "";
    const fault = this.#takeFault(method, url);
    const chunks: Uint8Array[] = [];
    let size = 0;
    try {
      for await (const chunk of incoming) {
        chunks.push(chunk as Uint8Array);
        size += (chunk as Uint8Array).length;
        if (fault?.resetAfter !== undefined && size >= fault.resetAfter) {
          incoming.socket.destroy();
          return;
        }
      }
    } catch {
      return;
    }
    if (fault?.resetAfter !== undefined) {
      incoming.socket.destroy();
      return;
    }
    const request: SeenRequest = {
      method,
      url,
      headers: incoming.headers as Record<string, string>,
      body: Buffer.concat(chunks),
    };
    this.seen.push(request);
    const own = fault?.answer;
    const answer = typeof own === "function" ? own(request) : (own ?? (await this.answer(request)));
    if (fault?.act) fault.act(answer, response, request);
    else send(answer, response, request);
  }

  #takeFault(method: string, url: string): Fault | undefined {
    const fault = this.faults.find(
      (one) =>
        (one.times ?? 1) > 0 &&
        (one.method === undefined || one.method === method) &&
        one.path.test(url),
    );
    if (fault) fault.times = (fault.times ?? 1) - 1;
    return fault;
  }
}

/** Sends an answer as it should be. */
export function send(
  { status, headers = {}, body = "" }: Answer,
  response: ServerResponse,
  request: SeenRequest,
): void {
  const bytes = Buffer.from(body as Uint8Array);
  response.writeHead(status, { "content-length": bytes.length, ...headers });
  const promised = Number(headers["content-length"] ?? bytes.length);
  // What was promised and does not come: the connection breaks, as that of a Go server does.
  if (request.method !== "HEAD" && bytes.length === 0 && promised > 0 && status === 200) {
    response.flushHeaders();
    setTimeout(() => response.socket?.destroy(), 5);
    return;
  }
  response.end(request.method === "HEAD" ? undefined : bytes);
}

/** Sends the first part of a body and breaks the connection. */
export function cutAfter(bytes: number): NonNullable<Fault["act"]> {
  return ({ status, headers, body = "" }, response) => {
    const whole = Buffer.from(body as Uint8Array);
    response.writeHead(status, { "content-length": whole.length, ...headers });
    response.write(whole.subarray(0, bytes), () => setTimeout(() => response.socket?.destroy(), 5));
    if (bytes === 0) response.socket?.destroy();
  };
}

/** Sends a body with one bit changed. */
export function corruptAt(position: number): NonNullable<Fault["act"]> {
  return (answer, response, request) => {
    const bytes = Buffer.from(answer.body as Uint8Array);
    if (bytes.length > 0) {
      const index = Math.min(position, bytes.length - 1);
      bytes[index] = (bytes[index] ?? 0) ^ 1;
    }
    send({ ...answer, body: bytes }, response, request);
  };
}

/** Sends a body byte by byte, never coming to its end. */
export function drip(milliseconds: number): NonNullable<Fault["act"]> {
  return ({ status, headers, body = "" }, response) => {
    const bytes = Buffer.from(body as Uint8Array);
    response.writeHead(status, { "content-length": bytes.length, ...headers });
    let position = 0;
    const timer = setInterval(() => {
      if (position >= bytes.length - 1) return;
      response.write(bytes.subarray(position, ++position));
    }, milliseconds);
    response.on("close", () => clearInterval(timer));
  };
}

/** Sends a body without its length, in chunks. */
export function chunked(parts: number, lengthOf = 1): NonNullable<Fault["act"]> {
  return ({ status, headers, body = "" }, response) => {
    const bytes = Buffer.from(body as Uint8Array);
    const end = Math.floor(bytes.length * lengthOf);
    response.writeHead(status, headers);
    const step = Math.max(1, Math.ceil(end / parts));
    for (let at = 0; at < end; at += step)
      response.write(bytes.subarray(at, Math.min(at + step, end)));
    response.end();
  };
}
