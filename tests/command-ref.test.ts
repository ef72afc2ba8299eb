import { describe, expect, test } from "bun:test";
import type { Arguments, CommandContext } from "../src/cli-command.ts";
import { refCommand } from "../src/command-ref.ts";
import { failure } from "./helpers/errors.ts";

const DIGEST = `sha256:${"ab".repeat(32)}`;

/** Runs the command and gives its JSON value and its text. */
async function run(name: string): Promise<{ value: unknown; text: string }> {
  const results: { value: unknown; text: string }[] = [];
  const context = {
    colors: false,
    result: async (value: unknown, text: () => string) => {
      results.push({ value, text: text() });
    },
  } as Partial<CommandContext> as CommandContext;
  const args = { operand: () => name } as Partial<Arguments> as Arguments;
  await refCommand.run(context, args);
  expect(results).toHaveLength(1);
  return results[0] as { value: unknown; text: string };
}

describe("cacheport ref", () => {
  test("gives the parts of the normalised form, null for what is absent", async () => {
    expect((await run("alpine")).value).toEqual({
      domain: "docker.io",
      path: "library/alpine",
      tag: "latest",
      digest: null,
      familiar: "alpine:latest",
      canonical: "docker.io/library/alpine:latest",
    });
    expect((await run(`localhost:5000/app@${DIGEST}`)).value).toEqual({
      domain: "localhost:5000",
      path: "app",
      tag: null,
      digest: DIGEST,
      familiar: `localhost:5000/app@${DIGEST}`,
      canonical: `localhost:5000/app@${DIGEST}`,
    });
  });

  test.each([
    [
      "alpine",
      [
        /^domain +docker\.io .*without a host/m,
        /^path +library\/alpine .*official/m,
        /^tag +latest .*neither tag nor digest/m,
        /^digest +- +none/m,
      ],
    ],
    [
      "docker.io/library/alpine:3",
      [
        /^domain +docker\.io +the registry$/m,
        /^path +library\/alpine +the repository$/m,
        /^tag +3 +the tag$/m,
      ],
    ],
    [
      "index.docker.io/team/app:1",
      [/^domain +docker\.io .*old name/m, /^path +team\/app +the repository$/m],
    ],
    [
      `reg.example/app:1@${DIGEST}`,
      [/^tag +1 +the tag; the digest takes precedence/m, /^digest +sha256:\w+ +the content/m],
    ],
    [`reg.example/app@${DIGEST}`, [/^tag +- +none/m, /^canonical +reg\.example\/app@sha256/m]],
  ])("explains the parts of %p", async (name, lines) => {
    const { text } = await run(name);
    for (const line of lines) expect(text).toMatch(line);
  });

  test("refuses what is no reference", async () => {
    const error = await failure(() => run("App"));
    expect(error.code).toBe("REFERENCE_INVALID");
    expect(error.exitCode).toBe(2);
  });
});
