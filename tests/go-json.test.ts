import { describe, expect, test } from "bun:test";
import { compareBytes, encodeGoJson, goFields, parseJson, sortedMap } from "../src/go-json.ts";
import { failure } from "./helpers/errors.ts";

const text = (value: unknown): string => new TextDecoder().decode(encodeGoJson(value));

describe("encodeGoJson", () => {
  test.each([
    [{ a: "<b> & c" }, String.raw`{"a":"\u003cb\u003e \u0026 c"}`],
    [{ a: "\u2028\u2029" }, String.raw`{"a":"\u2028\u2029"}`],
    [{ "<": 1 }, String.raw`{"\u003c":1}`],
    [{ a: undefined, b: null }, '{"b":null}'],
    ['\u0000\b\f\n\r\t"\\/\u007f', String.raw`"\u0000\b\f\n\r\t\"\\/` + '\u007f"'],
    ["é日😀", '"é日😀"'],
    ["\ud800", '"\ufffd"'],
    [Number.MAX_SAFE_INTEGER, "9007199254740991"],
    [[], "[]"],
  ])("writes %j as Go does", (value, expected) => {
    expect(text(value)).toBe(expected);
  });

  test("never leaves a character that Go escapes, and reads back the same", () => {
    let seed = 7;
    const random = (limit: number): number => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return seed % limit;
    };
    for (let round = 0; round < 2000; round++) {
      const points = Array.from(
        { length: random(20) },
        () => [random(0x80), random(0x3000), 0x2028 + random(2), 0x1f600 + random(50)][random(4)],
      );
      const value = String.fromCodePoint(...(points as number[])).toWellFormed();
      const encoded = text({ [value]: [value] });
      expect(encoded).not.toMatch(/[<>&\u2028\u2029]/);
      expect(JSON.parse(encoded)).toEqual({ [value]: [value] });
    }
  });
});

test("compareBytes orders by UTF-8, not by UTF-16", () => {
  expect(["\u{10000}", "\uffff", "z", "é", "a"].toSorted(compareBytes)).toEqual([
    "a",
    "z",
    "é",
    "\uffff",
    "\u{10000}",
  ]);
});

test("sortedMap sorts keys and leaves an empty map out", () => {
  expect(JSON.stringify(sortedMap({ b: "1", a: "2" }))).toBe('{"a":"2","b":"1"}');
  expect(sortedMap({})).toBeUndefined();
  expect(sortedMap(undefined)).toBeUndefined();
});

describe("parseJson", () => {
  test.each(["", "{", "\ufeff{}", "{}x", "{'a':1}", "[1,]", "nul"])(
    "refuses %j with a coded error",
    async (bad) => {
      const error = await failure(() => parseJson(new TextEncoder().encode(bad), 'x "y"'));
      expect(error.code).toBe("DOCUMENT_INVALID");
      expect(error.message).toStartWith('Cannot read x "y": it is not valid JSON');
    },
  );
});

test("goFields matches names without regard to case, the last one wins", () => {
  const object = JSON.parse('{"CreatedAt":1,"createdat":2,"LayerS":3,"other":4,"\u212aey":5}');
  expect(goFields(object, ["createdAt", "layers", "key"])).toEqual({
    createdAt: 2,
    layers: 3,
    key: 5,
  });
});
