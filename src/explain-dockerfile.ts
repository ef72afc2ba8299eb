/**
 * A Dockerfile as a list of instructions with their lines: enough to say which
 * instruction and which stage a line belongs to. Nothing is expanded.
 *
 * Source: BuildKit frontend/dockerfile/parser (comments, line continuation, the
 * escape directive, here-documents).
 */

/** One instruction. */
export interface Instruction {
  /** In upper case: `RUN`. */
  keyword: string;
  /** The instruction on one line: continuations joined, without the bodies of here-documents. */
  text: string;
  /** First and last line, from 1. */
  line: number;
  endLine: number;
  /** The stage that it stands in; empty before the first FROM. */
  stage: string;
}

const HEREDOC = /<<(-?)(["']?)([A-Za-z_][\w.-]*)\2/g;
/** Instructions that may carry a here-document. */
const WITH_HEREDOC = new Set(["RUN", "COPY", "ADD"]);

/** Splits the text of a Dockerfile. What is no instruction is passed over: it was built already. */
export function readDockerfile(text: string): Instruction[] {
  const lines = text.split(/\r?\n/);
  const escape = /^\s*#\s*escape\s*=\s*`\s*$/im.test(text.slice(0, 1000)) ? "`" : "\\";
  const found: Instruction[] = [];
  let stage = "";
  let stages = 0;
  for (let at = 0; at < lines.length; at++) {
    const first = at;
    let words = (lines[at] as string).trim();
    if (words === "" || words.startsWith("#")) continue;
    while (words.endsWith(escape) && at + 1 < lines.length) {
      words = words.slice(0, -1).trimEnd();
      const next = (lines[++at] as string).trim();
      // Comments and empty lines within a continued instruction do not end it.
      words = next === "" || next.startsWith("#") ? `${words} ${escape}` : `${words} ${next}`;
    }
    const keyword = (/^[A-Za-z]+/.exec(words)?.[0] ?? "").toUpperCase();
    if (WITH_HEREDOC.has(keyword)) {
      for (const [, dash, , end] of words.matchAll(HEREDOC)) {
        const isEnd = (line: string): boolean => (dash ? line.replace(/^\t+/, "") : line) === end;
        let close = at + 1;
        while (close < lines.length && !isEnd(lines[close] as string)) close++;
        if (close < lines.length) at = close;
      }
    }
    if (keyword === "FROM") {
      stage = /\sAS\s+(\S+)\s*$/i.exec(words)?.[1] ?? `stage-${stages}`;
      stages++;
    }
    found.push({ keyword, text: words, line: first + 1, endLine: at + 1, stage });
  }
  return found;
}

/** The instruction that a line stands in. */
export function instructionAt(
  instructions: readonly Instruction[],
  line: number,
): Instruction | undefined {
  return instructions.find((one) => one.line <= line && line <= one.endLine);
}
