/** Writes the manual page, cacheport(1), from the command table. */
import { defineCommand, loadCommands } from "./cli-command.ts";
import type { CommandSpec, OptionSpec } from "./cli-command.ts";
import { EXIT_CODE_MEANINGS, usageLine } from "./cli-help.ts";
import { LEADING_OPTIONS } from "./cli-options.ts";
import { ENVIRONMENT, optionText, optionUsage, TOPICS, withChoices } from "./cli-topics.ts";
import type { Topic } from "./cli-topics.ts";
import { DESCRIPTION, NAME, VERSION } from "./version.ts";

/** The page in roff, with the man macros. Source: man(7). */
export function manPage(commands: readonly CommandSpec[]): string {
  return [
    `.TH ${NAME.toUpperCase()} 1 "" "${NAME} ${VERSION}" "User Commands"`,
    ".SH NAME",
    `${roff(NAME)} \\- ${roff(DESCRIPTION)}`,
    ".SH SYNOPSIS",
    `.B ${NAME}`,
    roff("COMMAND [OPTION...] [OPERAND...]"),
    ".SH COMMANDS",
    ...commands.flatMap(commandLines),
    ".SH SHARED OPTIONS",
    roff("Every command takes these; those on registries only where it takes a location."),
    ...LEADING_OPTIONS.flatMap(optionLines),
    ".SH EXIT STATUS",
    ...EXIT_CODE_MEANINGS.flatMap(([code, text]) => item(`${code}`, text)),
    ...TOPICS.filter(({ name }) => ["locations", "login", "errors"].includes(name)).flatMap(
      topicLines,
    ),
    ".SH ENVIRONMENT",
    ...ENVIRONMENT.flatMap(([name, text]) => item(name, text)),
    "",
  ].join("\n");
}

function commandLines(command: CommandSpec): string[] {
  return [
    `.SS ${roff(usageLine(command))}`,
    ...command.description.split("\n").map((line) => (line === "" ? ".PP" : roff(line))),
    ...command.operands.flatMap((operand) =>
      item(operand.name, withChoices(operand.description, operand.choices)),
    ),
    ...command.options.flatMap(optionLines),
    ...command.examples.flatMap((example) => [
      ".PP",
      `${roff(example.description)}:`,
      ".PP",
      ".nf",
      roff(`    ${example.command}`),
      ".fi",
    ]),
  ];
}

function optionLines(option: OptionSpec): string[] {
  return item(optionUsage(option).trim(), optionText(option));
}

/** A topic of the help as a section. */
function topicLines({ name, parts }: Topic): string[] {
  return [
    `.SH ${name.toUpperCase()}`,
    ...parts.flatMap((part) =>
      typeof part === "string"
        ? [".PP", roff(part)]
        : part.flatMap(([term, text]) => item(term, text)),
    ),
  ];
}

/** A term and, indented below it, what it means. */
function item(term: string, text: string): string[] {
  return [".TP", `.B ${roff(term)}`, roff(text)];
}

/** Escapes text, so that no line of it is read as a request and dashes stay dashes. */
function roff(text: string): string {
  const escaped = text.replaceAll("\\", "\\e").replaceAll("-", "\\-");
  return /^[.']/.test(escaped) ? `\\&${escaped}` : escaped;
}

/** `cacheport __man`: for packagers. */
export const manCommand = defineCommand({
  name: "__man",
  summary: "Print the manual page",
  description: "Prints cacheport(1) in roff.",
  operands: [],
  options: [],
  examples: [
    {
      command: "cacheport __man > cacheport.1",
      description: "Write the manual page to a file",
    },
  ],
  async run(context) {
    const page = manPage(await loadCommands(context.commands));
    await context.result({ page }, () => page);
  },
});
