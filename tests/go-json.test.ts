import { describe, expect, test } from "bun:test";
import {
  compareBytes,
  encodeGoJson,
  goFields,
  isLossy,
  joinObject,
  parseJson,
  rewriteJson,
  sortedMap,
  splitJson,
} from "../src/go-json.ts";
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

describe("rewriteJson", () => {
  test.each([
    [
      ' { "a" : [ 1.0 , -0, 1E+2,  12345678901234567890 ] } ',
      '{"a":[1.0,-0,1E+2,12345678901234567890]}',
    ],
    ['{"b":1,"a":2,"10":3,"9":4,"b":5}', '{"b":1,"a":2,"10":3,"9":4,"b":5}'],
    [
      String.raw`{"\u003c\u0041":"a\/\"{}[],: <\ud800"}`,
      String.raw`{"\u003cA":"a/\"{}[],: \u003c` + '\ufffd"}',
    ],
    ['[[],{},[{}],""]', '[[],{},[{}],""]'],
    ["null", "null"],
    ['"x"', '"x"'],
  ])("keeps all of %s", (from, to) => {
    expect(rewriteJson(from)).toBe(to);
  });

  test("of a text that is deep beyond reason is no crash", () => {
    const deep = `${"[".repeat(200_000)}${"]".repeat(200_000)}`;
    expect(rewriteJson(deep)).toBe(deep);
    expect(splitJson(deep)).toHaveLength(1);
  });

  test("splitJson and joinObject take apart and join", () => {
    const text = '{"a":{"b":[1,2]},"c,\\"}":"}","d":[]}';
    const parts = splitJson(text);
    expect(parts.map(({ key }) => key)).toEqual(["a", 'c,"}', "d"]);
    expect(joinObject(new Map(parts.map(({ key, value }) => [key as string, value])))).toBe(text);
    expect(splitJson("[]")).toEqual([]);
    expect(splitJson("[1,[2,3]]").map(({ value }) => value)).toEqual(["1", "[2,3]"]);
  });

  test.each(["1.5", "-0", "1e5", "12345678901234567", "0.1"])("%s is lossy", (number) => {
    for (const text of [`{"a":${number}}`, `[${number} , 2]`]) expect(isLossy(text)).toBe(true);
  });

  test.each([
    '{"a":"x:1.5","b":[1,2]}',
    '{"size":123456789012345}',
    '{"a":"2024-01-01T00:00:00.5Z"}',
  ])("%s is not", (text) => {
    expect(isLossy(text)).toBe(false);
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
