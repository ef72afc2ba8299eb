/**
 * Writes completion scripts for shells from the command table. The scripts hold
 * commands, options and choices; only the names inside a layout are asked for when
 * they are needed, with the hidden command `cacheport __complete TEXT`.
 */
import type { CommandSpec, OptionSpec } from "./cli-command.ts";
import { LEADING_OPTIONS, sharedOptions, takesLocations } from "./cli-options.ts";

/** The shells that scripts are written for. */
export const SHELLS = ["bash", "zsh", "fish", "powershell"] as const;

/** A shell that a script is written for. */
export type Shell = (typeof SHELLS)[number];

/** Writes the script for a shell. */
export function completionScript(shell: Shell, commands: readonly CommandSpec[]): string {
  const writers = {
    bash: bashScript,
    zsh: zshScript,
    fish: fishScript,
    powershell: powershellScript,
  };
  return writers[shell](commands);
}

/** Values that are completed as files: those that the help calls so. */
const FILE_VALUES = /^(?:FILE|DIR|PATH|LOC|LAYOUT)$/;

function allOptions(command: CommandSpec): readonly OptionSpec[] {
  return [...command.options, ...sharedOptions(command)];
}

/** The words that an option is written as: `-q --quiet`. */
function spellings({ name, short }: OptionSpec): string[] {
  return [...(short ? [`-${short}`] : []), `--${name}`];
}

/** The values that the operands of a command can be chosen from. */
function operandChoices(command: CommandSpec): readonly string[] {
  return command.operands.flatMap((operand) => operand.choices ?? []);
}

function bashScript(commands: readonly CommandSpec[]): string {
  const leadingWithValue = LEADING_OPTIONS.filter((option) => option.value);
  const names = [...commands.map(({ name }) => name), "help"].join(" ");
  const cases = commands.map((command) => {
    const words = allOptions(command).flatMap(spellings).join(" ");
    const kind = takesLocations(command) ? "locations" : "words";
    return `    ${command.name}) options="${words}"; kind=${kind}; values="${operandChoices(command).join(" ")}" ;;`;
  });
  const valueCases = commands.flatMap((command) =>
    allOptions(command)
      .filter((option) => option.value)
      .map((option) => {
        const patterns = spellings(option)
          .map((word) => `"${command.name} ${word}"`)
          .join(" | ");
        const kind = FILE_VALUES.test(option.value as string) ? "files" : "words";
        return `    ${patterns}) options=; kind=${kind}; values="${(option.choices ?? []).join(" ")}" ;;`;
      }),
  );
  return `# Completions of cacheport for bash. Load them with
#   source <(cacheport completion bash)

_cacheport() {
  local line=\${COMP_LINE:0:COMP_POINT} words=() index command= lead=
  # Split at blanks alone: bash splits at : = and @ too. A backslash keeps a blank.
  read -a words <<< "$line"
  [[ $line == *[[:space:]] && $line != *\\\\[[:space:]] ]] && words+=("")
  local last=$((\${#words[@]} - 1))
  local whole=\${words[last]} previous=\${words[last - 1]}
  local current=$whole
  if [[ $whole == --*=* ]]; then
    previous=\${whole%%=*} lead=\${whole%%=*}= current=\${whole#*=}
  fi

  for ((index = 1; index < last; index++)); do
    case \${words[index]} in
    ${leadingWithValue.map(({ name }) => `--${name}`).join(" | ")}) ((index++)) ;;
    -*) ;;
    *)
      command=\${words[index]}
      break
      ;;
    esac
  done

  local options= kind=words values=
  case $command in
    "") options="--help --version"; values="${names}" ;;
    help) values="${names}" ;;
${cases.join("\n")}
  esac
  case "$command $previous" in
${valueCases.join("\n")}
  esac

  local IFS=$'\\n'
  COMPREPLY=()
  if [[ $current == -* && -n $options ]]; then
    COMPREPLY=($(IFS=' ' compgen -W "$options" -- "$current"))
  elif [[ $kind == words ]]; then
    COMPREPLY=($(IFS=' ' compgen -W "$values" -- "$current"))
  else
    compopt -o filenames 2> /dev/null
    COMPREPLY=($(compgen -f -- "$current"))
    if [[ $kind == locations ]]; then
      COMPREPLY+=($("\${words[0]}" __complete -- "$current" 2> /dev/null))
    fi
  fi

  # Readline replaces only what follows the last of the word breaks.
  local breaks=\${COMP_WORDBREAKS//[^:=@]/} kept=
  [[ -n $breaks ]] && kept=\${whole%"\${whole##*[$breaks]}"}
  COMPREPLY=("\${COMPREPLY[@]/#/$lead}")
  COMPREPLY=("\${COMPREPLY[@]#"$kept"}")
}

complete -F _cacheport cacheport
`;
}

