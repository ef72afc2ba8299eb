/** What a command printed, and how it ended. */

/** The end of a command. */
export interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** Waits for the end of a command whose outputs are pipes, and reads both meanwhile. */
export async function ended(child: Bun.ReadableSubprocess): Promise<Ended> {
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { code, stdout, stderr };
}
