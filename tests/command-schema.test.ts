/** The contract of --json, held against what commands really print. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { CONTRACTS } from "../src/cli-contracts.ts";
import { cacheport } from "./helpers/binary.ts";
import { vector } from "./helpers/explain-vectors.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const cache = fixture("app-oci-index");
const cwd = tempFolder();

/** Real command lines; those that write come before those that read it. */
const LINES: [command: string, ...rest: string[]][] = [
  ["convert", cache, "cache"],
  ["convert", cache, "cache:dry", "--dry-run"],
  ["copy", fixture("image.tar"), "img"],
  ["copy", "--all", fixture("multi-image"), "multi"],
  ["heal", "cache", "--dry-run"],
  ["merge", cache, fixture("app-image-manifest"), "merged"],
  ["prune", "cache", "--max-size", "100kB"],
  ["prune", fixture("grown"), "--all", "--max-size", "100kB", "--dry-run"],
  ["heal", fixture("leaves"), "--dry-run"],
  ["merge", fixture("donorA"), fixture("donorB"), "donors"],
  ["diff", fixture("donorA"), fixture("donorB")],
  ["ls", "img"],
  ["ls", "multi"],
  ["ls", "cache"],
  ["ls", "multi", "--tree"],
  ["inspect", "img"],
  ["inspect", "multi"],
  ["inspect", cache],
  ["inspect", fixture("image-inline")],
  ["inspect", fixture("multi-cache")],
  ["resolve", "img"],
  ["cat", "img"],
  ["verify", "img"],
  ["verify", cache, "--deep"],
  ["expire", "multi", "--keep", "1", "--dry-run"],
  ["diff", cache, fixture("grown:main")],
  ["explain", vector("ci-app", "A", "cache"), "--build", vector("ci-app", "A", "metadata.json")],
  [
    "explain",
    vector("ci-app", "A", "cache"),
    "--build",
    vector("ci-app", "B-app", "metadata.json"),
    "--was",
    vector("ci-app", "A", "metadata.json"),
  ],
  ["tag", "img", "more"],
  ["untag", "img:more"],
  ["gc", "img", "--grace", "0", "--dry-run"],
  ["du", "img"],
  ["ref", "alpine"],
  ["version"],
  ["self-check"],
  ["completion", "bash"],
];

/** Every field that JSON Schema requires is there and of its type: another reader than valibot. */
function faults(schema: any, value: any, place = "$"): string[] {
  if (schema.anyOf) {
    const tried = schema.anyOf.map((one: any) => faults(one, value, place));
    return tried.some((list: string[]) => list.length === 0) ? [] : tried[0];
  }
  if ("const" in schema) return schema.const === value ? [] : [`${place} is ${value}`];
  if (schema.enum) return schema.enum.includes(value) ? [] : [`${place} is ${value}`];
  const type = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  if (type !== schema.type) return [`${place} is ${type}, not ${schema.type}`];
  if (type === "array")
    return value.flatMap((item: any, index: number) =>
      faults(schema.items, item, `${place}[${index}]`),
    );
  if (type !== "object") return [];
  const missing = (schema.required ?? []).filter((key: string) => !(key in value));
  return [
    ...missing.map((key: string) => `${place}.${key} is missing`),
    ...Object.entries(schema.properties ?? {}).flatMap(([key, one]) =>
      key in value ? faults(one, value[key], `${place}.${key}`) : [],
    ),
  ];
}

test("every command's value is what its schema says", async () => {
  for (const [command, ...rest] of LINES) {
    const run = await cacheport([command, ...rest, "--json"], { cwd });
    const contract = rest.includes("--tree") ? `${command} --tree` : command;
    const schema = (await cacheport(["schema", "--", ...contract.split(" ")])).json();
    const value = run.json();
    expect({ command, rest, faults: faults(schema, value) }).toEqual({ command, rest, faults: [] });
    expect(v.is(CONTRACTS[contract] as v.GenericSchema, value)).toBe(true);
  }
}, 60_000);

test("every contract is held against something, and each command that is missing is known", async () => {
  // serve does not end by itself: its own test holds it.
  const own = ["ls --tree", "error", "serve"];
  const tried = new Set([...LINES.map(([command]) => command), ...own]);
  expect(Object.keys(CONTRACTS).filter((name) => !tried.has(name))).toEqual([]);
  const commands = (await cacheport(["help", "--json"])).json<{ name: string }[]>();
  // Those that print no value of a form of their own yet.
  expect(commands.map(({ name }) => name).filter((name) => !CONTRACTS[name])).toEqual(["schema"]);
});

describe("cacheport schema", () => {
  test("a failure of any command is the schema error", async () => {
    const schema = (await cacheport(["schema", "error"])).json();
    for (const line of [["ls", "/nope"], ["nope"], ["convert"]]) {
      const run = await cacheport([...line, "--json"]);
      expect(faults(schema, run.json())).toEqual([]);
    }
  });

  test("names are listed, and a wrong one is told", async () => {
    expect((await cacheport(["schema"])).stdout.split("\n")).toContain("verify");
    const wrong = await cacheport(["schema", "verfy"]);
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain("Did you mean verify?");
  });

  test("a field that is missing or of another type is found", () => {
    const schema = { type: "object", properties: { a: { type: "string" } }, required: ["a"] };
    expect(faults(schema, {})).toEqual(["$.a is missing"]);
    expect(faults(schema, { a: 1 })).toEqual(["$.a is number, not string"]);
    expect(faults(schema, { a: "x", b: 1 })).toEqual([]);
  });
});
