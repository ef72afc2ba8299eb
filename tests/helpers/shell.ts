/** Runs command lines with pipes and redirections, as a user would type them. */
import { BINARY } from "./binary.ts";
import type { RunResult } from "./binary.ts";

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
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr, json: () => JSON.parse(stdout) };
}
