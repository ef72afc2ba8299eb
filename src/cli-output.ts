/** What a command can reach of the world outside, and how its output leaves. */
import type { Arguments, CommandContext, CommandEntry } from "./cli-command.ts";
import { CacheportError, interrupted, systemCode, systemError } from "./errors.ts";
import type { ProgressDisplay, ProgressMode } from "./cli-progress.ts";
import { createProgress } from "./cli-progress.ts";
import { hintOf } from "./cli-hints.ts";
import { DEFAULT_JOBS } from "./concurrency.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";
import type { InputStream, OutputStream } from "./cli-streams.ts";
import { colored, jsonText, printable } from "./cli-text.ts";
import { maskSecrets } from "./object-place.ts";

/** What main.ts hands over of the process; the program knows nothing else of it. */
export interface Host {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Fires when the user interrupts. */
  readonly signal: AbortSignal;
  readonly stdin: InputStream;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
}

/**
 * Standard output with the rules of results: complete, one JSON value at most, and
 * quiet when the reader has gone.
 */
export class Output {
  readonly json: boolean;
  readonly #host: Host;
  #used = false;
  #readerGone = false;

  constructor(host: Host, json: boolean) {
    this.#host = host;
    this.json = json;
  }

  /** True when the reader closed the pipe: it had all that it wanted. */
  get readerGone(): boolean {
    return this.#readerGone;
  }

  /**
   * Writes bytes and waits until they are taken.
   *
   * @throws {CacheportError} IO_FAILED, NO_SPACE; INTERRUPTED while the reader lets it wait
   */
  async write(bytes: Uint8Array): Promise<void> {
    this.#used = true;
    const { signal, stdout } = this.#host;
    const ended = Promise.withResolvers<never>();
    const onAbort = (): void => ended.reject(interrupted());
    signal.addEventListener("abort", onAbort);
    try {
      signal.throwIfAborted();
      await Promise.race([stdout.write(bytes), ended.promise]);
    } catch (error) {
      this.#readerGone ||= systemCode(error) === "EPIPE";
      throw systemError("Cannot write to standard output", error);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Writes text, ending in a line feed unless it is empty. */
  async text(text: string): Promise<void> {
    const line = text === "" || text.endsWith("\n") ? text : `${text}\n`;
    await this.write(new TextEncoder().encode(line));
  }

  /** Prints a JSON value with `--json`, else the text. The value is indented for people only. */
  async result(value: unknown, text: () => string): Promise<void> {
    if (!this.json) return this.text(text());
    const indent = this.#host.stdout.isTerminal ? 2 : 0;
    await this.text(jsonText(value, indent));
  }

  /**
   * Tells a failure: the sentence and the hint on standard error, and with `--json`
   * the error as a value on standard output, unless a result stands there already.
   */
  async failure(error: CacheportError): Promise<void> {
    const { stderr, env } = this.#host;
    const colors = takesColors(stderr, env);
    const { code } = error;
    const message = maskSecrets(error.message);
    const hint = maskSecrets(hintOf(error) ?? "") || null;
    const label = colored("cacheport:", "red", colors);
    stderr.say(`${label} ${printable(message)}\n`);
    if (hint) stderr.say(`${colored("hint:", "cyan", colors)} ${printable(hint)}\n`);
    if (!this.json || this.#used || code === "INTERRUPTED") return;
    await this.result({ error: { code, message, hint } }, () => "");
  }
}

/**
 * Tells whether a stream takes colours: `NO_COLOR` turns them off, `FORCE_COLOR` on,
 * else a terminal does that is not a dumb one. Sources: no-color.org, force-color.org.
 */
export function takesColors(stream: OutputStream, env: Host["env"]): boolean {
  if (env["NO_COLOR"]) return false;
  const force = env["FORCE_COLOR"];
  if (force) return force !== "0";
  return stream.isTerminal && env["TERM"] !== "dumb";
}

/** The mode that is meant by `--progress` and `--quiet`. */
export function progressMode(args: Arguments<"quiet", "progress">, host: Host): ProgressMode {
  const asked = args.value("progress") as ProgressMode | "auto" | "rawjson" | undefined;
  // As buildx calls it.
  if (asked === "rawjson") return "json";
  if (asked !== undefined && asked !== "auto") return asked;
  if (args.flag("quiet")) return "none";
  const bars = host.stderr.isTerminal && host.env["TERM"] !== "dumb";
  return bars ? "tty" : "plain";
}

/** A context, and what only the program's edge may do with it. */
export interface EdgeContext extends CommandContext {
  readonly progress: ProgressDisplay;
}

/**
 * Makes the context of a command.
 *
 * @throws {CacheportError} USAGE when a shared option has a bad value
 */
export function createContext(
  host: Host,
  output: Output,
  args: Arguments<SharedFlag, SharedValue>,
  commands: readonly CommandEntry[] = [],
): EdgeContext {
  // Read here, so that a bad value is refused by commands that do not need it too.
  const jobs = args.integer("jobs", { min: 1, max: 64 }) ?? DEFAULT_JOBS;
  args.bytes("max-document");
  args.duration("lock-timeout");
  const { stdin, stdout, stderr } = host;
  const mode = progressMode(args, host);
  // A log gets the last line only where it was asked for.
  const summary = mode !== "plain" || stderr.isTerminal || args.value("progress") === "plain";
  const progress = createProgress(mode, stderr, { jobs, summary });
  return {
    env: host.env,
    signal: host.signal,
    json: output.json,
    columns: stdout.size().columns,
    colors: !output.json && takesColors(stdout, host.env),
    progress,
    commands,
    stdin: () => interruptible(stdin.open(), host.signal),
    async askSecret(question) {
      if (!stdin.isTerminal)
        throw new CacheportError("USAGE", "Cannot ask for a password: there is no terminal", {
          hint: "Write USER:PASSWORD, or echo $TOKEN | cacheport ... --username USER --password-stdin",
        });
      progress.clear();
      stderr.say(printable(question));
      const answer = await stdin.readSecret();
      stderr.say("\n");
      if (answer === undefined) throw interrupted();
      return answer;
    },
    get stdinIsTerminal() {
      return stdin.isTerminal;
    },
    get stdoutIsTerminal() {
      return stdout.isTerminal;
    },
    get summaryShown() {
      return progress.summarized && stdout.isTerminal && stderr.isTerminal;
    },
    async result(value, text) {
      progress.close({ summary: true });
      await output.result(value, text);
    },
    async write(bytes) {
      // Bytes and bars would overwrite each other on one terminal.
      if (stdout.isTerminal) progress.close({ summary: false });
      await output.write(bytes);
    },
    note(message) {
      if (args.flag("quiet")) return;
      const lines = typeof message === "string" ? [message] : message;
      progress.say(lines.map((line) => `${printable(maskSecrets(line))}\n`).join(""));
    },
  };
}

/** A stream that fails when the user interrupts, though its source does not end. */
function interruptible(
  source: ReadableStream<Uint8Array>,
  signal: AbortSignal,
): ReadableStream<Uint8Array> {
  const reader = source.getReader();
  return new ReadableStream({
    start(controller) {
      const end = (): void => controller.error(interrupted());
      if (signal.aborted) end();
      else signal.addEventListener("abort", end, { once: true });
    },
    async pull(controller) {
      const { done, value } = await reader.read();
      if (signal.aborted) return;
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
}
