import { describe, expect, test } from "bun:test";
import {
  isOptionText,
  parseAttributes,
  parseCsvLine,
  parseGoBool,
  readAttributes,
} from "../src/location-attributes.ts";
import { CacheportError } from "../src/errors.ts";
import { failure } from "./helpers/errors.ts";
import { random } from "./helpers/random.ts";

describe("parseCsvLine", () => {
  test.each([
    ["a", ["a"]],
    ["a,b", ["a", "b"]],
    [",", ["", ""]],
    ["a,", ["a", ""]],
    [",a", ["", "a"]],
    [" a , b ", [" a ", " b "]],
    ['"a"', ["a"]],
    ['""', [""]],
    ['"",""', ["", ""]],
    ['"a,b",c', ["a,b", "c"]],
    ['"a""b"', ['a"b']],
    ['""""', ['"']],
    ['"a"",""b"', ['a","b']],
    ["a\n", ["a"]],
    ["a\r\n", ["a"]],
    ["a\n\n", ["a\n"]],
    ['"a\nb",c', ["a\nb", "c"]],
    ["ä,日本", ["ä", "日本"]],
  ] as const)("%j", (line, fields) => {
    expect(parseCsvLine(line)).toEqual([...fields]);
  });

  test.each([
    ["", /it is empty/],
    ["\n", /it is empty/],
    ['a"b', /bare " in non-quoted field at column 2/],
    ['x,a"', /bare " in non-quoted field at column 4/],
    ['"a', /missing " after the field at column 1/],
    ['x,"a', /missing " after the field at column 3/],
    ['"a"b', /extraneous " in quoted field at column 3/],
    ['"a" ,b', /extraneous " in quoted field at column 3/],
    ['"', /missing "/],
    ['"""', /missing "/],
  ] as const)("refuses %j", async (line, reason) => {
    const error = await failure(() => parseCsvLine(line));
    expect(error.code).toBe("USAGE");
    expect(error.message).toMatch(reason);
  });

  test("gives back random fields that were written as CSV", () => {
    const { pick, many, below } = random(3);
    for (let round = 0; round < 3000; round++) {
      const fields = Array.from({ length: 1 + below(5) }, () =>
        many(0, 6, () => pick('ab=,"\n ä')),
      );
      const line = fields
        .map((field) =>
          /[",\n]/.test(field) || below(3) === 0 ? `"${field.replaceAll('"', '""')}"` : field,
        )
        .join(",");
      if (line !== "") expect(parseCsvLine(line)).toEqual(fields);
    }
  });

  test("parses random lines or refuses them with USAGE", () => {
    const { pick, many } = random(4);
    for (let round = 0; round < 3000; round++) {
      const line = many(0, 12, () => pick('a="",\r\n'));
      try {
        expect(parseCsvLine(line).length).toBeGreaterThan(0);
      } catch (error) {
        if (!(error instanceof CacheportError)) throw error;
        expect(error.code).toBe("USAGE");
      }
    }
  });
});

test.each([
  ["type=local", true],
  ["TYPE=local,src=x", true],
  ["src=x,type=local", true],
  ['"type=local",src=x', true],
  ['"src=a,b",type=local', true],
  ["type", false],
  ["./type=local", false],
  ["src=x", false],
  ["reg.example/type=x", false],
  ["./a,type=b", false],
  ["my,type=b", false],
] as const)("isOptionText(%j) is %p", (text, expected) => {
  expect(isOptionText(text)).toBe(expected);
});

describe("parseAttributes", () => {
  test("makes keys lower case, keeps values, and lets the last of two keys count", () => {
    expect([...parseAttributes("TYPE=Local,Src= A=B ,src=c,empty=")]).toEqual([
      ["type", "Local"],
      ["src", "c"],
      ["empty", ""],
    ]);
    expect(parseAttributes("src= A=B ").get("src")).toBe(" A=B ");
  });

  test("has BuildKit's words for a part without =", async () => {
    const error = await failure(() => parseAttributes("type=local,foo"));
    expect(error.code).toBe("USAGE");
    expect(error.message).toBe('Cannot read options "type=local,foo": invalid value foo');
  });

  test("is no way into an object's prototype", () => {
    expect(parseAttributes("__proto__=x,type=local").get("__proto__")).toBe("x");
    expect(parseAttributes("type=local").get("constructor")).toBeUndefined();
  });
});

test("parseGoBool takes Go's literals and no others", () => {
  for (const text of ["1", "t", "T", "TRUE", "true", "True"]) expect(parseGoBool(text)).toBe(true);
  for (const text of ["0", "f", "F", "FALSE", "false", "False"])
    expect(parseGoBool(text)).toBe(false);
  for (const text of ["", "yes", "no", "on", "off", "tRUE", "y", " true", "2"])
    expect(parseGoBool(text)).toBeUndefined();
});

describe("readAttributes", () => {
  const read = (text: string) => readAttributes(parseAttributes(text), text);

  test("gives nothing for what is not there", () => {
    const { notes, ...rest } = read("type=local,src=x,tag=y,digest=z");
    expect(notes).toEqual([]);
    expect(Object.values(rest).every((value) => value === undefined)).toBe(true);
  });

  test("reads every attribute", () => {
    expect(
      read(
        "type=registry,ref=x,image-manifest=t,oci-mediatypes=1,compression=zstd,compression-level=22,force-compression=True,registry.insecure=T",
      ),
    ).toEqual({
      imageManifest: true,
      ociMediaTypes: true,
      compression: "zstd",
      compressionLevel: 22,
      forceCompression: true,
      insecure: true,
      notes: [],
    });
  });

  test.each([
    ["oci-mediatypes=false", false, false],
    ["oci-mediatypes=false,image-manifest=false", false, false],
    ["oci-mediatypes=true", undefined, true],
    ["image-manifest=false", false, undefined],
    ["image-manifest=true", true, undefined],
  ] as const)("%p", (text, imageManifest, ociMediaTypes) => {
    expect(read(text)).toMatchObject({ imageManifest, ociMediaTypes });
  });

  test("an empty force-compression means true", () => {
    expect(read("force-compression=").forceCompression).toBe(true);
    expect(read("force-compression=0").forceCompression).toBe(false);
  });

  test.each([
    ["compression=gzip,compression-level=9", 9],
    ["compression=estargz,compression-level=0", 0],
    ["compression-level=+3", 3],
    ["compression-level=22", 22],
    ["compression=uncompressed,compression-level=99", 99],
  ] as const)("%p", (text, level) => {
    expect(read(text).compressionLevel).toBe(level);
  });

  test.each([
    ["image-manifest=yes", 'failed to parse image-manifest: "yes" is no boolean'],
    ["image-manifest=", 'failed to parse image-manifest: "" is no boolean'],
    ["oci-mediatypes=on", 'failed to parse oci-mediatypes: "on" is no boolean'],
    ["registry.insecure=no", 'failed to parse registry.insecure: "no" is no boolean'],
    [
      "image-manifest=true,oci-mediatypes=false",
      "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format",
    ],
    ["compression=lz4", "unsupported compression type lz4"],
    ["compression=", "unsupported compression type "],
    ["compression=GZIP", "unsupported compression type GZIP"],
    ["force-compression=yes", "non-bool value yes specified for force-compression"],
    ["compression-level=high", "non-integer value high specified for compression-level"],
    ["compression-level=1.5", "non-integer value 1.5 specified for compression-level"],
    ["compression-level=", "non-integer value  specified for compression-level"],
    ["compression=gzip,compression-level=10", "compression-level is from 0 to 9, and not 10"],
    ["compression=zstd,compression-level=23", "compression-level is from 0 to 22, and not 23"],
    ["compression-level=-1", "compression-level is from 0 to 22, and not -1"],
    ["compresion=zstd", 'there is no attribute "compresion"'],
    ["=x", 'there is no attribute ""'],
  ] as const)("refuses %p", async (text, reason) => {
    const error = await failure(() => read(text));
    expect(error.code).toBe("USAGE");
    expect(error.message).toBe(`Cannot read options ${JSON.stringify(text)}: ${reason}`);
  });

  test("notes the attributes that have no effect", () => {
    const { notes } = read(
      "type=local,mode=mxa,ignore-error=maybe,reset=true,annotation.a=b,annotation-index.c=d",
    );
    expect(notes).toHaveLength(5);
    expect(notes[0]).toStartWith("The attribute mode= has no effect: ");
  });
});