function zshScript(commands: readonly CommandSpec[]): string {
  const described = (name: string, summary: string): string =>
    quoted(`${name.replaceAll(":", "\\:")}:${summary}`);
  const option = (spec: OptionSpec): string => {
    const text = `[${spec.description.replace(/[\\[\]:]/g, "\\$&")}]`;
    let value = "";
    if (spec.choices) value = `:${spec.value}:(${spec.choices.join(" ")})`;
    else if (spec.value) value = `:${spec.value}:${FILE_VALUES.test(spec.value) ? "_files" : " "}`;
    const many = spec.repeat ? "*" : "";
    const long = quoted(`${many}--${spec.name}${spec.value ? "=" : ""}${text}${value}`);
    if (!spec.short) return long;
    return `${long} ${quoted(`${many}-${spec.short}${spec.value ? "+" : ""}${text}${value}`)}`;
  };
  const operands = (command: CommandSpec): string[] => {
    // What follows an operand that may repeat cannot be told apart from it.
    const repeated = command.operands.findIndex((operand) => operand.repeat);
    const told = repeated < 0 ? command.operands : command.operands.slice(0, repeated + 1);
    return told.map((operand) => {
      const head = operand.repeat ? "*" : operand.optional ? ":" : "";
      let action = operand.kind === "location" ? "_cacheport_locations" : " ";
      if (operand.choices) action = `(${operand.choices.join(" ")})`;
      return quoted(`${head}:${operand.name}:${action}`);
    });
  };
  const cases = commands.map(
    (command) => `  (${command.name})
    _arguments -s -S \\
      ${[...allOptions(command).map(option), ...operands(command)].join(" \\\n      ")}
    ;;`,
  );
  return `#compdef cacheport
# Completions of cacheport for zsh. Load them with
#   source <(cacheport completion zsh)
# or write them to a file _cacheport in a folder of $fpath.

_cacheport_commands() {
  local -a commands=(
    ${[...commands.map(({ name, summary }) => described(name, summary)), described("help", "Show the help of a command")].join("\n    ")}
  )
  _describe -t commands command commands
}

_cacheport_names() {
  local -a names=("\${(@f)$(cacheport __complete -- "\${(Q)PREFIX}" 2> /dev/null)}")
  compadd -S '' -- \${names:#}
}

_cacheport_locations() {
  _alternative 'files:file:_files' 'names:name:_cacheport_names'
}

_cacheport() {
  local curcontext=$curcontext state line
  local -A opt_args
  _arguments -C \\
    ${[...LEADING_OPTIONS.map(option), quoted("--version[Print the version]")].join(" \\\n    ")} \\
    '1:command:_cacheport_commands' \\
    '*::argument:->arguments'
  [[ $state == arguments ]] || return
  case $words[1] in
  (help) _arguments '1:command:_cacheport_commands' ;;
${cases.join("\n")}
  esac
}

# Loaded by source it is registered, autoloaded from a file it is called.
if [[ $funcstack[1] == _cacheport ]]; then
  _cacheport "$@"
else
  compdef _cacheport cacheport
fi
`;
}

