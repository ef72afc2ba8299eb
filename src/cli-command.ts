/**
 * What a command is: one table entry from which the parser, `--help`, the shell
 * completions and the man page are all made. The names of its options are part of the
 * types, so that asking for an option that the table has not does not compile.
 */
import type { Location } from "./location.ts";
import type { ProgressReporter } from "./progress.ts";
import type {
  FlagName,
  OperandSpec,
  OptionSpec,
  SharedFlag,
  SharedValue,
  ValueName,
} from "./cli-options.ts";

export type { OperandSpec, OptionSpec } from "./cli-options.ts";

/** A line that a reader can copy, and what it does. */
export interface Example {
  readonly command: string;
  readonly description: string;
}

/**
 * The parsed command line of one command. A function that needs some options asks for
 * these alone: `Arguments<"dry-run", "platform">`.
 */
export interface Arguments<Flag extends string = string, Value extends string = string> {
  readonly operands: readonly string[];
  /** The operand at a position. @throws {CacheportError} USAGE when it is missing */
  readonly operand: (index: number) => string;
  /** The operands that are locations, in their order; what stands in one is looked at once. */
  readonly locations: readonly Location[];
  /** Those of them that are written to and were named for it. */
  readonly targets: readonly Location[];
  /** The location at a position among the locations. @throws {CacheportError} USAGE */
  readonly location: (index: number) => Location;
  readonly flag: (name: Flag) => boolean;
  readonly value: (name: Value) => string | undefined;
  readonly values: (name: Value) => readonly string[];
  /** A whole number in a range. @throws {CacheportError} USAGE */
  readonly integer: (name: Value, range: { min: number; max: number }) => number | undefined;
  /** A size such as `500MB` (10^6), `4MiB` (2^20) or `1024`, in bytes. @throws {CacheportError} USAGE */
  readonly bytes: (name: Value) => number | undefined;
  /** A duration such as `90s`, `30m`, `1h30m`, `7d`, in milliseconds. @throws {CacheportError} USAGE */
  readonly duration: (name: Value) => number | undefined;
}

/** The command line of a command with these options, those of all commands beside them. */
export type ArgumentsOf<Options extends readonly OptionSpec[]> = Arguments<
  FlagName<Options> | SharedFlag,
  ValueName<Options> | SharedValue
>;

/** What a command can reach of the world outside. */
export interface CommandContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Fires when the user interrupts. */
  readonly signal: AbortSignal;
  /** True when `--json` was given. */
  readonly json: boolean;
  /** Columns of the terminal that standard output is, 0 when it is none. */
  readonly columns: number;
  /** True when standard output takes colours. */
  readonly colors: boolean;
  readonly progress: ProgressReporter;
  /**
   * True when the terminal that the result goes to has a summary of the work already. Ask
   * when the text of the result is made.
   */
  readonly summaryShown: boolean;
  /** All commands, for those that are about commands. */
  readonly commands: readonly CommandEntry[];
  /** Opens standard input as raw bytes. */
  stdin(): ReadableStream<Uint8Array>;
  /**
   * Asks for a password on the terminal, which does not show it.
   *
   * @throws {CacheportError} INTERRUPTED; USAGE when standard input is no terminal
   */
  askSecret(question: string): Promise<string>;
  /** True when standard input is a terminal. */
  readonly stdinIsTerminal: boolean;
  /** True when standard output is a terminal, also one of unknown size. */
  readonly stdoutIsTerminal: boolean;
  /**
   * Prints the result: the JSON value with `--json`, else the text. The text is
   * made only when it is needed.
   */
  result(value: unknown, text: () => string): Promise<void>;
  /** Writes raw bytes to standard output and waits until they are taken. */
  write(bytes: Uint8Array): Promise<void>;
  /**
   * Says something on standard error, unless `--quiet`: one line, or several lines. What
   * could drive a terminal or the log of a CI job is escaped.
   */
  note(message: string | readonly string[]): void;
}

/** A command. */
export interface CommandSpec {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** A paragraph or two, hard-wrapped by the help printer. */
  readonly description: string;
  readonly operands: readonly OperandSpec[];
  readonly options: readonly OptionSpec[];
  readonly examples: readonly Example[];
  /** Does the work; gives the exit code, 0 when it gives none. */
  run(context: CommandContext, args: Arguments): Promise<number | void>;
}

/** One command of the list, which is loaded when it is asked for. */
export interface CommandEntry {
  readonly name: string;
  /** The same as the command's own summary; a test compares them. */
  readonly summary: string;
  /** Not listed: for scripts that cacheport itself prints. */
  readonly hidden?: boolean;
  load(): Promise<CommandSpec>;
}

/** A command as it is written: its options give the names that `args` can be asked for. */
export type CommandDefinition<Options extends readonly OptionSpec[]> = Omit<
  CommandSpec,
  "options" | "run"
> & {
  readonly options: Options;
  run(context: CommandContext, args: ArgumentsOf<Options>): Promise<number | void>;
};

/** Defines a command: the types of its options go into those of its arguments. */
export function defineCommand<const Options extends readonly OptionSpec[]>(
  definition: CommandDefinition<Options>,
): CommandSpec {
  return definition;
}

/** Loads every command that is listed. */
export async function loadCommands(entries: readonly CommandEntry[]): Promise<CommandSpec[]> {
  const listed = entries.filter((entry) => !entry.hidden);
  return Promise.all(listed.map((entry) => entry.load()));
}
