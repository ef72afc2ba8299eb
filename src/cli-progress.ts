/**
 * Shows the progress of operations on standard error: bars on a terminal, a line
 * now and then in a log, JSON lines for machines. Bars come only where work takes a
 * moment; whether a last line sums it up does not depend on how long it took.
 */
import type { Digest } from "./digest.ts";
import { shortDigest } from "./digest.ts";
import type { ProgressOutcome, ProgressReporter, ProgressTask } from "./progress.ts";
import type { OutputStream } from "./cli-streams.ts";
import { jsonText, printable, truncate } from "./cli-text.ts";
import { formatBytes, formatDuration } from "./units.ts";

/** How progress is shown. */
export type ProgressMode = "tty" | "plain" | "json" | "none";

/** A reporter that shows what it is told. */
export interface ProgressDisplay extends ProgressReporter {
  /** Writes a line of another kind to standard error without spoiling the bars. */
  say(line: string): void;
  /** What has been moved as a whole so far. */
  readonly moved: { blobs: number; bytes: number };
  /** True when the last line has summed up the work for people. */
  readonly summarized: boolean;
  /** Takes the bars away, so that something else can be written to the terminal. */
  clear(): void;
  /** Ends the display. With `summary` one last line tells what was done. */
  close(options: { summary: boolean }): void;
}

/** Time, given from outside so that tests need not wait. */
export interface Clock {
  /** Milliseconds from some fixed moment. */
  now(): number;
  /** Calls a function again and again; gives the function that ends it. */
  every(milliseconds: number, run: () => void): () => void;
}

/** The clock of the machine. Its timer does not keep the program alive. */
export const systemClock: Clock = {
  now: () => performance.now(),
  every(milliseconds, run) {
    const timer = setInterval(run, milliseconds);
    timer.unref();
    return () => clearInterval(timer);
  },
};

/** Work that takes less shows no bars and no lines on the way. */
const QUIET_MILLISECONDS = 300;
const INTERVALS = { tty: 100, plain: 5000, json: 250, none: Infinity };
/** The rate is that of the last seconds, so that it follows the network. */
const RATE_WINDOW_MILLISECONDS = 5000;
const BAR_COLUMNS = 24;
/** A bar that is shorter tells less than the numbers beside it. */
const SMALLEST_BAR = 6;
/** An estimate below this is over before it is read. */
const SMALLEST_ETA_MILLISECONDS = 1000;

/** A task under way. */
interface Running {
  readonly action: string;
  readonly digest: Digest;
  readonly size: number | undefined;
  bytes: number;
  /** What the last JSON line told. */
  told: number;
}

/**
 * Makes a display.
 *
 * @param options.jobs The most bars that are shown at once.
 * @param options.summary False where nobody asked for the last line: in a log.
 */
export function createProgress(
  mode: ProgressMode,
  stream: OutputStream,
  options: { jobs: number; summary?: boolean; clock?: Clock },
): ProgressDisplay {
  const { jobs, summary = true, clock = systemClock } = options;
  return new Display(mode, stream, { jobs, summary, clock });
}

class Display implements ProgressDisplay {
  readonly isLive: boolean;
  readonly #mode: ProgressMode;
  readonly #stream: OutputStream;
  readonly #jobs: number;
  readonly #clock: Clock;
  readonly #wantsSummary: boolean;
  readonly #running = new Set<Running>();
  readonly #outcomes = new Map<ProgressOutcome, number>();
  readonly #samples: { at: number; moved: number }[] = [];
  #expected = { tasks: 0, bytes: 0 };
  #started = { tasks: 0, bytes: 0 };
  #ended = 0;
  /** Bytes that were moved. */
  #moved = 0;
  /** Bytes of those that arrived whole. */
  #whole = 0;
  /** Bytes that need not be moved, for their task ended without. */
  #spared = 0;
  #begin: number | undefined;
  #lastShown = 0;
  #lines = 0;
  #stop: (() => void) | undefined;
  #closed = false;
  #summarized = false;

  constructor(
    mode: ProgressMode,
    stream: OutputStream,
    options: { jobs: number; summary: boolean; clock: Clock },
  ) {
    this.#mode = mode;
    this.isLive = mode === "tty" || mode === "json";
    this.#stream = stream;
    this.#jobs = options.jobs;
    this.#wantsSummary = options.summary;
    this.#clock = options.clock;
  }

