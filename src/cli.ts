/** Dispatch: from the command line to a command and its exit code. */
import { findCommand, hasFlag, parseArguments, quote } from "./cli-arguments.ts";
import { readdirSync, statSync } from "node:fs";
import { join } from "./paths.ts";
import type { ParsedArguments } from "./cli-arguments.ts";
import type { EdgeContext } from "./cli-output.ts";
import { formatBytes } from "./units.ts";
import type { CommandEntry, CommandSpec } from "./cli-command.ts";
import { COMMANDS } from "./command-table.ts";
import {
  CacheportError,
  interrupted,
  isCacheportError,
  systemCode,
  systemError,
} from "./errors.ts";
import type { HelpStyle } from "./cli-help.ts";
import { foreignCommand } from "./cli-foreign.ts";
import type { Host } from "./cli-output.ts";
import { createContext, Output, takesColors } from "./cli-output.ts";
import { LEADING_OPTIONS, sharedOptions, takesLocations } from "./cli-options.ts";
import type { OutputStream } from "./cli-streams.ts";
import { nearest } from "./cli-suggestion.ts";
import { printableLines } from "./cli-text.ts";
import { NAME, VERSION } from "./version.ts";

/**
 * Runs one command line to its end. Never throws: a failure is told on standard
 * error, and with `--json` on standard output too.
 *
 * @param argv What follows the program's name.
 * @returns The exit code.
 */
export async function run(
  argv: readonly string[],
  host: Host,
  commands: readonly CommandEntry[] = COMMANDS,
): Promise<number> {
  const output = new Output(host, hasFlag(argv, "--json"));
  try {
    return await dispatch(argv, host, output, commands);
  } catch (error) {
    if (output.readerGone && !host.signal.aborted) return 0;
    return fail(error, host, output);
  }
}

/**
 * Tells a failure on standard error, and with `--json` on standard output too.
 *
 * @returns The exit code.
 */
export async function fail(
  error: unknown,
  host: Host,
  output = new Output(host, false),
): Promise<number> {
  if (host.env["CACHEPORT_DEBUG"] === "1")
    host.stderr.say(`${printableLines(Bun.inspect(error))}\n`);
  const failure =
    host.signal.aborted && !isCacheportError(error, "INTERRUPTED")
      ? interrupted()
      : toFailure(error);
  // Where standard output itself has failed, the exit code still tells.
  await output.failure(failure).catch(() => undefined);
  return failure.exitCode;
}

async function dispatch(
  argv: readonly string[],
  host: Host,
  output: Output,
  commands: readonly CommandEntry[],
): Promise<number> {
  const { command, rest } = findCommand(argv, LEADING_OPTIONS);
  if (command === undefined) {
    // Alone, -v can only be meant as docker and others have it.
    if (hasFlag(rest, "--version", "-V") || (rest.length === 1 && rest[0] === "-v")) {
      const value = { name: NAME, version: VERSION };
      await output.result(value, () => `${NAME} ${VERSION}`);
      return 0;
    }
    if (!hasFlag(rest, "--help", "-h")) return noCommand(rest, host, commands);
    await showProgramHelp(output, commands, host);
    return 0;
  }
  if (command === "help") {
    const topic = findCommand(rest, LEADING_OPTIONS).command;
    const { TOPICS } = await import("./cli-topics.ts");
    const text = TOPICS.find(({ name }) => name === topic);
    if (topic === undefined) await showProgramHelp(output, commands, host);
    else if (text) {
      const { topicHelp } = await import("./cli-help.ts");
      await output.result(text, () => topicHelp(text, helpStyle(host.stdout, host)));
    } else await showHelp(output, await load(topic, commands), host);
    return 0;
  }
  const spec = await load(command, commands);
  if (hasFlag(rest, "--help", "-h")) {
    await showHelp(output, spec, host);
    return 0;
  }
  return runCommand(spec, rest, host, output, commands);
}

async function runCommand(
  spec: CommandSpec,
  argv: readonly string[],
  host: Host,
  output: Output,
  commands: readonly CommandEntry[],
): Promise<number> {
  const args = parseArguments(
    {
      command: spec.name,
      operands: spec.operands,
      options: [...spec.options, ...sharedOptions(spec)],
    },
    argv,
  );
  const context = createContext(host, output, args, commands);
  if (takesLocations(spec)) {
    // Every command with locations opens them; the others are spared what it loads.
    const { locate, locateTarget } = await import("./location-open.ts");
    args.locate((text, role) => (role === "target" ? locateTarget(text) : locate(text, role)));
  }
  try {
    const code = await spec.run(context, args);
    context.progress.close({ summary: true });
    return code ?? 0;
  } catch (error) {
    throw host.signal.aborted ? interruptedAt(args, context) : error;
  } finally {
    context.progress.close({ summary: false });
  }
}

