/**
 * What keeps requests to a registry within bounds: how many run at once, how long
 * one may stand still, and how long to wait before the next try.
 */
import { Gate } from "./concurrency.ts";

const gates = new Map<string, Gate>();

/**
 * The gate that all repositories of one registry share.
 *
 * @param size Requests at once; the last caller's number counts.
 */
export function hostGate(host: string, size: number): Gate {
  const gate = gates.get(host);
  if (!gate) {
    const made = new Gate(size);
    gates.set(host, made);
    return made;
  }
  gate.resize(size);
  return gate;
}

/** Slower than this over a whole window counts as standing still, in bytes per second. */
const MIN_RATE = 1024;

/**
 * Notices that a transfer stands still. Only the time spent waiting for the
 * network counts, so that a slow reader on this side is no fault of the server.
 */
export class StallWatch {
  readonly #window: number;
  readonly #onStall: () => void;
  readonly #grace: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #since = 0;
  #waited = 0;
  #bytes = 0;

  /**
   * @param window Milliseconds of waiting after which the rate is looked at.
   * @param grace Milliseconds that the other side may take longer once it has everything.
   */
  constructor(window: number, onStall: () => void, grace = 0) {
    this.#window = window;
    this.#onStall = onStall;
    this.#grace = grace;
  }

  /** Starts to wait for the network. */
  wait(): void {
    this.#since = performance.now();
    this.#timer = setTimeout(() => this.#check(), Math.max(this.#window - this.#waited, 1));
  }

  /** Ends the wait: so many bytes have moved. */
  got(bytes: number): void {
    if (this.#timer !== undefined) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#waited += performance.now() - this.#since;
    }
    this.#bytes += bytes;
  }

  /** Waits for the answer to what has been sent whole. */
  waitForAnswer(): void {
    this.stop();
    this.#timer = setTimeout(this.#onStall, this.#window + this.#grace);
  }

  /** Ends the watch. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #check(): void {
    this.#timer = undefined;
    if (this.#bytes < (this.#window / 1000) * MIN_RATE) return this.#onStall();
    this.#waited = 0;
    this.#bytes = 0;
    this.wait();
  }
}

/**
 * The milliseconds that a `Retry-After` header asks for, or undefined for none.
 *
 * @param now Milliseconds since 1970.
 * @see RFC 9110, section 10.2.3: seconds, or a date.
 */
export function parseRetryAfter(header: string | null, now: number): number | undefined {
  const text = header?.trim() ?? "";
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  if (!/^[A-Za-z]{3},? /.test(text)) return undefined;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(date - now, 0);
}

/**
 * The pause before a further try: doubled each time, up to 8 s, and spread at random
 * over its second half, so that many clients do not come back together.
 *
 * @param failures Tries that have failed, at least 1.
 * @param base Milliseconds of the first pause.
 */
export function backOff(failures: number, base: number): number {
  const pause = Math.min(base * 2 ** (failures - 1), Math.max(base, 8000));
  return pause * (0.5 + Math.random() / 2);
}

/** Waits, unless the signal fires first; then its reason is thrown. */
export async function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
