/** Descriptors that are read without the schema are those that the schema takes, as it takes them. */
import { expect, test } from "bun:test";
import { DescriptorSchema, isPlainDescriptor } from "../src/descriptor.ts";
import { digestOf } from "../src/digest.ts";
import { checkSchema } from "../src/documents.ts";
import { random } from "./helpers/random.ts";

/** What the schema says of a value: with a field that is null, no value is plain. */
function bySchema(value: object): unknown {
  return told({ ...value, urls: null });
}

function told(value: object): unknown {
  try {
    const { urls: _, ...rest } = checkSchema(DescriptorSchema, value, "it");
    return rest;
  } catch (error) {
    return String(error);
  }
}

test("whatever its fields hold, a descriptor is the same with the schema and without", () => {
  const { pick } = random(3);
  const fields: [string, unknown[]][] = [
    ["mediaType", ["a/b", "", null, 1, []]],
    ["MediaType", ["c/d"]],
    ["digest", [digestOf("x"), digestOf("x", "sha512"), "sha256:../../x", "", null, 7]],
    ["size", [0, 1, -1, 1.5, 2 ** 53, Number.NaN, "1", null, -0]],
    [
      "annotations",
      [{}, { a: "b" }, { a: 1 }, { a: null }, [], null, "x", JSON.parse('{"__proto__":"x"}')],
    ],
    ["platform", [{ os: "linux", architecture: "arm64" }, 1]],
    ["unknown", [1]],
  ];
  let plain = 0;
  for (let round = 0; round < 5000; round++) {
    const value = Object.fromEntries(
      fields.flatMap(([key, values]) => {
        const isUsual = ["mediaType", "digest", "size"].includes(key);
        if (pick([true, isUsual, isUsual])) return [[key, pick([values[0], pick(values)])]];
        return [];
      }),
    );
    if (isPlainDescriptor(value)) plain++;
    expect(told(value)).toEqual(bySchema(value));
  }
  expect(plain).toBeGreaterThan(100);
});
