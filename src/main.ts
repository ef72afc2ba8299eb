/** The process: argv and signals in, exit code out. No other file knows it. */
import { fail, run } from "./cli.ts";
import { inputStream, outputStream } from "./cli-streams.ts";

const interruption = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    // Whoever asks twice does not want to wait for the tidying up.
    if (interruption.signal.aborted) process.exit(130);
    interruption.abort();
  });

// Both make any program that Bun compiled do other things than its own. Children are
// given this environment: without one Bun.spawn takes the process's first.
const { BUN_OPTIONS: _, BUN_BE_BUN: __, ...env } = process.env;

const host = {
  env,
  signal: interruption.signal,
  stdin: inputStream(() => process.stdin),
  stdout: outputStream(1, () => process.stdout),
  stderr: outputStream(2, () => process.stderr),
};
for (const fault of ["uncaughtException", "unhandledRejection"] as const)
  process.on(fault, (error) => void fail(error, host).then((code) => process.exit(code)));

const code = await run(process.argv.slice(2), host);
// All output is with its readers by now. An interrupted command can leave a read
// behind that would keep the process waiting.
if (interruption.signal.aborted) process.exit(code);
process.exitCode = code;
