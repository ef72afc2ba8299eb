/** `cacheport self-check`: shows what self-check.ts finds of this machine. */
import { tmpdir } from "node:os";
import { defineCommand } from "./cli-command.ts";
import { selfCheck } from "./self-check.ts";
import type { CheckStatus, SelfCheckResult } from "./self-check.ts";
import { formatTable } from "./cli-table.ts";
import { colored } from "./cli-text.ts";

/** `cacheport self-check`: whether this machine is fine. */
export const selfCheckCommand = defineCommand({
  name: "self-check",
  summary: "Find out whether cacheport can do its work on this machine",
  description:
    "Tries out on a small scale what the other commands need: a folder to write to, free space, locks, links, threads, compression; and converts a cache of a few bytes that is part of the program. Says in a line each how that went, and ends with exit code 1 when something failed. Nothing is left behind, and no network is asked.\n\nWhat is limited works, but not as well as it could.",
  operands: [],
  options: [
    {
      name: "dir",
      value: "DIR",
      description: "Where to try it out (default the temporary folder, else the current one)",
    },
  ],
  examples: [
    { command: "cacheport self-check", description: "Check this machine" },
    {
      command: "cacheport self-check --dir /mnt/cache",
      description: "Check a volume that layouts are to be written to",
    },
  ],
  async run(context, args) {
    const folder = args.value("dir");
    const folders = folder === undefined ? [tmpdir(), "."] : [folder];
    const result = await selfCheck(folders, context.signal);
    await context.result(result, () => render(result, context.colors));
    return result.ok ? 0 : 1;
  },
});

const COLORS = { ok: "green", limited: "yellow", failed: "red" } as const;

function render({ ok, checks }: SelfCheckResult, colors: boolean): string {
  const table = formatTable(
    [
      {
        title: "STATUS",
        paint: (cell) => colored(cell, COLORS[cell.trim() as CheckStatus], true),
      },
      { title: "CHECK" },
      { title: "FOUND" },
    ],
    checks.map(({ status, name, detail }) => [status, name, detail]),
    { colors, header: false },
  );
  const names = checks.filter(({ status }) => status === "failed").map(({ name }) => name);
  const verdict = ok
    ? "This machine is fine"
    : `This machine is not fine: ${names.join(", ")} failed`;
  return `${table}${verdict}`;
}