  expect(work: { tasks: number; bytes: number }): void {
    this.#expected.tasks += work.tasks;
    this.#expected.bytes += work.bytes;
    this.#wake();
  }

  start(action: string, digest: Digest, size: number | undefined): ProgressTask {
    const task: Running = { action, digest, size, bytes: 0, told: 0 };
    this.#started.tasks++;
    this.#started.bytes += size ?? 0;
    this.#running.add(task);
    this.#wake();
    this.#event({ event: "start", action, digest, size: size ?? null });
    return {
      advance: (bytes) => {
        if (!this.#running.has(task)) return;
        task.bytes += bytes;
        this.#moved += bytes;
        // Hashing keeps the timer from firing, so the clock is asked here too.
        this.#show(false);
      },
      end: (outcome) => {
        if (!this.#running.delete(task)) return;
        this.#ended++;
        this.#spared += Math.max(0, (size ?? 0) - task.bytes);
        this.#outcomes.set(outcome, (this.#outcomes.get(outcome) ?? 0) + 1);
        const { bytes } = task;
        if (outcome === "copied") this.#whole += bytes;
        this.#event({ event: "end", action, digest, outcome, bytes });
      },
    };
  }

  get summarized(): boolean {
    return this.#summarized;
  }

  get moved(): { blobs: number; bytes: number } {
    return { blobs: this.#outcomes.get("copied") ?? 0, bytes: this.#whole };
  }

  say(line: string): void {
    if (this.#mode === "json" && !this.#closed)
      return this.#event({ event: "note", message: line.trimEnd() });
    this.clear();
    this.#stream.say(line);
  }

  clear(): void {
    if (this.#lines > 0) this.#stream.say(`${up(this.#lines)}\r\x1b[J`);
    this.#lines = 0;
  }

  close(options: { summary: boolean }): void {
    if (this.#closed) return;
    this.#stop?.();
    this.clear();
    if (options.summary && this.#started.tasks > 0) this.#summarize();
    this.#closed = true;
  }

  /** Starts the clock with the first piece of work. */
  #wake(): void {
    if (this.#begin !== undefined || this.#closed || this.#mode === "none") return;
    this.#begin = this.#clock.now();
    this.#lastShown = this.#begin;
    this.#stop = this.#clock.every(INTERVALS[this.#mode], () => this.#show(true));
  }

  #elapsed(): number {
    return this.#clock.now() - (this.#begin ?? this.#clock.now());
  }

  /** Shows where the work stands, if it is time to. */
  #show(timer: boolean): void {
    if (this.#mode === "none" || this.#closed) return;
    const now = this.#clock.now();
    if (!timer && now - this.#lastShown < INTERVALS[this.#mode]) return;
    this.#lastShown = now;
    this.#sample(now);
    if (this.#mode === "json") return this.#tellTasks();
    if (this.#elapsed() < QUIET_MILLISECONDS) return;
    if (this.#mode === "plain") this.#stream.say(`${this.#total()}\n`);
    else this.#draw();
  }

  #draw(): void {
    const { columns, rows } = this.#stream.size();
    // The last column stays free: a full line makes some terminals wrap.
    const width = (columns || 80) - 1;
    const bars = Math.max(0, Math.min(this.#jobs, (rows || 24) - 2));
    const lines = [...this.#running]
      .slice(0, bars)
      .map((task) => bar(task, width))
      .concat(this.#total(width))
      .map((line) => `${truncate(line, width)}\x1b[K\n`);
    this.#stream.say(`${this.#lines > 0 ? up(this.#lines) : ""}\r${lines.join("")}\x1b[J`);
    this.#lines = lines.length;
  }

  /** One line on everything: `3/12 blobs  40% of 1.21 GB  85.0 MB/s  ETA 9.1s`. */
  #total(width = Infinity): string {
    const tasks = Math.max(this.#expected.tasks, this.#started.tasks);
    const bytes = Math.max(this.#expected.bytes, this.#started.bytes);
    const done = this.#moved + this.#spared;
    const rate = this.#rate();
    const eta = rate > 0 ? ((bytes - done) / rate) * 1000 : 0;
    const share = bytes > 0 ? percent(done, bytes) : undefined;
    const parts = [
      `${this.#ended}/${tasks} blobs`,
      share ? `${share} of ${formatBytes(bytes)}` : formatBytes(done),
      rate > 0 ? `${formatBytes(rate)}/s` : "",
      eta >= SMALLEST_ETA_MILLISECONDS ? `ETA ${formatDuration(eta)}` : "",
    ];
    // What a narrow terminal has room for, the least needed left out first.
    return widest(width, [
      parts,
      [parts[0], share ?? parts[1], parts[2], parts[3]],
      [parts[0], share ?? parts[1], parts[3]],
      [parts[0], share ?? parts[1]],
    ]);
  }

  /** Bytes a second over the last seconds. */
  #rate(): number {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (!first || !last || last.at === first.at) return 0;
    return ((last.moved - first.moved) / (last.at - first.at)) * 1000;
  }

  #sample(now: number): void {
    if (this.#samples.length === 0) this.#samples.push({ at: this.#begin ?? now, moved: 0 });
    this.#samples.push({ at: now, moved: this.#moved });
    while (
      this.#samples.length > 2 &&
      now - (this.#samples[0]?.at ?? now) > RATE_WINDOW_MILLISECONDS
    )
      this.#samples.shift();
  }

  /** The last line: `9 copied, 3 skipped, 1.21 GB in 13.2s (91.7 MB/s)`. */
  #summarize(): void {
    const elapsed = this.#elapsed();
    const outcomes = Object.fromEntries(this.#outcomes);
    const bytes = this.#moved;
    if (this.#mode === "json") return this.#event({ event: "summary", outcomes, bytes });
    if (this.#mode === "none" || !this.#wantsSummary) return;
    this.#summarized = true;
    const counts = [...this.#outcomes].map(([name, count]) => `${count} ${name}`);
    const rate = formatBytes((bytes / Math.max(1, elapsed)) * 1000);
    const amount = `${formatBytes(bytes)} in ${formatDuration(elapsed)} (${rate}/s)`;
    this.#stream.say(`${[...counts, amount].join(", ")}\n`);
  }

  #tellTasks(): void {
    for (const task of this.#running) {
      if (task.bytes === task.told) continue;
      task.told = task.bytes;
      const { action, digest, bytes, size } = task;
      this.#event({
        event: "progress",
        action,
        digest,
        bytes,
        size: size ?? null,
      });
    }
  }

  #event(event: Record<string, unknown>): void {
    if (this.#mode !== "json" || this.#closed) return;
    const elapsed = Math.round(this.#elapsed());
    this.#stream.say(`${jsonText({ ...event, elapsed })}\n`);
  }
}

/** Moves the cursor up. */
function up(lines: number): string {
  return `\x1b[${lines}A`;
}

function percent(part: number, whole: number): string {
  return `${Math.min(100, Math.floor((part / whole) * 100))}%`;
}

/**
 * One task: `copy 2cf24dba5fb0 [=====>     ]  45% 12.3 MB/27.1 MB`. In a narrow terminal the
 * bar gets shorter, then goes, then the amounts: the numbers are what one looks for.
 */
function bar(task: Running, width: number): string {
  const head = `${printable(task.action)} ${shortDigest(task.digest)}`;
  const bytes = formatBytes(task.bytes);
  if (!task.size) return `${head} ${bytes}`;
  const share = percent(task.bytes, task.size).padStart(4);
  const amount = `${bytes}/${formatBytes(task.size)}`;
  // Two brackets and three blanks are between the parts.
  const room = width - head.length - share.length - amount.length - 5;
  const columns = Math.min(BAR_COLUMNS, room);
  if (columns < SMALLEST_BAR)
    return widest(width, [[`${head} ${share} ${amount}`], [`${head} ${share}`]]);
  const filled = Math.floor(Math.min(1, task.bytes / task.size) * columns);
  const line = `${"=".repeat(filled)}${filled < columns ? ">" : ""}`;
  return `${head} [${line.padEnd(columns)}] ${share} ${amount}`;
}

/** The first of several lines that fits, else the last; empty parts are left out. */
function widest(width: number, lines: readonly (readonly (string | undefined)[])[]): string {
  const texts = lines.map((parts) => parts.filter(Boolean).join("  "));
  return texts.find((text) => text.length <= width) ?? texts.at(-1) ?? "";
}
