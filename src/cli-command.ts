/**
 * What a command is: one table entry from which the parser, `--help`, the shell
 * completions and the man page are all made.
 */
import type { ProgressReporter } from "./progress.ts";

/** An option of a command, or one that all commands share. */
export interface OptionSpec {
  /** Without dashes: `dry-run`. */
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  /** What stands for the value in the help: `BYTES`. Absent for a flag. */
  readonly value?: string;
  /** May be given several times. */
  readonly repeat?: boolean;
  /** The only values that are accepted. */
  readonly choices?: readonly string[];
  /** One line, no full stop. */
  readonly description: string;
}

/** A positional argument. */
export interface OperandSpec {
  /** As the help shows it: `SRC`. */
  readonly name: string;
  readonly description: string;
  readonly optional?: boolean;
  /** Takes one or more; at most one operand of a command may. */
  readonly repeat?: boolean;
  /** Locations are completed as paths and names. */
  readonly kind: "location" | "text";
  /** The only values that are accepted. */
  readonly choices?: readonly string[];
}

/** A line that a reader can copy, and what it does. */
export interface Example {
  readonly command: string;
  readonly description: string;
}

/** The parsed command line of one command. */
export interface Arguments {
  readonly operands: readonly string[];
  /** The operand at a position. @throws {CacheportError} USAGE when it is missing */
  operand(index: number): string;
  flag(name: string): boolean;
  value(name: string): string | undefined;
  values(name: string): readonly string[];
  /** A whole number in a range. @throws {CacheportError} USAGE */
  integer(name: string, range: { min: number; max: number }): number | undefined;
  /** A size such as `500MB` (10^6), `4MiB` (2^20) or `1024`, in bytes. @throws {CacheportError} USAGE */
  bytes(name: string): number | undefined;
  /** A duration such as `90s`, `30m`, `1h30m`, `7d`, in milliseconds. @throws {CacheportError} USAGE */
  duration(name: string): number | undefined;
}

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
  /** Opens standard input as raw bytes. */
  stdin(): ReadableStream<Uint8Array>;
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
