import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { parseArguments } from "../src/cli-arguments.ts";
import { CacheportError } from "../src/errors.ts";
import { createContext, Output, progressMode, takesColors } from "../src/cli-output.ts";
import { LEADING_OPTIONS } from "../src/cli-options.ts";
import { failure } from "./helpers/errors.ts";
import type { FakeHostOptions } from "./helpers/host.ts";
import { fakeHost } from "./helpers/host.ts";
import { has } from "./helpers/machine.ts";

function systemFailure(code: string): Error {
  return Object.assign(new Error(code), { code });
}

function parse(...argv: string[]) {
  return parseArguments({ command: "test", options: LEADING_OPTIONS, operands: [] }, argv);
}

function contextFor(argv: string[], options: FakeHostOptions = {}) {
  const fake = fakeHost(options);
  const args = parse(...argv);
  const output = new Output(fake.host, args.flag("json"));
  return { ...fake, output, context: createContext(fake.host, output, args) };
}

describe("results", () => {
  test("are the text and a line feed, or nothing", async () => {
    const { context, stdout } = contextFor([]);
    await context.result({ a: 1 }, () => "text");
    await context.result({ a: 1 }, () => "line\n");
    await context.result({ a: 1 }, () => "");
    expect(stdout()).toBe("text\nline\n");
  });

  test("are one line of JSON with --json, and the text is not made", async () => {
    const { context, stdout } = contextFor(["--json"]);
    await context.result({ a: [1, "é\n"] }, () => {
      throw new Error("not wanted");
    });
    expect(stdout()).toBe('{"a":[1,"é\\n"]}\n');
  });

  test("are indented on a terminal, and null where there is no value", async () => {
    const { context, stdout } = contextFor(["--json"], { columns: 80 });
    await context.result({ a: 1 }, () => "");
    await context.result(undefined, () => "");
    expect(stdout()).toBe('{\n  "a": 1\n}\nnull\n');
  });

  test("a reader that has gone is remembered", async () => {
    const { context, output } = contextFor([], {
      onWrite: () => {
        throw systemFailure("EPIPE");
      },
    });
    expect(output.readerGone).toBe(false);
    const error = await failure(() => context.write(new Uint8Array(3)));
    expect(error.code).toBe("IO_FAILED");
    expect(output.readerGone).toBe(true);
  });

  test("a full disk is told, and is no reader that has gone", async () => {
    const { context, output } = contextFor([], {
      onWrite: () => {
        throw systemFailure("ENOSPC");
      },
    });
    const error = await failure(() => context.write(new Uint8Array(3)));
    expect(error.code).toBe("NO_SPACE");
    expect(error.message).toBe("Cannot write to standard output: no space left on the device");
    expect(output.readerGone).toBe(false);
  });

  test("a reader that does not read cannot hold up an interrupt", async () => {
    const interruption = new AbortController();
    const { context } = contextFor([], {
      signal: interruption.signal,
      onWrite: () => new Promise<void>(() => {}),
    });
    const writing = failure(() => context.write(new Uint8Array(3)));
    interruption.abort();
    expect((await writing).code).toBe("INTERRUPTED");
    const again = await failure(() => context.write(new Uint8Array(3)));
    expect(again.code).toBe("INTERRUPTED");
  });
});

describe("standard input", () => {
  test("comes whole", async () => {
    const stdin = new Blob(["one", "two"]).stream();
    const { context } = contextFor([], { stdin });
    expect(await new Response(context.stdin()).text()).toBe("onetwo");
  });

  test("that never ends cannot hold up an interrupt", async () => {
    const interruption = new AbortController();
    const { context } = contextFor([], {
      signal: interruption.signal,
      stdin: new ReadableStream({ pull: () => new Promise<void>(() => {}) }),
    });
    const reading = failure(() => context.stdin().getReader().read());
    interruption.abort();
    expect((await reading).code).toBe("INTERRUPTED");
    const again = contextFor([], { signal: interruption.signal });
    const error = await failure(() => again.context.stdin().getReader().read());
    expect(error.code).toBe("INTERRUPTED");
  });
});

describe("failures", () => {
  const error = new CacheportError("NAME_NOT_FOUND", 'Cannot find "a\x1b[2J"', {
    hint: "Try\nagain",
  });

  test("are a sentence and a hint on standard error, safe to show", async () => {
    const { host, stdout, stderr } = fakeHost();
    await new Output(host, false).failure(error);
    expect(stderr()).toBe('cacheport: Cannot find "a\\x1b[2J"\nhint: Try\\x0aagain\n');
    expect(stdout()).toBe("");
  });

  test("are a value on standard output too with --json", async () => {
    const { host, stdout, stderr } = fakeHost();
    await new Output(host, true).failure(error);
    expect(JSON.parse(stdout())).toEqual({
      error: {
        code: "NAME_NOT_FOUND",
        message: error.message,
        hint: error.hint,
      },
    });
    expect(stderr()).toStartWith("cacheport: Cannot find");
  });

  test("have a null hint where there is none", async () => {
    const { host, stdout } = fakeHost();
    await new Output(host, true).failure(new CacheportError("INTERNAL", "Oh"));
    expect(stdout()).toBe('{"error":{"code":"INTERNAL","message":"Oh","hint":null}}\n');
  });

  test("leave a result alone that stands there already", async () => {
    const { context, output, stdout } = contextFor(["--json"]);
    await context.result([], () => "");
    await output.failure(error);
    expect(stdout()).toBe("[]\n");
  });
});