/** An interruption, with what is in a place that keeps it: the next run finds it there. */
function interruptedAt(args: ParsedArguments, { progress }: EdgeContext): CacheportError {
  const target = args.targets[0];
  const { moved } = progress;
  const there =
    moved.blobs === 0
      ? undefined
      : target?.kind === "registry"
        ? moved
        : target?.kind === "directory"
          ? blobsIn(target.path)
          : undefined;
  if (!there || there.blobs === 0) return interrupted();
  const amount = `${there.blobs} blobs (${formatBytes(there.bytes)})`;
  const hint = `${amount} are in the target by now: the same command goes on from there`;
  return new CacheportError("INTERRUPTED", "Interrupted", { hint });
}

/** What a folder keeps; of what arrived, small blobs are put in their places together at the end. */
function blobsIn(folder: string): { blobs: number; bytes: number } {
  try {
    const blobs = join(folder, "blobs", "sha256");
    const sizes = readdirSync(blobs).map((name) => statSync(join(blobs, name)).size);
    return { blobs: sizes.length, bytes: sizes.reduce((sum, size) => sum + size, 0) };
  } catch {
    return { blobs: 0, bytes: 0 };
  }
}

/** `cacheport` alone: the help, but as an error. */
async function noCommand(
  argv: readonly string[],
  host: Host,
  commands: readonly CommandEntry[],
): Promise<number> {
  if (argv.length > 0) {
    const options = [...LEADING_OPTIONS, { name: "version", short: "V", description: "" }];
    parseArguments({ command: "", operands: [], options }, argv);
    throw new CacheportError("USAGE", `Cannot run ${NAME}: no command is given`, {
      hint: `Run ${NAME} --help to see the commands`,
    });
  }
  const { programHelp } = await import("./cli-help.ts");
  host.stderr.say(programHelp(commands, helpStyle(host.stderr, host)));
  return 2;
}

function helpStyle(stream: OutputStream, host: Host): HelpStyle {
  const { columns } = stream.size();
  return { columns, colors: takesColors(stream, host.env) };
}

async function load(name: string, commands: readonly CommandEntry[]): Promise<CommandSpec> {
  const entry = commands.find((one) => one.name === name);
  if (entry) return entry.load();
  const listed = commands.filter((one) => !one.hidden).map((one) => one.name);
  const meant = nearest(name, [...listed, "help"]);
  throw new CacheportError("USAGE", `Cannot run command ${quote(name)}: there is no such command`, {
    hint:
      foreignCommand(name) ??
      (meant ? `Did you mean ${meant}?` : `Run ${NAME} --help to see the commands`),
  });
}

async function showProgramHelp(
  output: Output,
  commands: readonly CommandEntry[],
  host: Host,
): Promise<void> {
  const { programHelp } = await import("./cli-help.ts");
  const listed = commands.filter((entry) => !entry.hidden);
  const value = listed.map(({ name, summary }) => ({ name, summary }));
  await output.result(value, () => programHelp(commands, helpStyle(host.stdout, host)));
}

async function showHelp(output: Output, spec: CommandSpec, host: Host): Promise<void> {
  const { commandHelp } = await import("./cli-help.ts");
  const value = { ...spec, sharedOptions: sharedOptions(spec) };
  await output.result(value, () => commandHelp(spec, helpStyle(host.stdout, host)));
}

/** Gives every failure a code: a system's error that nobody caught, a fault of the program. */
function toFailure(error: unknown): CacheportError {
  if (error instanceof CacheportError) return error;
  if (error instanceof Error && error.name === "AbortError") return interrupted();
  if (systemCode(error)) return systemError("Cannot finish the command", error);
  const reason = error instanceof Error ? error.message : String(error);
  return new CacheportError("INTERNAL", `Cannot finish the command: ${reason}`, {
    cause: error,
    hint: "This is a fault in cacheport: please report it with what CACHEPORT_DEBUG=1 prints",
  });
}
