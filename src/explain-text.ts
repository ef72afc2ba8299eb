/** An explanation as text for a terminal. */
import { bold, colored, pad, printable, truncate, wrap } from "./cli-text.ts";
import type { ExplainedStep, Explanation } from "./explain.ts";
import { costText, secondsText, SHORTEST, summaryText, Words } from "./explain-words.ts";
import type { StepWords } from "./explain-words.ts";

/** How the text is to look. */
export interface ExplainStyle {
  colors: boolean;
  /** Columns of the terminal, 0 when there is none. */
  columns: number;
  /** Show every step and every file. */
  all: boolean;
  /** The build that filled the cache is at hand. */
  hasWas: boolean;
}

/** More hits in a row than this are one line. */
const SHOWN_HITS = 30;

/** Writes an explanation, each line ending in a line feed. */
export function explainText(explanation: Explanation, style: ExplainStyle): string {
  const words = new Words(explanation, style);
  const lines = [summaryText(explanation)];
  const platforms = Map.groupBy(explanation.steps, ({ platform }) => platform);
  for (const [platform, steps] of platforms) {
    lines.push("");
    if (platforms.size > 1) lines.push(bold(platform, style.colors));
    lines.push(...stepTable(steps, words, style));
  }
  const costs = explanation.costs.filter(({ seconds }) => seconds > 0);
  if (costs.length > 0) lines.push("");
  for (const cost of costs.slice(0, 5)) lines.push(`${costText(cost, words)}.`);
  const { savedSeconds } = explanation.summary;
  if (savedSeconds !== null && savedSeconds > 0)
    lines.push(`${costs.length > 0 ? "" : "\n"}The hits save ${secondsText(savedSeconds)}.`);
  if (explanation.hints.length > 0) lines.push("");
  for (const { text } of explanation.hints) lines.push(...hintLines(text, style));
  if (style.all && explanation.unnamed.length > 0) {
    const count = explanation.unnamed.length;
    lines.push("", `${count} ${count === 1 ? "record is" : "records are"} of other builds.`);
  }
  return lines.map((line) => `${line.trimEnd()}\n`).join("");
}

function hintLines(text: string, { columns, colors }: ExplainStyle): string[] {
  const width = columns === 0 ? 100 : Math.min(columns, 110);
  return wrap(printable(text), Math.max(20, width - 6)).map((line, at) =>
    at === 0 ? `${colored("hint:", "cyan", colors)} ${line}` : `      ${line}`,
  );
}

interface Row {
  step: ExplainedStep;
  words: StepWords;
}

function stepTable(steps: readonly ExplainedStep[], words: Words, style: ExplainStyle): string[] {
  const rows = steps
    .filter(({ internal }) => !internal || style.all)
    // As the Dockerfile has them; the build has them in the order in which it needs them.
    .toSorted((a, b) => (a.line ?? Infinity) - (b.line ?? Infinity))
    .map((step): Row => ({ step, words: words.of(step) }));
  const files = new Set(rows.map(({ step }) => step.file));
  const lineOf = ({ line, file }: ExplainedStep): string =>
    line === null ? "" : files.size > 1 && file !== null ? `${file}:${line}` : `${line}`;
  const lineWidth = rows.reduce((most, { step }) => Math.max(most, lineOf(step).length), 4);
  const room = style.columns === 0 ? 120 : Math.max(60, style.columns);
  const longest = rows.reduce(
    (most, { step }) => Math.max(most, Bun.stringWidth(printable(step.name))),
    4,
  );
  const nameWidth = Math.min(longest, Math.max(24, Math.floor(room * 0.5)));
  const noteWidth = Math.max(20, room - lineWidth - nameWidth - 11);
  const indent = " ".repeat(lineWidth + 8);
  const lines = [
    bold(`${pad("LINE", lineWidth, "right")}  ${pad("STEP", nameWidth)}  CACHE`, style.colors),
  ];
  const hidden = style.all ? new Set<Row>() : hitsInARow(rows);
  rows.forEach((row, at) => {
    if (hidden.has(row)) {
      if (!hidden.has(rows[at - 1] as Row)) {
        const count = rows.slice(at).findIndex((one) => !hidden.has(one));
        lines.push(`${pad("", lineWidth)}  ... ${count < 0 ? rows.length - at : count} more hits`);
      }
      return;
    }
    const { step, words: said } = row;
    const name = pad(truncate(printable(step.name), nameWidth), nameWidth);
    const [note = "", ...rest] = wrap(printable(noteText(step, said)), noteWidth);
    const status = paint(pad(said.status, 5), said.status, style.colors);
    lines.push(`${pad(lineOf(step), lineWidth, "right")}  ${name}  ${status}  ${note}`);
    const below = " ".repeat(lineWidth + nameWidth + 11);
    for (const line of rest) lines.push(below + line);
    for (const line of said.details) lines.push(indent + printable(line));
  });
  return lines;
}

/** All but the first and last of very long runs of hits. */
function hitsInARow(rows: readonly Row[]): Set<Row> {
  const hidden = new Set<Row>();
  for (let at = 0; at < rows.length;) {
    let end = at;
    while (end < rows.length && rows[end]?.words.status === "hit" && rows[end]?.words.note === "")
      end++;
    if (end - at > SHOWN_HITS) for (const row of rows.slice(at + 5, end - 5)) hidden.add(row);
    at = end + 1;
  }
  return hidden;
}

function noteText({ seconds, status }: ExplainedStep, { note }: StepWords): string {
  if (seconds === null || seconds < SHORTEST) return note;
  const time = status === "hit" ? `${secondsText(seconds)} saved` : secondsText(seconds);
  return note === "" ? time : `${note}, ${time}`;
}

function paint(text: string, status: StepWords["status"], colors: boolean): string {
  const color = { hit: "green", MISS: "red", miss: "red", maybe: "yellow", "?": "yellow" } as const;
  const painted = colored(text, color[status], colors);
  return status === "MISS" ? bold(painted, colors) : painted;
}
