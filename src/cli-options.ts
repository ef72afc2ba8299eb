/** The options that every command takes, and those of commands that take locations. */
import type { CommandSpec, OptionSpec } from "./cli-command.ts";

/** Blobs that are worked on at once unless `--jobs` says otherwise. */
export const DEFAULT_JOBS = 4;

const EVERY_COMMAND: readonly OptionSpec[] = [
  {
    name: "json",
    description: "Print the result, or the error, as one JSON value",
  },
  {
    name: "progress",
    value: "MODE",
    choices: ["auto", "tty", "plain", "json", "none"],
    description: "How to show progress on standard error (default auto)",
  },
  {
    name: "quiet",
    short: "q",
    description: "Print no notes and no progress",
  },
  {
    name: "jobs",
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
  { name: "help", short: "h", description: "Show this help" },
];

const REGISTRY: readonly OptionSpec[] = [
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
    description: "Read a byte of each blob that the target registry says it has",
  },
  {
    name: "allow-private-upload",
    description: "Follow upload addresses that a public registry gives in a private network",
  },
];

/** Tells whether a command works on locations, and so may meet a registry. */
export function takesLocations(command: CommandSpec): boolean {
  return command.operands.some((operand) => operand.kind === "location");
}

/** The options of a command beside its own. */
export function sharedOptions(command: CommandSpec): readonly OptionSpec[] {
  return takesLocations(command) ? [...EVERY_COMMAND, ...REGISTRY] : EVERY_COMMAND;
}

/** Options that may stand before the command's name: all that any command shares. */
export const LEADING_OPTIONS: readonly OptionSpec[] = [...EVERY_COMMAND, ...REGISTRY];
