import { describe, expect, test } from "bun:test";
import { formatFields, formatTable } from "../src/cli-table.ts";
import { pad, printable, printableLines, truncate, wrap } from "../src/cli-text.ts";

describe("formatTable", () => {
  const columns = [
    { title: "NAME" },
    { title: "SIZE", align: "right" as const },
    { title: "KIND", paint: (cell: string) => `<${cell}>` },
  ];

  test("aligns columns and leaves no trailing blanks", () => {
    const rows = [["main", "1.00 kB", "cache"], ["日本", "9 B", ""], ["x"]];
    expect(formatTable(columns, rows)).toBe(
      "NAME     SIZE  KIND\nmain  1.00 kB  cache\n日本      9 B\nx\n",
    );
  });

  test("shows titles alone for no rows, and nothing without titles", () => {
    expect(formatTable(columns, [])).toBe("NAME  SIZE  KIND\n");
    expect(formatTable(columns, [], { header: false })).toBe("");
  });

  test("paints only when colours are wanted", () => {
    const text = formatTable(columns, [["a", "1", "b"]], { colors: true });
    expect(text).toContain("<b>");
    expect(text).toStartWith("\x1b[1m");
    expect(formatTable(columns, [["a", "1", "b"]])).not.toContain("<");
  });

  test("no cell can drive the terminal or break its row", () => {
    const evil = "a\x1b[2Jb\nc\u202ed\u009be\r\0";
    const text = formatTable([{ title: "T" }], [[evil]], { header: false });
    expect(text).toBe("a\\x1b[2Jb\\x0ac\\u202ed\\x9be\\x0d\\x00\n");
  });
});

test("formatFields aligns values and leaves out what is absent", () => {
  expect(
    formatFields([
      ["Digest", "sha256:1"],
      ["Size", undefined],
      ["Is", "a\x07"],
    ]),
  ).toBe("Digest: sha256:1\nIs:     a\\x07\n");
});

describe("terminal text", () => {
  test("printable keeps words in any script and escapes controls", () => {
    expect(printable("héllo 日本 😀")).toBe("héllo 日本 😀");
    expect(printable("\t\x7f\u2066\ufeff")).toBe("\\x09\\x7f\\u2066\\ufeff");
    expect(printableLines("a\nb\r")).toBe("a\nb\\x0d");
  });

  test("truncate counts columns, not characters", () => {
    expect(truncate("hello", 5)).toBe("hello");
    expect(truncate("hello", 4)).toBe("hel…");
    expect(truncate("日本語", 4)).toBe("日…");
    expect(truncate("hello", 0)).toBe("");
    for (let width = 0; width < 12; width++)
      expect(Bun.stringWidth(truncate("a日b本c語d", width))).toBeLessThanOrEqual(width);
  });

  test("wrap breaks at blanks and keeps empty lines", () => {
    expect(wrap("aa bb cc", 5)).toEqual(["aa bb", "cc"]);
    expect(wrap("a\n\nb", 5)).toEqual(["a", "", "b"]);
    expect(wrap("a abcdefgh b", 3)).toEqual(["a", "abcdefgh", "b"]);
    expect(wrap("", 5)).toEqual([""]);
  });

  test("pad fills on either side and cuts nothing", () => {
    expect(pad("日", 4)).toBe("日  ");
    expect(pad("a", 3, "right")).toBe("  a");
    expect(pad("abcd", 3)).toBe("abcd");
  });
});

test("a table of very many rows is formatted", () => {
  const rows = Array.from({ length: 200_000 }, (_, index) => [`row ${index}`]);
  const text = formatTable([{ title: "NAME" }], rows);
  expect(text.split("\n")).toHaveLength(200_002);
});
