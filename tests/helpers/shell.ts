/** Runs command lines with pipes and redirections, as a user would type them. */
import { BINARY } from "./binary.ts";
import type { RunResult } from "./binary.ts";
import { ended } from "./output.ts";

/**
 * Runs a script of sh in a folder, with `cacheport` for the binary under test. It
 * fails with the first command that does, in a pipe only with the last one.
 */
export async function shell(
  cwd: string,
  script: string,
  env: Record<string, string | undefined> = {},
): Promise<RunResult> {
  const child = Bun.spawn(["sh", "-ec", `cacheport() { "$CACHEPORT" "$@"; }\n${script}`], {
    cwd,
    env: {
      PATH: process.env["PATH"],
      HOME: "/nonexistent",
      TMPDIR: cwd,
      CACHEPORT: BINARY,
      ...env,
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const end = await ended(child);
  return { ...end, json: () => JSON.parse(end.stdout) };
}
