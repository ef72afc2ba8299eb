/** `cacheport completion`, and the hidden command that its scripts call. */
import { defineCommand } from "./cli-command.ts";
import type { Arguments, CommandContext } from "./cli-command.ts";
import type { Shell } from "./cli-completion.ts";
import { complete, completionLines, completionScript, SHELLS } from "./cli-completion.ts";
import type { SharedFlag, SharedValue } from "./cli-options.ts";

/** `cacheport completion SHELL`. */
export const completionCommand = defineCommand({
  name: "completion",
  summary: "Print a script that completes cacheport's commands in a shell",
  description:
    "Prints a script for a shell that completes commands, options, their values, files and the names inside layouts. The script asks cacheport itself, so it stays right when cacheport is replaced by a newer one.",
  operands: [
    {
      name: "SHELL",
      description: "The shell to write for",
      kind: "text",
      choices: SHELLS,
    },
  ],
  options: [],
  examples: [
    {
      command: "source <(cacheport completion bash)",
      description: "Complete in this shell; put the line into ~/.bashrc to keep it",
    },
    {
      command: "cacheport completion zsh > ~/.zfunc/_cacheport",
      description: "Install for zsh, in a folder of $fpath",
    },
    {
      command: "cacheport completion fish > ~/.config/fish/completions/cacheport.fish",
      description: "Install for fish",
    },
  ],
  async run(context, args) {
    const shell = args.operand(0) as Shell;
    const script = completionScript(shell);
    await context.result({ shell, script }, () => script);
  },
});

/**
 * `cacheport __complete TEXT`: one location a line; with `--line` whatever can be the last
 * word of a command line. It never fails and never asks a network.
 */
export const completeCommand = defineCommand({
  name: "__complete",
  summary: "Print the locations that a text may become",
  description: "Prints the names inside a layout that a text may become.",
  operands: [
    {
      name: "TEXT",
      description: "What is written so far",
      kind: "text",
      repeat: true,
      optional: true,
    },
  ],
  options: [
    {
      name: "line",
      description: "Take the operands for a command line and complete its last word",
    },
    { name: "new", description: "With --line: a new word is to follow" },
  ],
  examples: [
    {
      command: "cacheport __complete -- ./cache:",
      description: "The names in the layout ./cache",
    },
  ],
  async run(context, args) {
    const words = [...args.operands, ...(args.flag("new") ? [""] : [])];
    if (args.flag("line")) {
      const found = await complete(words, context.commands);
      const names =
        found.location === undefined ? [] : await namesIn(context, args, found.location);
      const last = words.at(-1) ?? "";
      const lead = last.slice(0, last.length - (found.location ?? last).length);
      const candidates = [...found.candidates, ...names.map((name) => ({ word: lead + name }))];
      await context.result(candidates, () => completionLines({ ...found, candidates }));
    } else {
      const locations = await namesIn(context, args, args.operands[0] ?? "");
      await context.result(locations, () => locations.join("\n"));
    }
  },
});

/** The locations that a text may become: those with a name of the layout that it starts with. */
async function namesIn(
  context: CommandContext,
  args: Arguments<SharedFlag, SharedValue>,
  text: string,
): Promise<string[]> {
  return completeLocation(context, args, text).catch(() => []);
}

async function completeLocation(
  context: CommandContext,
  args: Arguments<SharedFlag, SharedValue>,
  text: string,
): Promise<string[]> {
  if (!text.includes(":")) return [];
  const { locate, openSource, storeSettings } = await import("./location-open.ts");
  const settings = await storeSettings(context, args);
  for (const place of places(text)) {
    let location;
    try {
      location = locate(place, "source");
    } catch {
      continue;
    }
    // A registry would be slow to ask, a compressed archive slow to unpack.
    if (location.kind !== "directory" && location.kind !== "archive") continue;
    if (location.kind === "archive" && !location.path.endsWith(".tar")) continue;
    if (location.name !== undefined) continue;
    const { store } = await openSource(place, settings, { documentsOnly: true });
    try {
      const names = (await store.list())
        .filter((entry) => entry.subject === undefined)
        .flatMap(({ refName, imageName }) => imageName ?? refName ?? []);
      return (
        [...new Set(names)]
          .map((name) => `${place}:${name}`)
          .filter((candidate) => candidate.startsWith(text))
          // A line is one candidate; a name with a control character is none that can be typed.
          .filter((candidate) => !/\p{Cc}/u.test(candidate))
      );
    } finally {
      await store.close();
    }
  }
  return [];
}

/** The parts of a text that can be a place: all of it, and what is before each colon. */
function places(text: string): string[] {
  const found = [text];
  for (let at = text.lastIndexOf(":"); at > 0; at = text.lastIndexOf(":", at - 1))
    found.push(text.slice(0, at));
  return found;
}
