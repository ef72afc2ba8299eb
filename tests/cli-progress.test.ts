import { describe, expect, test } from "bun:test";
import type { Digest } from "../src/digest.ts";
import type { Clock, ProgressMode } from "../src/cli-progress.ts";
import { createProgress } from "../src/cli-progress.ts";
import { fakeHost } from "./helpers/host.ts";

const A = `sha256:${"a".repeat(64)}` as Digest;
const B = `sha256:${"b".repeat(64)}` as Digest;

/** A clock that a test moves by hand. */
class HandClock implements Clock {
  time = 1000;
  #timers = new Set<{ every: number; next: number; run: () => void }>();

  now(): number {
    return this.time;
  }

  every(milliseconds: number, run: () => void): () => void {
    const timer = { every: milliseconds, next: this.time + milliseconds, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  pass(milliseconds: number): void {
    const end = this.time + milliseconds;
    while (this.time < end) {
      this.time += 10;
      for (const timer of this.#timers)
        if (timer.next <= this.time) {
          timer.next += timer.every;
          timer.run();
        }
    }
  }

  get timers(): number {
    return this.#timers.size;
  }
}

function setUp(mode: ProgressMode, size: { columns?: number; rows?: number } = {}) {
  const clock = new HandClock();
  const { host, stderr } = fakeHost(size);
  const progress = createProgress(mode, host.stderr, { jobs: 2, clock });
  return { clock, stderr, progress };
}

/** What a terminal shows after these bytes: lines, of cursor moves only those that are used. */
function screen(bytes: string): string[] {
  const lines: string[] = [""];
  let row = 0;
  for (const [, up, clearLine, clearDown, feed, back, text] of bytes
    .replaceAll("\x1b", "␛")
    .matchAll(/␛\[(\d+)A|(␛\[K)|(␛\[J)|(\n)|(\r)|([^␛\n\r]+)/g)) {
    if (up) row -= Number(up);
    else if (clearDown) lines.splice(row, Infinity, "");
    else if (feed) lines[++row] ??= "";
    else if (text) lines[row] = text;
    else expect(clearLine ?? back).toBeDefined();
    expect(row).toBeGreaterThanOrEqual(0);
  }
  return lines;
}

describe.each(["tty", "plain"] as const)("progress for people: %s", (mode) => {
  test("says of work that takes less than 300 ms only what was done", () => {
    const { clock, stderr, progress } = setUp(mode, { columns: 80 });
    progress.expect({ tasks: 1, bytes: 100 });
    const task = progress.start("copy", A, 100);
    task.advance(100);
    clock.pass(250);
    task.end("copied");
    expect(stderr()).toBe("");
    progress.close({ summary: true });
    expect(stderr()).toBe("1 copied, 100 B in 250ms (400 B/s)\n");
    expect(clock.timers).toBe(0);
  });

  test("sums up work that took no time at all", () => {
    const { stderr, progress } = setUp(mode, { columns: 80 });
    progress.start("copy", A, 100).end("skipped");
    progress.close({ summary: true });
    expect(stderr()).toBe("1 skipped, 0 B in 0ms (0 B/s)\n");
  });

  test("sums up nothing where nobody asked for it, however long it took", () => {
    for (const milliseconds of [0, 250, 1000]) {
      const clock = new HandClock();
      const { host, stderr } = fakeHost({ columns: 80 });
      const progress = createProgress(mode, host.stderr, { jobs: 2, summary: false, clock });
      const task = progress.start("copy", A, 100);
      clock.pass(milliseconds);
      task.end("copied");
      progress.close({ summary: true });
      expect(screen(stderr())).toEqual([""]);
    }
  });

  test("ends with one line on what was done", () => {
    const { clock, stderr, progress } = setUp(mode, { columns: 80 });
    const first = progress.start("copy", A, 2_000_000);
    const second = progress.start("copy", B, 500);
    second.end("skipped");
    clock.pass(1000);
    first.advance(2_000_000);
    first.end("copied");
    progress.close({ summary: true });
    progress.close({ summary: true });
    expect(screen(stderr()).at(-2)).toBe("1 skipped, 1 copied, 2.00 MB in 1.0s (2.00 MB/s)");
    expect(stderr().match(/skipped, 1 copied/g)).toHaveLength(1);
  });

  test("says nothing at the end of what failed", () => {
    const { clock, stderr, progress } = setUp(mode, { columns: 80 });
    progress.start("copy", A, 10).advance(5);
    clock.pass(1000);
    progress.close({ summary: false });
    expect(screen(stderr())).toEqual([""]);
  });

  test("says nothing after it is closed", () => {
    const { clock, stderr, progress } = setUp(mode, { columns: 80 });
    const task = progress.start("copy", A, 10);
    progress.close({ summary: false });
    clock.pass(20_000);
    task.advance(1);
    task.end("copied");
    progress.start("copy", B, 1).end("copied");
    expect(stderr()).toBe("");
  });
});

describe("progress on a terminal", () => {
  test("draws a bar for each of the first tasks and a line on all", () => {
    const { clock, stderr, progress } = setUp("tty", { columns: 100 });
    progress.expect({ tasks: 4, bytes: 4_000_000 });
    const task = progress.start("copy", A, 1_000_000);
    progress.start("hash", B, undefined).advance(1000);
    progress.start("copy", A, 10);
    for (let step = 0; step < 10; step++) {
      task.advance(50_000);
      clock.pass(100);
    }
    expect(screen(stderr())).toEqual([
      "copy aaaaaaaaaaaa [============>           ]  50% 500 kB/1.00 MB",
      "hash bbbbbbbbbbbb 1.00 kB",
      "0/4 blobs  12% of 4.00 MB  501 kB/s  ETA 7.0s",
      "",
    ]);
    task.end("copied");
    clock.pass(100);
    expect(screen(stderr())[2]).toStartWith("1/4 blobs  25% of 4.00 MB");
    progress.close({ summary: false });
    expect(screen(stderr())).toEqual([""]);
  });

  test.each([
    [
      40,
      [
        "copy aaaaaaaaaaaa  45% 12.3 MB/27.1 MB",
        "hash bbbbbbbbbbbb 1.00 kB",
        "0/2 blobs  45% of 27.1 MB  24.6 MB/s",
      ],
    ],
    [
      60,
      [
        "copy aaaaaaaaaaaa [========>         ]  45% 12.3 MB/27.1 MB",
        "hash bbbbbbbbbbbb 1.00 kB",
        "0/2 blobs  45% of 27.1 MB  24.6 MB/s",
      ],
    ],
    [30, ["copy aaaaaaaaaaaa  45%", "hash bbbbbbbbbbbb 1.00 kB", "0/2 blobs  45%  24.6 MB/s"]],
    [20, ["copy aaaaaaaaaaaa …", "hash bbbbbbbbbbbb …", "0/2 blobs  45%"]],
  ])("shows at %p columns what there is room for", (columns, expected) => {
    const { clock, stderr, progress } = setUp("tty", { columns });
    progress.start("copy", A, 27_100_000).advance(12_300_000);
    progress.start("hash", B, undefined).advance(1000);
    clock.pass(500);
    expect(screen(stderr()).slice(0, -1)).toEqual(expected);
  });

  test("gives no estimate below a second", () => {
    const { clock, stderr, progress } = setUp("tty", { columns: 100 });
    const task = progress.start("copy", A, 1_000_000);
    task.advance(300_000);
    clock.pass(500);
    expect(screen(stderr())[1]).toContain("ETA 1.2s");
    task.advance(200_000);
    clock.pass(100);
    expect(screen(stderr())[1]).not.toContain("ETA");
  });

  test.each([0, 1, 10, 40])("fits into %p columns", (columns) => {
    const { clock, stderr, progress } = setUp("tty", { columns, rows: 3 });
    progress.start("copy", A, 1_000_000).advance(10);
    progress.start("copy", B, 1_000_000).advance(10);
    clock.pass(500);
    const lines = screen(stderr());
    expect(lines.length).toBeLessThanOrEqual(3);
    for (const line of lines) expect(Bun.stringWidth(line)).toBeLessThan(columns || 80);
  });

  test("lets notes stand above the bars", () => {
    const { clock, stderr, progress } = setUp("tty", { columns: 80 });
    progress.start("copy", A, 100);
    clock.pass(400);
    progress.say("a note\n");
    clock.pass(100);
    expect(screen(stderr())[0]).toBe("a note");
    progress.close({ summary: false });
    expect(screen(stderr())).toEqual(["a note", ""]);
  });

  test("is drawn while hashing keeps timers from firing", () => {
    const { clock, stderr, progress } = setUp("tty", { columns: 80 });
    const task = progress.start("hash", A, 100);
    clock.time += 400;
    task.advance(50);
    expect(stderr()).toContain("50%");
  });

  test("sizes that are wrong break nothing", () => {
    const { clock, stderr, progress } = setUp("tty", { columns: 80 });
    const task = progress.start("copy", A, 10);
    progress.start("copy", B, 0);
    task.advance(1000);
    clock.pass(400);
    expect(screen(stderr())[0]).toContain("100% 1.00 kB/10 B");
  });
});

test("a log gets a line every five seconds, without any control character", () => {
  const { clock, stderr, progress } = setUp("plain");
  progress.expect({ tasks: 1, bytes: 100_000_000 });
  const task = progress.start("copy", A, 100_000_000);
  for (let second = 0; second < 11; second++) {
    task.advance(1_000_000);
    clock.pass(1000);
  }
  task.end("copied");
  progress.close({ summary: true });
  expect(stderr()).toBe(
    "0/1 blobs  5% of 100 MB  1.00 MB/s  ETA 1m35s\n" +
      "0/1 blobs  10% of 100 MB  1.00 MB/s  ETA 1m30s\n" +
      "1 copied, 11.0 MB in 11.0s (1.00 MB/s)\n",
  );
});

test("machines get every event as a line of JSON", () => {
  const { clock, stderr, progress } = setUp("json");
  const task = progress.start("copy", A, 300);
  task.advance(100);
  clock.pass(250);
  clock.pass(250);
  progress.say("a note\n");
  task.advance(200);
  task.end("copied");
  task.end("failed");
  progress.start("hash", B, undefined).end("skipped");
  progress.close({ summary: true });
  const events = stderr()
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(events).toEqual([
    { event: "start", action: "copy", digest: A, size: 300, elapsed: 0 },
    {
      event: "progress",
      action: "copy",
      digest: A,
      bytes: 100,
      size: 300,
      elapsed: 250,
    },
    { event: "note", message: "a note", elapsed: 500 },
    {
      event: "end",
      action: "copy",
      digest: A,
      outcome: "copied",
      bytes: 300,
      elapsed: 500,
    },
    { event: "start", action: "hash", digest: B, size: null, elapsed: 500 },
    {
      event: "end",
      action: "hash",
      digest: B,
      outcome: "skipped",
      bytes: 0,
      elapsed: 500,
    },
    {
      event: "summary",
      outcomes: { copied: 1, skipped: 1 },
      bytes: 300,
      elapsed: 500,
    },
  ]);
});

test("with none nothing is shown but notes", () => {
  const { clock, stderr, progress } = setUp("none", { columns: 80 });
  progress.start("copy", A, 10).advance(5);
  clock.pass(10_000);
  progress.say("a note\n");
  progress.close({ summary: true });
  expect(stderr()).toBe("a note\n");
});
