/** Renders `--help` from the command table. Gives text; prints nothing. */
import type { CommandEntry, CommandSpec, OperandSpec, OptionSpec } from "./cli-command.ts";
import { sharedOptions, takesLocations } from "./cli-options.ts";
import { bold, pad, wrap } from "./cli-text.ts";
import { ENVIRONMENT, optionText, optionUsage, TOPICS, withChoices } from "./cli-topics.ts";
import type { Topic } from "./cli-topics.ts";
import { DESCRIPTION, NAME, VERSION } from "./version.ts";

/** How the help is to look. */
export interface HelpStyle {
  /** Columns of the terminal, 0 when there is none. */
  readonly columns: number;
  readonly colors: boolean;
}

/** What each exit code means. Source: {@link EXIT_CODES} in errors.ts. */
export const EXIT_CODE_MEANINGS: readonly (readonly [number, string])[] = [
  [0, "Done"],
  [1, "Failed: a file, a network or a registry did not work"],
  [2, "Wrong usage: the command line or a reference is not right"],
  [3, "Not found, or ambiguous: a location, a name, a platform, a blob"],
  [4, "Invalid content: a digest that does not match, problems that verify found"],
  [5, "A registry refused: not authorized, denied, or not in this form"],
  [130, "Interrupted by a signal"],
];

const JSON_NOTE =
  "With --json standard output holds exactly one JSON value: the result or, when the command fails, " +
  '{"error":{"code","message","hint"}}. Notes, progress and the error as a sentence go to standard error.';

const MAX_COLUMNS = 100;
const MIN_COLUMNS = 40;
const DEFAULT_COLUMNS = 80;

/** The help of the program. */
export function programHelp(entries: readonly CommandEntry[], style: HelpStyle): string {
  const listed = entries.filter((entry) => !entry.hidden);
  const width = textWidth(style);
  return sections(style, [
    [undefined, wrap(`${NAME} ${VERSION}: ${DESCRIPTION}`, width)],
    ["Usage", [`  ${NAME} COMMAND [OPTION...] [OPERAND...]`]],
    [
      "Commands",
      list(
        [
          ...listed.map(({ name, summary }) => [name, summary] as const),
          ["help", "Show this help, or that of a command or a topic"] as const,
        ],
        width,
      ),
    ],
    [
      "Topics",
      list(
        TOPICS.map(({ name, summary }) => [`help ${name}`, summary]),
        width,
      ),
    ],
    [
      "Options",
      list(
        [
          ["-h, --help", "Show this help"],
          ["-V, --version", "Print the version"],
        ],
        width,
      ),
    ],
    ["Exit codes", exitCodes(width)],
    ["Environment", list(ENVIRONMENT.slice(0, 3), width)],
    [
      undefined,
      wrap(
        `${JSON_NOTE}\n\nRun "${NAME} COMMAND --help" for a command's options and examples.`,
        width,
      ),
    ],
  ]);
}

/** The help of one command. */
export function commandHelp(command: CommandSpec, style: HelpStyle): string {
  const width = textWidth(style);
  return sections(style, [
    [undefined, wrap(`${command.summary}.`, width)],
    ["Usage", wrap(usageLine(command), width - 4).map(hanging)],
    ["Description", wrap(command.description, width - 2).map(indent)],
    [
      "Examples",
      command.examples.flatMap((example, index) => [
        ...(index > 0 ? [""] : []),
        ...wrap(example.description, width - 4).map((line) => indent(`# ${line}`)),
        // Never wrapped, so that it can be copied as it stands.
        `  ${example.command}`,
      ]),
    ],
    [
      "Operands",
      list(
        command.operands.map((operand) => [
          operand.name,
          withChoices(operand.description, operand.choices),
        ]),
        width,
      ),
    ],
    [
      undefined,
      takesLocations(command)
        ? wrap(`${NAME} help locations shows how these are written.`, width - 2).map(indent)
        : [],
    ],
    ["Options", options(command.options, width)],
    [
      "Shared options",
      [
        ...wrap(sharedOptions(command).map(optionWord).join(", "), width - 2).map(indent),
        ...wrap(`${NAME} help options explains them.`, width - 2).map(indent),
      ],
    ],
    ["Exit codes", exitCodes(width)],
    ["JSON", wrap(JSON_NOTE, width - 2).map(indent)],
  ]);
}

/** The help on a topic. */
export function topicHelp(topic: Topic, style: HelpStyle): string {
  const width = textWidth(style);
  return sections(style, [
    [undefined, wrap(`${topic.summary}.`, width)],
    ...topic.parts.map(
      (part) =>
        [
          undefined,
          typeof part === "string" ? wrap(part, width - 2).map(indent) : terms(part, width),
        ] as const,
    ),
  ]);
}

/** Terms that may be whole commands, with their meaning beside them or below. */
function terms(items: readonly (readonly [string, string])[], width: number): string[] {
  return items.some(([term]) => term.length > width / 2)
    ? items.flatMap(([term, text]) => [
        `  ${term}`,
        ...wrap(text, width - 6).map((line) => `      ${line}`),
      ])
    : list(items, width);
}

/** `cacheport convert SRC [DST] [OPTION...]`. */
export function usageLine(command: CommandSpec): string {
  return [NAME, command.name, ...command.operands.map(operandUsage), "[OPTION...]"]
    .filter(Boolean)
    .join(" ");
}

function operandUsage({ name, optional, repeat }: OperandSpec): string {
  const text = repeat ? `${name}...` : name;
  return optional ? `[${text}]` : text;
}

/** `-q/--quiet`, `--jobs N`: an option as one word of a line. */
function optionWord({ name, short, value }: OptionSpec): string {
  return `${short ? `-${short}/` : ""}--${name}${value ? ` ${value}` : ""}`;
}

function options(specs: readonly OptionSpec[], width: number): string[] {
  return list(
    specs.map((option) => [optionUsage(option), optionText(option)]),
    width,
  );
}

function exitCodes(width: number): string[] {
  return list(
    EXIT_CODE_MEANINGS.map(([code, meaning]) => [`${code}`, meaning]),
    width,
  );
}

/** Terms on the left, what they mean on the right, or below where there is no room. */
function list(items: readonly (readonly [term: string, text: string])[], width: number): string[] {
  const longest = Math.max(0, ...items.map(([term]) => term.length));
  const column = Math.min(longest, Math.floor(width / 2) - 4) + 4;
  const blank = " ".repeat(column);
  return items.flatMap(([term, text]) => {
    const lines = wrap(text, width - column);
    const head = pad(`  ${term}`, column);
    return head.length > column
      ? [head, ...lines.map((line) => blank + line)]
      : lines.map((line, index) => (index === 0 ? head : blank) + line);
  });
}

/** Titles and their lines, a blank line between sections; empty ones are left out. */
function sections(
  style: HelpStyle,
  parts: readonly (readonly [title: string | undefined, lines: readonly string[]])[],
): string {
  return parts
    .filter(([, lines]) => lines.length > 0)
    .map(([title, lines]) => {
      const body = lines.map((line) => `${line.trimEnd()}\n`).join("");
      return title ? `${bold(`${title}:`, style.colors)}\n${body}` : body;
    })
    .join("\n");
}

function textWidth({ columns }: HelpStyle): number {
  const wanted = columns || DEFAULT_COLUMNS;
  return Math.max(MIN_COLUMNS, Math.min(MAX_COLUMNS, wanted));
}

function indent(line: string): string {
  return `  ${line}`;
}

function hanging(line: string, index: number): string {
  return index === 0 ? `  ${line}` : `    ${line}`;
}
