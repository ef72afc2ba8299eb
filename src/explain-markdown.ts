/** An explanation as Markdown, for the summary of a job on GitHub. */
import { printable } from "./cli-text.ts";
import type { Explanation } from "./explain.ts";
import { costText, secondsText, SHORTEST, summaryText, Words } from "./explain-words.ts";

const MARKS = {
  hit: "🟢 hit",
  MISS: "🔴 **miss**",
  miss: "🟠 miss",
  maybe: "🟡 maybe",
  "?": "🟡 ?",
};
/** Characters of an instruction in a table. */
const NAME_WIDTH = 100;

/** Writes an explanation as Markdown. All texts are escaped. */
export function explainMarkdown(
  explanation: Explanation,
  options: { all: boolean; hasWas: boolean },
): string {
  const words = new Words(explanation, options);
  const { summary } = explanation;
  const lines = [
    `### Build cache: ${summary.hit} of ${summary.steps} steps cached`,
    "",
    `${escaped(summaryText(explanation))}. Cache: ${code(explanation.caches.map(({ location }) => location).join(", "))}`,
  ];
  for (const [platform, steps] of Map.groupBy(explanation.steps, (step) => step.platform)) {
    const shown = steps.filter(({ internal }) => !internal || options.all);
    lines.push("");
    if (explanation.builds.length > 1) lines.push(`#### ${escaped(platform)}`, "");
    lines.push("| Line | Step | Cache | Why | Time |", "| ---: | --- | --- | --- | ---: |");
    const details: string[] = [];
    for (const step of shown) {
      const said = words.of(step);
      const time =
        step.seconds === null || step.seconds < SHORTEST ? "" : secondsText(step.seconds);
      const cells = [
        step.line === null ? "" : `${step.line}`,
        code(step.name.length > NAME_WIDTH ? `${step.name.slice(0, NAME_WIDTH)}…` : step.name),
        MARKS[said.status],
        escaped(said.note),
        step.status === "hit" && time !== "" ? `${time} saved` : time,
      ];
      lines.push(`| ${cells.join(" | ")} |`);
      if (said.details.length === 0) continue;
      const title = step.line === null ? step.name : `line ${step.line}: ${said.note}`;
      details.push(
        "",
        `<details><summary>${escaped(title)}</summary>`,
        "",
        "```",
        ...said.details.map((line) => printable(line).replaceAll("```", "'''")),
        "```",
        "",
        "</details>",
      );
    }
    lines.push(...details);
  }
  const costs = explanation.costs.filter(({ seconds }) => seconds > 0).slice(0, 5);
  if (costs.length > 0) lines.push("");
  for (const cost of costs) lines.push(`- ${escaped(costText(cost, words))}`);
  if (explanation.hints.length > 0) lines.push("");
  for (const { text } of explanation.hints) lines.push(`> **Hint:** ${escaped(text)}`, ">");
  if (lines.at(-1) === ">") lines.pop();
  return `${lines.join("\n")}\n`;
}

/** Text that is not to be read as Markdown or HTML. */
function escaped(text: string): string {
  return printable(text)
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(/[\\`*_[\]|~#@]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** Text as code; within a table a bar would end the cell. */
function code(text: string): string {
  return `<code>${escaped(text)}</code>`;
}