function fishScript(commands: readonly CommandSpec[]): string {
  const option = (condition: string, spec: OptionSpec): string => {
    const parts = ["complete -c cacheport", `-n ${fishQuoted(condition)}`];
    if (spec.short) parts.push(`-s ${spec.short}`);
    parts.push(`-l ${spec.name}`);
    if (spec.value) parts.push(FILE_VALUES.test(spec.value) ? "-r -F" : "-x");
    if (spec.choices) parts.push(`-a ${fishQuoted(spec.choices.join(" "))}`);
    return [...parts, `-d ${fishQuoted(spec.description)}`].join(" ");
  };
  const lines = commands.flatMap((command) => {
    const seen = `__cacheport_command_is ${command.name}`;
    const condition = `-n ${fishQuoted(seen)}`;
    const choices = operandChoices(command);
    return [
      "",
      `complete -c cacheport -n '__cacheport_command_is ""' -a ${command.name} -d ${fishQuoted(command.summary)}`,
      ...allOptions(command).map((spec) => option(seen, spec)),
      ...(takesLocations(command)
        ? [
            `complete -c cacheport ${condition} -F -a ${fishQuoted("(cacheport __complete -- (commandline -ct) 2> /dev/null)")}`,
          ]
        : []),
      ...(choices.length > 0
        ? [`complete -c cacheport ${condition} -a ${fishQuoted(choices.join(" "))}`]
        : []),
    ];
  });
  const withValue = LEADING_OPTIONS.filter(({ value }) => value).map(({ name }) => `--${name}`);
  const names = commands.map(({ name }) => name).join(" ");
  return `# Completions of cacheport for fish. Load them with
#   cacheport completion fish | source

# Prints the command on the command line, if there is one yet.
function __cacheport_command
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch $words[1]
            case ${withValue.join(" ")}
                set -e words[1]
            case '-*'
            case '*'
                echo $words[1]
                return
        end
        set -e words[1]
    end
end

function __cacheport_command_is
    set -l command (__cacheport_command)
    test "$command" = "$argv[1]"
end

complete -c cacheport -f
complete -c cacheport -n '__cacheport_command_is ""' -s h -l help -d 'Show the help'
complete -c cacheport -n '__cacheport_command_is ""' -s V -l version -d 'Print the version'
complete -c cacheport -n '__cacheport_command_is ""' -a help -d 'Show the help of a command'
complete -c cacheport -n '__cacheport_command_is help' -a '${names}'
${lines.join("\n")}
`;
}

function powershellScript(commands: readonly CommandSpec[]): string {
  const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;
  const array = (words: readonly string[]): string => `@(${words.map(literal).join(", ")})`;
  const entries = commands.map((command) => {
    const values = allOptions(command)
      .filter((spec) => spec.choices)
      .map((spec) => `${literal(`--${spec.name}`)} = ${array(spec.choices ?? [])}`);
    return `    ${literal(command.name)} = @{
      Options = ${array(allOptions(command).flatMap(spellings))}
      Operands = ${array(operandChoices(command))}
      Locations = ${takesLocations(command) ? "$true" : "$false"}
      Values = @{ ${values.join("; ")} }
    }`;
  });
  const names = array([...commands.map(({ name }) => name), "help"]);
  return `# Completions of cacheport for PowerShell. Load them with
#   cacheport completion powershell | Out-String | Invoke-Expression

Register-ArgumentCompleter -Native -CommandName cacheport -ScriptBlock {
  param($wordToComplete, $commandAst, $cursorPosition)
  $names = ${names}
  $commands = @{
${entries.join("\n")}
  }
  $words = @($commandAst.CommandElements | ForEach-Object { $_.ToString() })
  if ($wordToComplete -ne '') { $words = @($words | Select-Object -SkipLast 1) }
  $command = $words | Select-Object -Skip 1 | Where-Object { $_ -in $names } | Select-Object -First 1
  $previous = $words | Select-Object -Last 1
  $found = if (-not $command) {
    $names + @('--help', '--version')
  } elseif ($command -eq 'help') {
    $names
  } elseif ($commands[$command].Values.ContainsKey($previous)) {
    $commands[$command].Values[$previous]
  } elseif ($wordToComplete.StartsWith('-')) {
    $commands[$command].Options
  } else {
    $commands[$command].Operands
    if ($commands[$command].Locations) { cacheport __complete -- $wordToComplete 2> $null }
  }
  # Where nothing is found PowerShell completes files.
  $found | Where-Object { $_ -and $_.StartsWith($wordToComplete) } | ForEach-Object {
    [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
  }
}
`;
}

/** Quotes a word for zsh, which takes all between single quotes as it stands. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Quotes a word for fish, where a backslash means something between single quotes. */
function fishQuoted(text: string): string {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}
