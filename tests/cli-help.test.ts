import { describe, expect, test } from "bun:test";
import type { CommandSpec } from "../src/cli-command.ts";
import { COMMANDS } from "../src/command-table.ts";
import { EXIT_CODES } from "../src/errors.ts";
import { commandHelp, EXIT_CODE_MEANINGS, programHelp, usageLine } from "../src/cli-help.ts";
import { manPage } from "../src/cli-man.ts";
import { sharedOptions } from "../src/cli-options.ts";

const PLAIN = { columns: 0, colors: false };
const EXAMPLE: CommandSpec = {
  name: "merge",
  summary: "Merge several caches into one",
  description: `First paragraph. ${"word ".repeat(40).trim()}.\n\nSecond paragraph.`,
  operands: [
    { name: "SRC", description: "A cache", kind: "location", repeat: true },
    {
      name: "DST",
      description: "The target",
      kind: "location",
      optional: true,
    },
  ],
  options: [
    {
      name: "to",
      short: "t",
      value: "SHAPE",
      choices: ["a", "b"],
      description: "The shape",
    },
    { name: "tag", value: "NAME", repeat: true, description: "A name" },
    {
      name: "an-option-with-a-very-long-name-indeed",
      value: "SOMETHING",
      description: "Long",
    },
  ],
  examples: [
    {
      command: `cacheport merge ${"x".repeat(120)} .dst`,
      description: "All of it",
    },
    { command: "cacheport merge a b", description: "Two" },
  ],
  async run() {},
};

describe("the help of a command", () => {
  const text = commandHelp(EXAMPLE, PLAIN);

  test("has the usage, operands, options, examples and exit codes", () => {
    expect(usageLine(EXAMPLE)).toBe("cacheport merge SRC... [DST] [OPTION...]");
    expect(text).toContain("\nUsage:\n  cacheport merge SRC... [DST] [OPTION...]\n");
    expect(text).toContain("\n  SRC  A cache\n");
    expect(text).toMatch(/\n {2}-t, --to SHAPE +The shape: a, b\n/);
    expect(text).toMatch(/--tag NAME +A name; may be given several times\n/);
    expect(text).toContain("\n  # Two\n  cacheport merge a b\n");
    expect(text).toContain("\nSecond paragraph.".replace("\n", "\n  "));
    for (const [code, meaning] of EXIT_CODE_MEANINGS)
      expect(text).toMatch(new RegExp(`\n  ${code} +${meaning.slice(0, 20)}`));
    expect(text).toContain('{"error":{"code","message","hint"}}');
  });

  test("lists the options on registries only where there are locations", () => {
    expect(text).toContain("--plain-http");
    const without = { ...EXAMPLE, operands: [] };
    expect(commandHelp(without, PLAIN)).not.toContain("--plain-http");
    expect(commandHelp(without, PLAIN)).toContain("--lock-timeout");
  });

  test.each([
    [0, 80],
    [40, 40],
    [10, 40],
    [72, 72],
    [500, 100],
  ])("on %p columns is %p wide; examples are never wrapped", (columns, width) => {
    const lines = commandHelp(EXAMPLE, { columns, colors: false }).split("\n");
    const wide = lines.filter((line) => line.length > width);
    expect(wide.filter((line) => !/^ {2}cacheport|^ +--an-option/.test(line))).toEqual([]);
    expect(lines).toContain(`  ${EXAMPLE.examples[0]?.command}`);
    if (width >= 72)
      expect(
        Math.max(...lines.filter((line) => /word/.test(line)).map((line) => line.length)),
      ).toBeGreaterThan(width - 8);
  });

  test("has no trailing blanks, and colours only when asked", () => {
    expect(text).not.toMatch(/ \n/);
    expect(text).not.toContain("\x1b");
    expect(commandHelp(EXAMPLE, { columns: 0, colors: true })).toContain("\x1b[1mUsage:\x1b[22m");
  });
});

