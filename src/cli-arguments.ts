/**
 * The parser of a command's arguments, by the conventions of POSIX and GNU:
 * `--name`, `--name=value`, `--name value`, `-n`, `-nvalue`, `-n value`, short flags
 * in one word, options and operands in any order, `--` before operands that start
 * with a dash. `-` alone is an operand or a value, and so is standard input with a
 * name, `-:NAME` or `-@DIGEST`.
 */
import type { Arguments, OperandSpec, OptionSpec } from "./cli-command.ts";
import { CacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import { foreignOption, foreignValue } from "./cli-foreign.ts";
import { nearest } from "./cli-suggestion.ts";
import { BYTES_SYNTAX, DURATION_SYNTAX, parseBytes, parseDuration } from "./units.ts";

/** What the parser knows of a command. */
export interface ArgumentsSpec {
  /** The command's name, for messages; empty for the program itself. */
  readonly command: string;
  readonly options: readonly OptionSpec[];
  readonly operands: readonly OperandSpec[];
}

/**
 * Parses what follows the command's name.
 *
 * @throws {CacheportError} USAGE for an unknown option, a value that is missing or
 * not wanted, an option given twice, or the wrong number of operands
 */
export function parseArguments(spec: ArgumentsSpec, argv: readonly string[]): ParsedArguments {
  const values = new Map<string, string[]>();
  const operands: string[] = [];

  const set = (option: OptionSpec, shown: string, value: string): void => {
    const given = values.get(option.name) ?? [];
    if (option.value && given.length > 0 && !option.repeat)
      throw usage(spec, `option ${shown} is given twice`);
    if (option.choices && !option.choices.includes(value))
      throw badChoice(spec, `option ${shown}`, value, option.choices);
    values.set(option.name, [...given, value]);
  };

  /** The value that stands in the next argument. */
  const following = (option: OptionSpec, shown: string, at: number): string => {
    const next = argv[at + 1];
    if (next === undefined || next === "--")
      throw usage(spec, `option ${shown} needs a value ${option.value}`);
    // A forgotten value must not swallow the option after it.
    if (next.startsWith("-") && !isStream(next))
      throw usage(
        spec,
        `option ${shown} needs a value ${option.value}, and ${quote(next)} looks like an option`,
        `Write ${shown.startsWith("--") ? `${shown}=` : shown}${next} if that is the value`,
      );
    return next;
  };

  for (let at = 0; at < argv.length; at++) {
    const argument = argv[at] as string;
    if (argument === "--") {
      operands.push(...argv.slice(at + 1));
      break;
    }
    if (!argument.startsWith("-") || isStream(argument)) {
      operands.push(argument);
    } else if (argument.startsWith("--")) {
      const equals = argument.indexOf("=");
      const shown = equals < 0 ? argument : argument.slice(0, equals);
      const option = spec.options.find((one) => `--${one.name}` === shown);
      if (!option) throw unknownOption(spec, shown);
      if (!option.value) {
        if (equals >= 0) throw usage(spec, `option ${shown} takes no value`);
        set(option, shown, "");
      } else if (equals >= 0) set(option, shown, argument.slice(equals + 1));
      else set(option, shown, following(option, shown, at++));
    } else {
      for (let letter = 1; letter < argument.length; letter++) {
        const shown = `-${argument[letter]}`;
        const option = spec.options.find((one) => one.short === shown[1]);
        if (!option) throw unknownOption(spec, shown, argument);
        if (!option.value) {
          set(option, shown, "");
          continue;
        }
        const rest = argument.slice(letter + 1);
        if (rest !== "") set(option, shown, rest.replace(/^=/, ""));
        else set(option, shown, following(option, shown, at++));
        break;
      }
    }
  }
  checkOperands(spec, operands);
  return new ParsedArguments(spec, operands, values);
}

/** No option starts with a colon or an at sign. */
function isStream(argument: string): boolean {
  return /^-(?:[:@]|$)/.test(argument);
}

/** Refuses too few operands, too many, and values that are no choice. */
function checkOperands(spec: ArgumentsSpec, operands: readonly string[]): void {
  const required = spec.operands.filter((operand) => !operand.optional);
  if (operands.length < required.length) {
    const missing = required.slice(operands.length).map(({ name }) => name);
    throw usage(
      spec,
      missing.length === 1
        ? `operand ${missing[0]} is missing`
        : `operands ${missing.join(" and ")} are missing`,
    );
  }
  if (spec.operands.some((operand) => operand.repeat)) return;
  const extra = operands[spec.operands.length];
  if (extra !== undefined) {
    const names = spec.operands.map(({ name }) => name).join(" ");
    throw usage(
      spec,
      `${quote(extra)} is one operand too many: ${names ? `it takes ${names}` : "it takes none"}`,
    );
  }
  operands.forEach((value, index) => {
    const { name, choices } = spec.operands[index] as OperandSpec;
    if (choices && !choices.includes(value))
      throw badChoice(spec, `operand ${name}`, value, choices);
  });
}

/** Arguments that fit their command. */
export class ParsedArguments implements Arguments {
  readonly operands: readonly string[];
  #locations: readonly Location[] = [];
  #targets: readonly Location[] = [];
  readonly #spec: ArgumentsSpec;
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(
    spec: ArgumentsSpec,
    operands: readonly string[],
    values: ReadonlyMap<string, readonly string[]>,
  ) {
    this.#spec = spec;
    this.operands = operands;
    this.#values = values;
  }

  /** Parses the operands that are locations, each once; the last operands fill what repeats. */
  locate(parse: (text: string, role: "source" | "target") => Location): void {
    const specs = this.#spec.operands;
    const repeated = specs.findIndex((operand) => operand.repeat);
    const behind = repeated < 0 ? 0 : specs.length - 1 - repeated;
    const targets: Location[] = [];
    this.#locations = this.operands.flatMap((text, index) => {
      const left = this.operands.length - index;
      const spec =
        repeated < 0 || index < repeated
          ? specs[index]
          : left <= behind
            ? specs[specs.length - left]
            : specs[repeated];
      if (spec?.kind !== "location") return [];
      const isTarget = this.#isTarget(spec);
      const location = parse(text, isTarget ? "target" : "source");
      if (isTarget) targets.push(location);
      return location;
    });
    this.#targets = targets;
  }

  #isTarget({ target }: OperandSpec): boolean {
    return typeof target === "string" ? this.flag(target) : target === true;
  }

  get locations(): readonly Location[] {
    return this.#locations;
  }

  get targets(): readonly Location[] {
    return this.#targets;
  }

  readonly location = (index: number): Location => {
    const location = this.#locations[index];
    if (location) return location;
    throw usage(this.#spec, `location ${index + 1} is missing`);
  };

  readonly operand = (index: number): string => {
    const value = this.operands[index];
    if (value !== undefined) return value;
    const name = this.#spec.operands[index]?.name ?? index + 1;
    throw usage(this.#spec, `operand ${name} is missing`);
  };

  readonly flag = (name: string): boolean => this.#values.has(name);

  readonly value = (name: string): string | undefined => this.#values.get(name)?.at(-1);

  readonly values = (name: string): readonly string[] => this.#values.get(name) ?? [];

  readonly integer = (name: string, range: { min: number; max: number }): number | undefined => {
    const text = this.value(name);
    if (text === undefined) return undefined;
    const value = /^-?\d{1,15}$/.test(text) ? Number(text) : NaN;
    if (value >= range.min && value <= range.max) return value;
    throw this.#badValue(name, `it takes a whole number from ${range.min} to ${range.max}`);
  };

  readonly bytes = (name: string): number | undefined => {
    const text = this.value(name);
    if (text === undefined) return undefined;
    const bytes = parseBytes(text);
    if (bytes === undefined) throw this.#badValue(name, BYTES_SYNTAX);
    return bytes;
  };

  readonly duration = (name: string): number | undefined => {
    const text = this.value(name);
    if (text === undefined) return undefined;
    const milliseconds = parseDuration(text);
    if (milliseconds === undefined) throw this.#badValue(name, DURATION_SYNTAX);
    return milliseconds;
  };

  #badValue(name: string, reason: string): CacheportError {
    return new CacheportError(
      "USAGE",
      `Cannot use ${quote(this.value(name) as string)} for option --${name}: ${reason}`,
    );
  }
}