describe("notes", () => {
  test("go to standard error and cannot drive the terminal", () => {
    const { context, stdout, stderr } = contextFor([]);
    context.note("one\ntwo\x1b[31m");
    context.note(["three", "four\n##vso[x]"]);
    expect(stderr()).toBe("one\\x0atwo\\x1b[31m\nthree\nfour\\x0a\\x23#vso[x]\n");
    expect(stdout()).toBe("");
  });

  test("are left out with --quiet, and are events with --progress json", () => {
    const quiet = contextFor(["-q"]);
    quiet.context.note("one");
    expect(quiet.stderr()).toBe("");
    const json = contextFor(["--progress=json"]);
    json.context.note("one");
    expect(JSON.parse(json.stderr())).toMatchObject({
      event: "note",
      message: "one",
    });
  });
});

test.each([
  [{}, undefined, false],
  [{}, 80, true],
  [{ TERM: "dumb" }, 80, false],
  [{ NO_COLOR: "1" }, 80, false],
  [{ NO_COLOR: "yes" }, 80, false],
  [{ NO_COLOR: "" }, 80, true],
  [{ FORCE_COLOR: "1" }, undefined, true],
  [{ FORCE_COLOR: "0" }, 80, false],
  [{ FORCE_COLOR: "" }, undefined, false],
  [{ FORCE_COLOR: "1", NO_COLOR: "1" }, 80, false],
] as [Record<string, string>, number | undefined, boolean][])(
  "colours with %p on a terminal of %p columns: %p",
  (env, columns, colors) => {
    const { host } = fakeHost(columns === undefined ? {} : { columns });
    expect(takesColors(host.stdout, env)).toBe(colors);
  },
);

test.each([
  [[], {}, "plain"],
  [[], { columns: 80 }, "tty"],
  [[], { columns: 0 }, "tty"],
  [[], { columns: 80, env: { TERM: "dumb" } }, "plain"],
  [["-q"], { columns: 80 }, "none"],
  [["-q", "--progress=auto"], { columns: 80 }, "none"],
  [["-q", "--progress=json"], {}, "json"],
  [["--progress=none"], { columns: 80 }, "none"],
  [["--progress=tty"], {}, "tty"],
] as [string[], FakeHostOptions, string][])(
  "progress with %p and %p is %p",
  (argv, options, mode) => {
    expect(progressMode(parse(...argv), fakeHost(options).host)).toBe(mode as never);
  },
);

test.each(["--jobs=0", "--jobs=65", "--max-document=5X", "--lock-timeout=1y"])(
  "a command that does not need it refuses %p all the same",
  async (option) => {
    expect((await failure(() => contextFor([option]))).code).toBe("USAGE");
  },
);

describe("standard output of a process", () => {
  const WRITER = join(import.meta.dir, "helpers", "writer.ts");
  const run = (bytes: string, shell: string) => {
    const command = `"${process.execPath}" "${WRITER}" ${bytes} ${shell}`;
    const child = Bun.spawnSync(["bash", "-c", command]);
    return child.stdout.toString();
  };

  test.each(["0", "1", "4096", "65537", "10000000"])(
    "delivers all of %p bytes down a pipe",
    (bytes) => {
      expect(run(bytes, "| wc -c").trim()).toBe(bytes);
    },
  );

  test.skipIf(!has("python3"))(
    "delivers all to a slow reader that shares a non-blocking pipe",
    () => {
      const reader =
        'python3 -c "import os,time\nos.set_blocking(1,False)\n' +
        `os.execv('${process.execPath}',['bun','${WRITER}','1000000'])" | (sleep 0.2; wc -c)`;
      const child = Bun.spawnSync(["bash", "-c", reader]);
      expect(child.stdout.toString().trim()).toBe("1000000");
    },
  );

  test("ends quietly when the reader has had enough", () => {
    expect(run("10000000", "2>&1 | head -c 3; echo ${PIPESTATUS[0]}")).toBe("xxx0\n");
  });

  test("fails when the disk is full", () => {
    const text = run("10", "2>&1 > /dev/full; echo $?");
    expect(text).toContain("no space left on the device");
    expect(text).toEndWith("\n1\n");
  });
});
