/**
 * Completion: a stub for each shell that asks the program what can follow, and the answer,
 * which is made from the command table. The stub stays right when commands change.
 */
import { findCommand } from "./cli-arguments.ts";
import type { CommandEntry, CommandSpec, OperandSpec, OptionSpec } from "./cli-command.ts";
import { LEADING_OPTIONS, sharedOptions } from "./cli-options.ts";

/** The shells that stubs are written for. */
export const SHELLS = ["bash", "zsh", "fish", "powershell"] as const;

/** A shell that a stub is written for. */
export type Shell = (typeof SHELLS)[number];

/** A word that can stand next, and what it means. */
export interface Candidate {
  readonly word: string;
  readonly description?: string | undefined;
}

/** What can stand next on a command line. */
export interface Completion {
  readonly candidates: readonly Candidate[];
  /** Files may stand there, too: the shell knows them. */
  readonly files: boolean;
  /** The text is that of a location: the names inside it may follow. */
  readonly location?: string;
}

/** A line of the answer that says that files may follow. No word starts with a colon. */
const FILES_LINE = ":files";

/** Values that are completed as files: those that the help calls so. */
const FILE_VALUES = /^(?:FILE|DIR|PATH|LAYOUT)$/;
/** Values that are locations. */
const LOCATION_VALUES = /^(?:LOC|SRC|DST|CACHE)$/;

/**
 * Finds what can stand next.
 *
 * @param words What follows the program's name, the last one being written and perhaps empty.
 * @param topics What `help` explains beside the commands.
 */
export async function complete(
  words: readonly string[],
  commands: readonly CommandEntry[],
  topics: readonly Candidate[] = [],
): Promise<Completion> {
  const before = words.slice(0, -1);
  const current = words.at(-1) ?? "";
  const listed = commands
    .filter((entry) => !entry.hidden)
    .map(({ name, summary }) => ({ word: name, description: summary }));
  const { command, rest } = findCommand(before, LEADING_OPTIONS);
  if (command === undefined) {
    const value = awaitedValue(before, LEADING_OPTIONS);
    if (value) return valueOf(value, current, "");
    const version = { name: "version", short: "V", description: "Print the version" };
    return current.startsWith("-")
      ? optionOf(current, [...LEADING_OPTIONS, version])
      : fitting(current, [...listed, { word: "help", description: "Show the help of a command" }]);
  }
  if (command === "help") return fitting(current, [...listed, ...topics]);
  const spec = await commands.find(({ name }) => name === command)?.load();
  return spec ? completeArguments(spec, rest, current) : fitting(current, []);
}

/** What can follow within the arguments of a command. */
function completeArguments(
  spec: CommandSpec,
  before: readonly string[],
  current: string,
): Completion {
  const options = [...spec.options, ...sharedOptions(spec)];
  const value = awaitedValue(before, options);
  if (value) return valueOf(value, current, "");
  const ended = before.includes("--");
  if (current.startsWith("-") && current !== "-" && !ended) return optionOf(current, options);
  const operand = operandAt(spec.operands, operandCount(before, options));
  if (!operand) return current === "-" ? optionOf(current, options) : fitting(current, []);
  if (operand.kind === "location") return { candidates: [], files: true, location: current };
  return fitting(
    current,
    (operand.choices ?? []).map((word) => ({ word })),
  );
}

/** The option whose value is written next; undefined when none is waited for. */
function awaitedValue(
  before: readonly string[],
  options: readonly OptionSpec[],
): OptionSpec | undefined {
  let awaited: OptionSpec | undefined;
  for (const word of before) {
    if (word === "--") return undefined;
    awaited = awaited ? undefined : options.find((one) => one.value && isSpelling(one, word));
  }
  return awaited;
}

/** Tells whether a word is an option's name, by itself or at the end of short flags. */
function isSpelling({ name, short }: OptionSpec, word: string): boolean {
  if (word.startsWith("--")) return word === `--${name}`;
  return short !== undefined && word.startsWith("-") && word.endsWith(short);
}

function operandCount(before: readonly string[], options: readonly OptionSpec[]): number {
  let count = 0;
  for (let at = 0; at < before.length; at++) {
    const word = before[at] as string;
    if (word === "--") return count + before.length - at - 1;
    if (word.startsWith("-") && word !== "-") {
      if (awaitedValue([word], options)) at++;
    } else count++;
  }
  return count;
}

/** The operand at a position; one that repeats may stand at every later one. */
function operandAt(operands: readonly OperandSpec[], position: number): OperandSpec | undefined {
  const repeated = operands.findIndex((operand) => operand.repeat);
  return operands[repeated >= 0 ? Math.min(position, repeated) : position];
}

/** `--na` and `--name=va`. */
function optionOf(current: string, options: readonly OptionSpec[]): Completion {
  const equals = current.indexOf("=");
  if (equals >= 0) {
    const option = options.find((one) => one.value && `--${one.name}` === current.slice(0, equals));
    const lead = current.slice(0, equals + 1);
    return option ? valueOf(option, current, lead) : fitting(current, []);
  }
  const words = options.flatMap(({ name, short, description }) => [
    ...(short ? [{ word: `-${short}`, description }] : []),
    { word: `--${name}`, description },
  ]);
  return fitting(current, words);
}

