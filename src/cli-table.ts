/** Aligned tables for people. */
import { bold, pad, printable } from "./cli-text.ts";

/** A column of a table. */
export interface Column {
  /** Shown above the column, in upper case by convention. */
  readonly title: string;
  /** Numbers read best on the right. */
  readonly align?: "left" | "right";
  /** Paints a cell that is already safe to show and padded; called only when colours are wanted. */
  readonly paint?: (cell: string) => string;
}

/**
 * Lays out rows in columns, two spaces apart, each line ending in a line feed.
 * Cells come from outside: what could drive a terminal is escaped. An empty cell
 * shows as it is; a row that is shorter than the columns is filled up.
 *
 * @param rows One text for each column.
 * @param options.colors True to set titles in bold and to paint cells.
 * @param options.header False to leave the titles out.
 */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  options: { colors?: boolean; header?: boolean } = {},
): string {
  const cells = rows.map((row) => columns.map((_, index) => printable(row[index] ?? "")));
  const header = options.header ?? true;
  const titles = columns.map((column) => column.title);
  const widths = columns.map((_, index) =>
    (header ? [titles] : [])
      .concat(cells)
      .reduce((widest, row) => Math.max(widest, Bun.stringWidth(row[index] as string)), 0),
  );
  const line = (row: readonly string[], style: (cell: string, column: Column) => string): string =>
    columns
      .map((column, index) => {
        const last = index === columns.length - 1;
        const text = row[index] as string;
        // Trailing blanks would only wrap on narrow terminals.
        const padded =
          last && column.align !== "right"
            ? text
            : pad(text, widths[index] as number, column.align);
        return options.colors ? style(padded, column) : padded;
      })
      .join("  ")
      .trimEnd();
  const lines = cells.map((row) => line(row, (cell, column) => column.paint?.(cell) ?? cell));
  if (header) lines.unshift(line(titles, (cell) => bold(cell, true)));
  return lines.map((text) => `${text}\n`).join("");
}

/** Lays out labels and values under each other, the labels without values left out. */
export function formatFields(
  fields: readonly (readonly [label: string, value: string | undefined])[],
  options: { colors?: boolean } = {},
): string {
  const present = fields.filter(([, value]) => value !== undefined);
  const width = Math.max(0, ...present.map(([label]) => label.length)) + 1;
  return present
    .map(([label, value]) => {
      const head = bold(pad(`${label}:`, width), options.colors ?? false);
      return `${head} ${printable(value as string)}\n`;
    })
    .join("");
}
