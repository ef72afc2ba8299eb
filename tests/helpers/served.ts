/** Runs `cacheport serve` for a test. */
import { BINARY } from "./binary.ts";

/** A registry that runs. */
export interface Served {
  /** `127.0.0.1:PORT` */
  host: string;
  /** The names that it printed. */
  repositories: { name: string; tags: string[]; reference: string }[];
  /** What it printed. */
  value: unknown;
  /** Asks for a path. */
  ask(path: string, init?: RequestInit): Promise<Response>;
  /** Ends it as Ctrl-C does. @returns Exit code and standard error */
  end(signal?: NodeJS.Signals): Promise<{ code: number; stderr: string }>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts it on a free port and waits until it listens. */
export async function serve(...args: string[]): Promise<Served> {
  const child = Bun.spawn([BINARY, "serve", "--port", "0", "--json", ...args], {
    env: { PATH: process.env["PATH"], HOME: "/nonexistent" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const stderr = new Response(child.stderr).text();
  let text = "";
  for await (const chunk of child.stdout) {
    text += new TextDecoder().decode(chunk);
    if (text.trimEnd().endsWith("}")) break;
  }
  if (text === "") throw new Error(`serve ended: ${await stderr}`);
  const value = JSON.parse(text);
  const { port, repositories } = value;
  const host = `127.0.0.1:${port}`;
  const end = async (signal: NodeJS.Signals = "SIGINT") => {
    child.kill(signal);
    return { code: await child.exited, stderr: await stderr };
  };
  return {
    host,
    repositories,
    value,
    ask: (path, init) => fetch(`http://${host}${path}`, init),
    end,
    [Symbol.asyncDispose]: async () => void (await end("SIGKILL")),
  };
}