/** The values of an option. @param lead What stands before the value in the same word: `--to=`. */
function valueOf({ value = "", choices }: OptionSpec, current: string, lead: string): Completion {
  if (LOCATION_VALUES.test(value))
    return { candidates: [], files: true, location: current.slice(lead.length) };
  const words = (choices ?? []).map((choice) => ({ word: lead + choice }));
  return { ...fitting(current, words), files: FILE_VALUES.test(value) };
}

function fitting(current: string, candidates: readonly Candidate[]): Completion {
  return { candidates: candidates.filter(({ word }) => word.startsWith(current)), files: false };
}

/** The answer as the stubs read it: one candidate a line, a tab before its description. */
export function completionLines({ candidates, files }: Completion): string {
  const lines = candidates
    // A word with a control character is none that can be typed.
    .filter(({ word }) => !/\p{Cc}/u.test(word))
    .map(({ word, description }) => (description ? `${word}\t${description}` : word));
  return [...lines, ...(files ? [FILES_LINE] : [])].map((line) => `${line}\n`).join("");
}

/** The stub for a shell. */
export function completionScript(shell: Shell): string {
  return { bash: BASH, zsh: ZSH, fish: FISH, powershell: POWERSHELL }[shell];
}

const BASH = `# Completions of cacheport for bash. Load them with
#   source <(cacheport completion bash)

_cacheport() {
  local line=\${COMP_LINE:0:COMP_POINT} words=() candidate files=
  # Split at blanks alone: bash splits at : = and @ too. A backslash keeps a blank.
  read -a words <<< "$line"
  [[ $line == *[[:space:]] && $line != *\\\\[[:space:]] ]] && words+=("")
  local whole=\${words[\${#words[@]} - 1]} lead=
  [[ $whole == --*=* ]] && lead=\${whole%%=*}=

  local IFS=$'\\n'
  COMPREPLY=()
  for candidate in $("\${words[0]}" __complete --line -- "\${words[@]:1}" 2> /dev/null); do
    if [[ $candidate == :files ]]; then files=1; else COMPREPLY+=("\${candidate%%$'\\t'*}"); fi
  done
  if [[ -n $files ]]; then
    compopt -o filenames 2> /dev/null
    for candidate in $(compgen -f -- "\${whole#"$lead"}"); do COMPREPLY+=("$lead$candidate"); done
  fi

  # Readline replaces only what follows the last of the word breaks.
  local breaks=\${COMP_WORDBREAKS//[^:=@]/} kept=
  [[ -n $breaks ]] && kept=\${whole%"\${whole##*[$breaks]}"}
  COMPREPLY=("\${COMPREPLY[@]#"$kept"}")
}

complete -F _cacheport cacheport
`;

const ZSH = `#compdef cacheport
# Completions of cacheport for zsh. Load them with
#   source <(cacheport completion zsh)
# or write them to a file _cacheport in a folder of $fpath.

_cacheport() {
  local line lead= files=
  local -a found texts
  local current=\${(Q)PREFIX}
  if [[ $current == --*=* ]]; then
    lead=\${current%%=*}=
    compset -P '--*='
  fi
  for line in "\${(@f)$(cacheport __complete --line -- "\${(@Q)words[2,CURRENT-1]}" "$current" 2> /dev/null)}"; do
    [[ -z $line ]] && continue
    if [[ $line == :files ]]; then files=1; continue; fi
    found+=("\${\${line%%$'\\t'*}#$lead}")
    texts+=("\${\${line%%$'\\t'*}#$lead}\${line/#*$'\\t'/  -- }")
    [[ $line == *$'\\t'* ]] || texts[-1]=$found[-1]
  done
  (( $#found )) && compadd -l -d texts -- $found
  [[ -n $files ]] && _files
}

# Loaded by source it is registered, autoloaded from a file it is called.
if [[ $funcstack[1] == _cacheport ]]; then
  _cacheport "$@"
else
  compdef _cacheport cacheport
fi
`;

const FISH = `# Completions of cacheport for fish. Load them with
#   cacheport completion fish | source

function __cacheport_complete
    set -l words (commandline -opc)
    set -e words[1]
    set -l current (commandline -ct)
    for line in (cacheport __complete --line -- $words "$current" 2> /dev/null)
        if test "$line" = :files
            set -l lead (string match -r -- '^--[^=]*=' "$current")
            string replace -r -- '^' "$lead" (__fish_complete_path (string replace -- "$lead" '' "$current"))
        else
            echo $line
        end
    end
end

complete -c cacheport -f -a '(__cacheport_complete)'
`;

const POWERSHELL = `# Completions of cacheport for PowerShell. Load them with
#   cacheport completion powershell | Out-String | Invoke-Expression

Register-ArgumentCompleter -Native -CommandName cacheport -ScriptBlock {
  param($wordToComplete, $commandAst, $cursorPosition)
  $words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object { $_.ToString() })
  # An empty word is lost on the way to a program.
  $new = if ($wordToComplete -eq '') { @('--new') } else { @() }
  # Where nothing is found PowerShell completes files.
  cacheport __complete --line @new -- @words 2> $null | Where-Object { $_ -ne ':files' } | ForEach-Object {
    $word, $text = $_ -split "\`t", 2
    if (-not $text) { $text = $word }
    [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $text)
  }
}
`;