/** Where the command's name stands in a command line, and what is left without it. */
export interface CommandLine {
  /** Undefined when there is none. */
  readonly command: string | undefined;
  readonly rest: readonly string[];
}

/**
 * Finds the command: the first argument that is no option and no option's value.
 *
 * @param leading Options that may stand before the command.
 */
export function findCommand(argv: readonly string[], leading: readonly OptionSpec[]): CommandLine {
  for (let at = 0; at < argv.length; at++) {
    const argument = argv[at] as string;
    if (argument === "--") break;
    if (!argument.startsWith("-")) return { command: argument, rest: argv.toSpliced(at, 1) };
    const option = leading.find((one) => `--${one.name}` === argument);
    if (option?.value) at++;
  }
  return { command: undefined, rest: argv };
}

/**
 * Tells whether a flag is on a command line, whatever else is wrong with it. Right
 * because no value may start with a dash unless `=` joins it to its option.
 */
export function hasFlag(argv: readonly string[], ...flags: string[]): boolean {
  const end = argv.indexOf("--");
  return (end < 0 ? argv : argv.slice(0, end)).some((argument) => flags.includes(argument));
}

/** Quotes a word of the command line for a message, cut when it is long. */
export function quote(word: string): string {
  return JSON.stringify(word.length > 100 ? `${word.slice(0, 100)}...` : word);
}

function usage(
  spec: ArgumentsSpec,
  reason: string,
  hint = spec.command === ""
    ? "Run cacheport --help to see the commands"
    : `Run cacheport ${spec.command} --help to see how it is used`,
): CacheportError {
  const what = spec.command === "" ? "cacheport" : `command ${quote(spec.command)}`;
  return new CacheportError("USAGE", `Cannot run ${what}: ${reason}`, { hint });
}

function unknownOption(spec: ArgumentsSpec, shown: string, cluster = shown): CacheportError {
  const names = spec.options.map(({ name }) => `--${name}`);
  // `-json` is one dash short of `--json`.
  const meant = nearest(cluster.length > 2 ? `--${cluster.replace(/^-+/, "")}` : shown, names);
  return usage(
    spec,
    `there is no option ${quote(shown)}`,
    foreignOption(spec.command, cluster) ??
      foreignOption(spec.command, shown) ??
      (meant && `Did you mean ${meant}?`),
  );
}

function badChoice(
  spec: ArgumentsSpec,
  what: string,
  value: string,
  choices: readonly string[],
): CacheportError {
  const meant = nearest(value, choices);
  return usage(
    spec,
    `${what} takes ${choices.join(", ")}, not ${quote(value)}`,
    foreignValue(what.replace("option ", ""), value) ?? (meant && `Did you mean ${meant}?`),
  );
}
