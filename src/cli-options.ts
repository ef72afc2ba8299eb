/**
 * What options and operands are, the options that every command takes, and those of
 * commands that take locations.
 */
import { DEFAULT_JOBS } from "./concurrency.ts";

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
  /** Locations are parsed before the command runs, and completed as paths and names. */
  readonly kind: "location" | "text";
  /** A location that is written to, which need not exist; with a flag's name, when that is given. */
  readonly target?: boolean | string;
  /** The only values that are accepted. */
  readonly choices?: readonly string[];
}

/** The names of the options of a table that take no value. */
export type FlagName<Options extends readonly OptionSpec[]> = Exclude<
  Options[number],
  { readonly value: string }
>["name"];

/** The names of the options of a table that take a value. */
export type ValueName<Options extends readonly OptionSpec[]> = Extract<
  Options[number],
  { readonly value: string }
>["name"];

const EVERY_COMMAND = [
  {
    name: "json",
    description: "Print the result, or the error, as one JSON value",
  },
  {
    name: "progress",
    value: "MODE",
    choices: ["auto", "tty", "plain", "json", "rawjson", "none"],
    description: "How to show progress on standard error (default auto)",
  },
  {
    name: "quiet",
    short: "q",
    description: "Print no notes and no progress",
  },
  {
    name: "jobs",
    short: "j",
    value: "N",
    description: `Blobs to work on at once (default ${DEFAULT_JOBS})`,
  },
  {
    name: "max-document",
    value: "BYTES",
    description: "Largest document to read (default 4MiB for a manifest, 64MiB for a config)",
  },
  {
    name: "lock-timeout",
    value: "DURATION",
    description: "How long to wait for the lock of a layout (default 30s)",
  },
  {
    name: "verbose",
    short: "v",
    description: "Log every request to a registry or an object store, without secrets",
  },
  { name: "help", short: "h", description: "Show this help" },
] as const satisfies readonly OptionSpec[];

const REGISTRY = [
  {
    name: "username",
    value: "NAME",
    description: "User at the registry, instead of the one that is logged in",
  },
  {
    name: "password-stdin",
    description: "Read the registry's password or token from standard input",
  },
  {
    name: "login-host",
    value: "HOST",
    description: "Registry that the login is for, where several are named (default the last)",
  },
  {
    name: "src-creds",
    value: "USER[:PASSWORD]",
    description: "Login for the registry that is read; a password left out is asked for",
  },
  {
    name: "authfile",
    value: "FILE",
    description: "Look for logins in this config.json or auth.json first",
  },
  {
    name: "src-tls-verify",
    value: "BOOL",
    choices: ["true", "false"],
    description: "Check the certificate of the registry that is read (default true)",
  },
  {
    name: "ca-file",
    value: "FILE",
    description: "Trust the certificate authorities in this PEM file too",
  },
  {
    name: "insecure",
    description:
      "Take any certificate of the registry, and plain HTTP where there is no HTTPS; a login goes by HTTP to this machine only",
  },
  {
    name: "plain-http",
    description: "Speak HTTP without TLS to the registry, the login included",
  },
  {
    name: "check-target",
    description: "Believe that the target registry has a blob only when a byte of it can be read",
  },
  {
    name: "allow-private-upload",
    description: "Follow upload addresses that a public registry gives in a private network",
  },
] as const satisfies readonly OptionSpec[];

/** For commands with a place that is written to beside the one that is read. */
const TARGET_REGISTRY = [
  {
    name: "dest-creds",
    value: "USER[:PASSWORD]",
    description: "Login for the registry that is written to",
  },
  {
    name: "dest-tls-verify",
    value: "BOOL",
    choices: ["true", "false"],
    description: "Check the certificate of the registry that is written to (default true)",
  },
] as const satisfies readonly OptionSpec[];

/** What any command may be asked for; the options on registries only where it takes locations. */
const SHARED = [...EVERY_COMMAND, ...REGISTRY, ...TARGET_REGISTRY] as const;

/** The shared options that take no value. */
export type SharedFlag = FlagName<typeof SHARED>;

/** The shared options that take a value. */
export type SharedValue = ValueName<typeof SHARED>;

/** Tells whether a command works on locations, and so may meet a registry. */
export function takesLocations(command: { operands: readonly OperandSpec[] }): boolean {
  return command.operands.some((operand) => operand.kind === "location");
}

/** The options of a command beside its own. */
export function sharedOptions(command: {
  operands: readonly OperandSpec[];
}): readonly OptionSpec[] {
  if (command.operands.some((operand) => operand.target)) return SHARED;
  return takesLocations(command) ? [...EVERY_COMMAND, ...REGISTRY] : EVERY_COMMAND;
}

/** Options that may stand before the command's name: all that any command shares. */
export const LEADING_OPTIONS: readonly OptionSpec[] = SHARED;
