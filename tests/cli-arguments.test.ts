import { describe, expect, test } from "bun:test";
import { findCommand, hasFlag, parseArguments } from "../src/cli-arguments.ts";
import type { OperandSpec } from "../src/cli-command.ts";
import { LEADING_OPTIONS } from "../src/cli-options.ts";
import { editDistance, nearest } from "../src/cli-suggestion.ts";
import { failure } from "./helpers/errors.ts";

const OPTIONS = [
  {
    name: "to",
    short: "t",
    value: "SHAPE",
    choices: ["image-manifest", "oci-index"],
    description: "",
  },
  { name: "tag", value: "NAME", repeat: true, description: "" },
  { name: "jobs", short: "j", value: "N", description: "" },
  { name: "older-than", value: "DURATION", description: "" },
  { name: "size", value: "BYTES", description: "" },
  { name: "dry-run", short: "n", description: "" },
  { name: "all", short: "a", description: "" },
  { name: "json", description: "" },
];
const SRC: OperandSpec = { name: "SRC", description: "", kind: "location" };
const DST: OperandSpec = { ...SRC, name: "DST" };

function parse(argv: string[], operands: OperandSpec[] = [SRC, { ...DST, optional: true }]) {
  return parseArguments({ command: "convert", options: OPTIONS, operands }, argv);
}

describe("options", () => {
  test.each([
    [["a", "--to", "oci-index"]],
    [["--to", "oci-index", "a"]],
    [["--to=oci-index", "a"]],
    [["-t", "oci-index", "a"]],
    [["-toci-index", "a"]],
    [["-t=oci-index", "a"]],
    [["-ant", "oci-index", "a"]],
    [["--to", "oci-index", "--", "a"]],
  ])("are read wherever they stand: %p", (argv) => {
    const args = parse(argv);
    expect(args.value("to")).toBe("oci-index");
    expect(args.operands).toEqual(["a"]);
  });

  test("flags are on or off, also several in one word", () => {
    const args = parse(["-an", "a"]);
    expect(args.flag("all")).toBe(true);
    expect(args.flag("dry-run")).toBe(true);
    expect(args.flag("json")).toBe(false);
    expect(parse(["-n", "a", "-n"]).flag("dry-run")).toBe(true);
  });

  test("that repeat keep their order", () => {
    const args = parse(["--tag=a", "x", "--tag", "b", "--tag="]);
    expect(args.values("tag")).toEqual(["a", "b", ""]);
    expect(parse(["x"]).values("tag")).toEqual([]);
  });

  test("take values with equals signs, dashes and spaces", () => {
    expect(parse(["x", "--tag=a=b"]).value("tag")).toBe("a=b");
    expect(parse(["x", "--tag=-b"]).value("tag")).toBe("-b");
    expect(parse(["x", "--tag", "-"]).value("tag")).toBe("-");
    expect(parse(["x", "--tag", "-:v1"]).value("tag")).toBe("-:v1");
    expect(parse(["x", "--tag", "a b"]).value("tag")).toBe("a b");
  });

  test.each([
    [["x", "--tagg", "a"], 'there is no option "--tagg"', "Did you mean --tag?"],
    [["x", "--dryrun"], 'there is no option "--dryrun"', "Did you mean --dry-run?"],
    [["x", "--older"], 'there is no option "--older"', "Did you mean --older-than?"],
    [
      ["x", "--xyzzy"],
      'there is no option "--xyzzy"',
      "Run cacheport convert --help to see how it is used",
    ],
    [["x", "-z"], 'there is no option "-z"', "Run cacheport convert --help to see how it is used"],
    [["x", "--__proto__"], 'there is no option "--__proto__"', undefined],
    [["x", "--=a"], 'there is no option "--"', undefined],
    [["x", "--tag"], "option --tag needs a value NAME", undefined],
    [["x", "--tag", "--", "y"], "option --tag needs a value NAME", undefined],
    [
      ["x", "--tag", "--json"],
      'option --tag needs a value NAME, and "--json" looks like an option',
      "Write --tag=--json if that is the value",
    ],
    [
      ["x", "-j", "-1"],
      'option -j needs a value N, and "-1" looks like an option',
      "Write -j-1 if that is the value",
    ],
    [["x", "--json=true"], "option --json takes no value", undefined],
    [["x", "--jobs=1", "-j2"], "option -j is given twice", undefined],
    [
      ["x", "--to=oci-indx"],
      'option --to takes image-manifest, oci-index, not "oci-indx"',
      "Did you mean oci-index?",
    ],
  ])("are refused with the reason: %p", async (argv, reason, hint) => {
    const error = await failure(() => parse(argv));
    expect(error.code).toBe("USAGE");
    expect(error.exitCode).toBe(2);
    expect(error.message).toBe(`Cannot run command "convert": ${reason}`);
    if (hint) expect(error.hint).toBe(hint);
  });
});

