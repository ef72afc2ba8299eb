/** A process that writes a number of bytes through the program's own output. */
import { run } from "../../src/cli.ts";
import { inputStream, outputStream } from "../../src/cli-streams.ts";

process.exitCode = await run(
  ["write"],
  {
    env: {},
    signal: new AbortController().signal,
    stdin: inputStream(() => process.stdin),
    stdout: outputStream(1, () => process.stdout),
    stderr: outputStream(2, () => process.stderr),
  },
  [
    {
      name: "write",
      summary: "Write",
      load: async () => ({
        name: "write",
        summary: "Write",
        description: "Writes.",
        operands: [],
        options: [],
        examples: [],
        async run(context) {
          await context.write(new Uint8Array(Number(process.argv[2])).fill(120));
        },
      }),
    },
  ],
);
