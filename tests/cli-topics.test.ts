/** What the program explains beside its commands, and what it says to fingers that know other tools. */
import { describe, expect, test } from "bun:test";
import { commandHelp, topicHelp } from "../src/cli-help.ts";
import { manPage } from "../src/cli-man.ts";
import { ENVIRONMENT, TOPICS } from "../src/cli-topics.ts";
import { COMMANDS } from "../src/command-table.ts";
import { EXIT_CODES } from "../src/errors.ts";
import { PROBLEMS } from "../src/verify-problem.ts";
import { cacheport } from "./helpers/binary.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

describe("cacheport help TOPIC", () => {
  test.each(TOPICS.map(({ name }) => name))("%s fits its terminal", async (name) => {
    const topic = TOPICS.find((one) => one.name === name);
    if (!topic) throw new Error("no topic");
    for (const columns of [40, 80, 100]) {
      const lines = topicHelp(topic, { columns, colors: false }).split("\n");
      // Commands are never wrapped, so that they can be copied.
      const long = lines.filter(
        (line) => line.length > columns && !/cacheport |^ {2}\S+$/.test(line),
      );
      expect(long.filter((line) => line.trim().includes("  ") || columns >= 80)).toEqual([]);
    }
    const run = await cacheport(["help", name]);
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(run.stdout).toBe(topicHelp(topic, { columns: 0, colors: false }));
    expect((await cacheport(["help", name, "--json"])).json()).toMatchObject({ name });
    expect((await cacheport(["help"])).stdout).toContain(`help ${name} `);
  });

  test("errors has every code of the program and every problem of verify", async () => {
    const { stdout } = await cacheport(["help", "errors"]);
    for (const [code, exit] of Object.entries(EXIT_CODES))
      expect(stdout).toContain(`${exit} ${code} `);
    for (const code of Object.keys(PROBLEMS)) expect(stdout).toContain(code);
  });

  test("environment has every variable that the source reads", async () => {
    const read = new Set<string>();
    for await (const path of new Bun.Glob("src/*.ts").scan("."))
      for (const [, name] of (await Bun.file(path).text()).matchAll(/env\["([A-Z_]+)"\]/g))
        read.add(name as string);
    const told = ENVIRONMENT.flatMap(([names]) => names.split(", "));
    const isTold = (name: string) =>
      told.some((one) => (one.endsWith("*") ? name.startsWith(one.slice(0, -1)) : name === one));
    expect(read.size).toBeGreaterThan(5);
    for (const name of read) {
      if (["HOME", "USERPROFILE", "PATH", "TERM", "BUN_OPTIONS", "BUN_BE_BUN"].includes(name))
        continue;
      expect([name, isTold(name)]).toEqual([name, true]);
    }
    expect(
      ["AWS_REGION", "IDENTITY_HEADER", "GITHUB_API_URL"].every((name) => read.has(name)),
    ).toBe(true);
  });

  test("the man page has the sections, too", () => {
    const page = manPage([]);
    for (const section of ["LOCATIONS", "LOGIN", "ERRORS", "ENVIRONMENT", "SHARED OPTIONS"])
      expect(page).toContain(`.SH ${section}\n`);
  });
});

test("the help of a command has its examples before its options", async () => {
  for (const entry of COMMANDS) {
    const text = commandHelp(await entry.load(), { columns: 80, colors: false });
    const examples = text.indexOf("\nExamples:\n");
    expect(examples).toBeGreaterThan(0);
    expect(text.indexOf("\nShared options:\n")).toBeGreaterThan(examples);
    expect(text).toContain("--json, --progress MODE,");
    expect(text).toContain("cacheport help options");
  }
});

describe("what fingers type that know other tools", () => {
  test.each([
    [["list", "x"], "cacheport ls"],
    [["cp", "a", "b"], "cacheport copy"],
    [["push", "a"], "cacheport copy SOURCE HOST/REPOSITORY:TAG"],
    [["pull", "a"], "cacheport copy HOST/REPOSITORY:TAG"],
    [["rm", "a"], "cacheport untag"],
    [["login", "ghcr.io"], "docker login"],
    [["help", "manifest"], "cacheport cat"],
    [["prune", "./c", "--filter", "until=24h"], "--max-age"],
    [["prune", "./c", "--keep-storage", "5GB"], "--max-size"],
    [["prune", "./c", "--max-used-space=5GB"], "--max-size"],
    [["prune", "./c", "-af"], "--dry-run"],
    [["copy", "a", "b", "--dest-tls-verify-x"], "--dest-tls-verify"],
    [["copy", "a", "b", "--tls-verify=false"], "--src-tls-verify=false"],
    [["copy", "a", "b", "--from-username", "x"], "--src-creds"],
    [["ls", "a", "-p", "secret"], "--password-stdin"],
    [["inspect", "a", "--format", "{{.Digest}}"], "jq"],
    [["-x"], "Run cacheport --help to see the commands"],
  ])("%p is told what to write", async (argv, hint) => {
    const run = await cacheport(argv);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain(hint);
    expect(run.stderr).not.toContain("cacheport cacheport");
  });

  test("no command is shadowed, and no hint names one that there is not", async () => {
    const source = await Bun.file("src/cli-foreign.ts").text();
    const names = COMMANDS.map(({ name }) => name);
    for (const [, word] of source.matchAll(/cacheport ([a-z]+)/g))
      expect([...names, "help"]).toContain(word as string);
    for (const name of names) expect(source).not.toMatch(new RegExp(`^  "?${name}"?: "Write`, "m"));
  });

  test("cacheport -v prints the version, -j is --jobs, rawjson is json, all is the whole index", async () => {
    expect((await cacheport(["-v"])).stdout).toStartWith("cacheport ");
    const cwd = tempFolder();
    const copy = (...rest: string[]) =>
      cacheport(["copy", fixture("multi-image"), ...rest], { cwd });
    const all = await copy("a", "-j", "2", "--platform", "all", "--progress", "rawjson", "--json");
    expect(all.code).toBe(0);
    expect(JSON.parse(all.stderr.split("\n")[0] as string)).toHaveProperty("event");
    expect(all.json().digest).toBe((await copy("b", "--json")).json().digest);
  });
});