describe("operands", () => {
  test("a dash alone is one, and so is all that follows --", () => {
    expect(parse(["-", "--", "--json"]).operands).toEqual(["-", "--json"]);
    expect(parse(["-:v1", "-@sha256:1"]).operands).toEqual(["-:v1", "-@sha256:1"]);
    expect(parse(["--", "--"]).operands).toEqual(["--"]);
  });

  test("optional ones may be left out", async () => {
    const args = parse(["a"]);
    expect(args.operand(0)).toBe("a");
    const error = await failure(() => args.operand(1));
    expect(error.message).toContain("operand DST is missing");
  });

  test("a repeated one takes any number, but one at least", async () => {
    const merge = [{ ...SRC, repeat: true }, DST];
    expect(parse(["a", "b", "c"], merge).operands).toEqual(["a", "b", "c"]);
    const error = await failure(() => parse(["a"], merge));
    expect(error.message).toContain("operand DST is missing");
  });

  test.each([
    [[], [SRC, DST], "operands SRC and DST are missing"],
    [["a", "b", "c"], [SRC, DST], '"c" is one operand too many: it takes SRC DST'],
    [["a"], [], '"a" is one operand too many: it takes none'],
    [["x"], [{ ...SRC, choices: ["bash", "zsh"] }], 'operand SRC takes bash, zsh, not "x"'],
  ])("%p is refused", async (argv, operands, reason) => {
    const error = await failure(() => parse(argv, operands));
    expect(error.code).toBe("USAGE");
    expect(error.message).toEndWith(reason);
  });

  test("a long one is cut in messages", async () => {
    const error = await failure(() => parse(["x".repeat(1e6)], []));
    expect(error.message.length).toBeLessThan(300);
  });
});

describe("typed values", () => {
  test("are absent, or read", () => {
    const args = parse(["x", "--jobs=8", "--older-than=7d", "--size=4MiB"]);
    expect(args.integer("jobs", { min: 1, max: 8 })).toBe(8);
    expect(args.duration("older-than")).toBe(604_800_000);
    expect(args.bytes("size")).toBe(4_194_304);
    expect(parse(["x"]).integer("jobs", { min: 1, max: 8 })).toBeUndefined();
    expect(parse(["x"]).duration("older-than")).toBeUndefined();
    expect(parse(["x"]).bytes("size")).toBeUndefined();
  });

  test.each(["", "0", "9", "-1", "1.5", "0x2", "1e0", " 1", "many", "１"])(
    "%p is no whole number from 1 to 8",
    async (text) => {
      const args = parse(["x", `--jobs=${text}`]);
      const error = await failure(() => args.integer("jobs", { min: 1, max: 8 }));
      expect(error.code).toBe("USAGE");
      expect(error.message).toContain("it takes a whole number from 1 to 8");
    },
  );

  test("bad sizes and durations say what good ones look like", async () => {
    const args = parse(["x", "--size=5Q", "--older-than=soon"]);
    expect((await failure(() => args.bytes("size"))).message).toContain("4MiB");
    expect((await failure(() => args.duration("older-than"))).message).toBe(
      'Cannot use "soon" for option --older-than: a duration is numbers with units from the largest to the smallest, such as 90s, 30m, 1h30m, 7d or 7days',
    );
  });
});

describe("findCommand", () => {
  test.each([
    [["ls", "x"], "ls", ["x"]],
    [["--json", "ls", "x"], "ls", ["--json", "x"]],
    [["--jobs", "4", "ls"], "ls", ["--jobs", "4"]],
    [["--jobs=4", "-q", "ls"], "ls", ["--jobs=4", "-q"]],
    [["--version"], undefined, ["--version"]],
    [["--", "ls"], undefined, ["--", "ls"]],
    [[], undefined, []],
  ])("%p", (argv, command, rest) => {
    expect(findCommand(argv, LEADING_OPTIONS)).toEqual({ command, rest });
  });
});

test("hasFlag looks for whole words before --", () => {
  expect(hasFlag(["a", "--json"], "--json")).toBe(true);
  expect(hasFlag(["a", "--", "--json"], "--json")).toBe(false);
  expect(hasFlag(["--tag=--json"], "--json")).toBe(false);
});

test("any command line is parsed or refused as wrong usage", async () => {
  const words = [
    "a",
    "-",
    "--",
    "--to",
    "--to=oci-index",
    "-t",
    "oci-index",
    "-n",
    "--tag",
    "--tag=",
    "-an",
    "-j4",
    "--jobs",
    "=",
    "-=",
    "--=",
    "-tt",
  ];
  let seed = 1;
  const random = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
  for (let run = 0; run < 3000; run++) {
    const argv = Array.from({ length: random(6) }, () => words[random(words.length)] as string);
    try {
      const args = parse(argv);
      expect(args.operands.length).toBeGreaterThan(0);
    } catch (error) {
      expect((error as { code?: string }).code).toBe("USAGE");
    }
  }
});

describe("suggestions", () => {
  test.each([
    ["", "abc", 3],
    ["abc", "abc", 0],
    ["abc", "acb", 1],
    ["kitten", "sitting", 3],
    ["ca", "abc", 3],
  ])("editDistance(%p, %p)", (a, b, distance) => {
    expect(editDistance(a, b)).toBe(distance);
    expect(editDistance(b, a)).toBe(distance);
  });

  test.each([
    ["covnert", "convert"],
    ["CONVERT", "convert"],
    ["conv", "convert"],
    ["l", "ls"],
    ["sl", "ls"],
    ["c", undefined],
    ["xyzzy", undefined],
    ["x".repeat(1e5), undefined],
  ])("nearest(%p)", (word, meant) => {
    expect(nearest(word, ["convert", "copy", "ls", "verify"])).toBe(meant);
  });
});
