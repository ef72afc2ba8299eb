/**
 * Text for people: safe to show, cut and wrapped by the columns that it takes.
 * Widths are terminal columns, so that wide characters and colours count right.
 */

// Controls (C0, DEL, C1) can drive a terminal; bidirectional marks can make a text
// read as another one (Trojan Source, CVE-2021-42574).
const UNSAFE = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu;

/**
 * What the log of a CI job takes for a command: `::error::` at the start of a line
 * (GitHub), `##[error]` and `##vso[...]` anywhere in it (GitHub, Azure), `##teamcity[`.
 */
const CI_COMMAND = /^(\s*:)(?=:\s*[a-z])|#(?=#[\w.-]*\[)/gi;

/**
 * Makes text from outside safe to show on a terminal and in the log of a CI job: what
 * could drive one is written as an escape (`\x1b`, `\u202e`).
 */
export function printable(text: string): string {
  return text
    .replace(UNSAFE, (character) => {
      const code = character.charCodeAt(0);
      return code < 256
        ? `\\x${code.toString(16).padStart(2, "0")}`
        : `\\u${code.toString(16).padStart(4, "0")}`;
    })
    .replace(CI_COMMAND, (found) =>
      found.replace(/[:#]/, (mark) => (mark === ":" ? "\\x3a" : "\\x23")),
    );
}

/** Like {@link printable}, for texts that were made as several lines: line feeds stay. */
export function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/**
 * JSON with the same meaning in which nothing drives a terminal or a CI job: what
 * {@link printable} escapes and JSON.stringify leaves is written as `\uXXXX`.
 *
 * @param indent Blanks by which members are indented; 0 for one line.
 */
export function jsonText(value: unknown, indent = 0): string {
  // Outside of strings JSON has none of these.
  return JSON.stringify(value ?? null, undefined, indent).replace(
    /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|#(?=#[\w.-]*\[)/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A number of things: `1 layer`, `2 layers`. */
export function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

/** Pads with spaces to a width; what is wider stays as it is. */
export function pad(text: string, width: number, align: "left" | "right" = "left"): string {
  const fill = " ".repeat(Math.max(0, width - Bun.stringWidth(text)));
  return align === "left" ? text + fill : fill + text;
}

/** Cuts text without colours to a width, with an ellipsis where it was cut. */
export function truncate(text: string, width: number): string {
  if (Bun.stringWidth(text) <= width) return text;
  if (width <= 0) return "";
  let cut = "";
  let used = 0;
  for (const character of text) {
    const columns = Bun.stringWidth(character);
    if (used + columns > width - 1) break;
    cut += character;
    used += columns;
  }
  return `${cut}…`;
}

/**
 * Wraps a text at spaces. Line feeds in it end a line, an empty line stays; a word
 * that is wider than the width stands alone and is not cut.
 *
 * @param width Columns, at least 1.
 */
export function wrap(text: string, width: number): string[] {
  return text.split("\n").flatMap((paragraph) => {
    const lines: string[] = [];
    let line = "";
    for (const word of paragraph.split(/ +/)) {
      const longer = line === "" ? word : `${line} ${word}`;
      if (line !== "" && Bun.stringWidth(longer) > width) {
        lines.push(line);
        line = word;
      } else line = longer;
    }
    return [...lines, line];
  });
}

/** Sets text in bold, or leaves it where colours are not wanted. */
export function bold(text: string, colors: boolean): string {
  return colors ? `\x1b[1m${text}\x1b[22m` : text;
}

/** Sets text in a colour, or leaves it where colours are not wanted. */
export function colored(
  text: string,
  color: "red" | "green" | "yellow" | "cyan" | "gray",
  colors: boolean,
): string {
  const codes = { red: 31, green: 32, yellow: 33, cyan: 36, gray: 90 };
  return colors ? `\x1b[${codes[color]}m${text}\x1b[39m` : text;
}