test("the help of the program lists commands that are not hidden", () => {
  const text = programHelp(COMMANDS, PLAIN);
  for (const { name, summary, hidden } of COMMANDS) {
    if (hidden) expect(text).not.toContain(name);
    else expect(text).toContain(`  ${name} `);
    expect(summary).not.toEndWith(".");
  }
  expect(text).toContain("NO_COLOR");
});

test("every exit code of an error has a meaning in the help", () => {
  const told = EXIT_CODE_MEANINGS.map(([code]) => code);
  expect(told).toEqual([...new Set([0, ...Object.values(EXIT_CODES)])].toSorted((a, b) => a - b));
});

describe.each(COMMANDS.map((entry) => [entry.name, entry] as const))(
  "the command %s",
  (name, entry) => {
    test("says of itself what the table says", async () => {
      const spec = await entry.load();
      expect(spec.name).toBe(name);
      expect(spec.summary).toBe(entry.summary);
    });

    test("names each option once, also against the shared ones", async () => {
      const spec = await entry.load();
      const options = [...spec.options, ...sharedOptions(spec)];
      const words = options.flatMap(({ name: long, short }) => (short ? [long, short] : [long]));
      expect(new Set(words).size).toBe(words.length);
      for (const { value, choices } of options) if (choices) expect(value).toBeDefined();
    });

    test("has at most one operand that repeats, and examples that call it", async () => {
      const spec = await entry.load();
      expect(spec.operands.filter(({ repeat }) => repeat).length).toBeLessThan(2);
      expect(spec.examples.length).toBeGreaterThan(0);
      for (const { command } of spec.examples) expect(command).toContain(`cacheport ${name}`);
    });

    test("describes everything in one line without a full stop", async () => {
      const spec = await entry.load();
      for (const { description } of [...spec.options, ...spec.operands, ...spec.examples])
        expect(description).toMatch(/^[^\n]+[^.\n]$/);
    });
  },
);

test.each(COMMANDS.map(({ name }) => name))(
  "every line of the examples of %s is a comment or a command, at any width",
  async (name) => {
    const spec = await COMMANDS.find((entry) => entry.name === name)!.load();
    for (const columns of [40, 80, 120]) {
      const help = commandHelp(spec, { columns, colors: false });
      const [, examples = ""] = /\nExamples:\n([^]*?)(?:\n\n\S|$)/.exec(help) ?? [];
      for (const line of examples.split("\n").filter((text) => text !== ""))
        expect(line).toMatch(new RegExp(`^  (?:# |.*cacheport ${name}\\b)`));
    }
  },
);

test("heal and convert each tell their own default shape", async () => {
  const help = async (name: string) =>
    commandHelp(await COMMANDS.find((entry) => entry.name === name)!.load(), PLAIN).replace(
      /\s+/g,
      " ",
    );
  expect(await help("heal")).toContain("Shape to write (default auto);");
  expect(await help("convert")).toContain(
    "Shape to write (default image-manifest, with --heal auto);",
  );
  expect(await help("heal")).not.toContain("to convert");
});

describe("the manual page", () => {
  const page = manPage([EXAMPLE]);

  test("has every option and no line that is read as a request by accident", () => {
    expect(page).toContain(".SS cacheport merge SRC... [DST] [OPTION...]");
    expect(page).toContain(".B \\-t, \\-\\-to SHAPE");
    const requests = page.split("\n").filter((line) => /^[.']/.test(line));
    for (const line of requests) expect(line).toMatch(/^\.(?:TH|SH|SS|TP|PP|B|nf|fi)\b/);
  });

  test.skipIf(Bun.which("groff") === null)("is formatted without warnings", () => {
    const child = Bun.spawnSync(["groff", "-man", "-Tutf8", "-ww"], {
      stdin: Buffer.from(page),
    });
    expect(child.stderr.toString()).toBe("");
    expect(child.stdout.toString()).toContain("Blobs to work on at once");
  });
});
