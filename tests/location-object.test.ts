import { describe, expect, test } from "bun:test";
import { failure } from "./helpers/errors.ts";
import { isSameStore } from "../src/location-open.ts";
import { parseLocation } from "../src/location.ts";
import type { Location } from "../src/location.ts";

const parse = (text: string, role: "source" | "target" = "source"): Location =>
  parseLocation(text, { role, probe: () => undefined });

const DIGEST = `sha256:${"a".repeat(64)}`;

/** The place, the name and the digest of a location in short. */
function short(location: Location): unknown {
  if (location.kind !== "object") return location.kind;
  const { type: _, ...attributes } = Object.fromEntries(location.place.attributes);
  return [location.place.kind, location.name, location.digest, attributes];
}

describe("object stores in BuildKit's words", () => {
  test.each([
    ["type=s3,bucket=b,region=r", ["s3", undefined, undefined, { bucket: "b", region: "r" }]],
    ["type=s3,name=a;b", ["s3", "a;b", undefined, { name: "a;b" }]],
    ["name=x,type=azblob", ["azblob", "x", undefined, { name: "x" }]],
    ["type=gha", ["gha", undefined, undefined, {}]],
    ["type=gha,scope=main,SCOPE=other", ["gha", "other", undefined, { scope: "other" }]],
    [`type=s3,digest=${DIGEST}`, ["s3", undefined, DIGEST, { digest: DIGEST }]],
    ['type=s3,"prefix=a,b/"', ["s3", undefined, undefined, { prefix: "a,b/" }]],
  ])("%p", (text, expected) => {
    for (const role of ["source", "target"] as const)
      expect(short(parse(text, role))).toEqual(expected as never);
  });

  test("the address of a bucket means the same as the attributes: nothing is added to the prefix", () => {
    for (const [address, text] of [
      ["s3://b", "type=s3,bucket=b"],
      ["s3://b/", "type=s3,bucket=b"],
      ["s3://b/app", "type=s3,bucket=b,prefix=app"],
      [
        "s3://b/app/?name=main&region=eu-west-1",
        "type=s3,bucket=b,prefix=app/,name=main,region=eu-west-1",
      ],
      [
        "s3://b/a/b%20c/?endpoint_url=http%3A%2F%2Fh%3A1",
        "type=s3,bucket=b,prefix=a/b%20c/,endpoint_url=http://h:1",
      ],
    ] as const)
      expect([address, short(parse(address))]).toEqual([address, short(parse(text))]);
  });

  test("what stands before the question mark is not given a second time", async () => {
    const error = await failure(() => parse("s3://b/p?bucket=c"));
    expect(error.code).toBe("USAGE");
    expect(error.message).toContain("bucket stands before the question mark");
  });

  test("unknown attributes are accepted and noted, known ones are not noted", () => {
    const notes = (text: string): string[] => parse(text).attributes?.notes ?? [];
    expect(
      notes("type=s3,bucket=b,region=r,touch_refresh=1h,use_path_style=true,mode=max"),
    ).toEqual(["The attribute mode= has no effect: a cache is taken with all that it holds"]);
    expect(notes("type=gha,buket=b")).toEqual([
      "The attribute buket= has no effect: type=gha has no such attribute",
    ]);
    expect(notes("type=azblob,account_url=x,container=c,secret_access_key=k,name=a;b")).toEqual([]);
    expect(notes("type=s3,name=a;b")).toEqual([
      "Of several names in type=s3 the first is read, as BuildKit does",
    ]);
  });

  test("the text that messages repeat has no secret", () => {
    const { text } = parse(
      "type=s3,bucket=b,access_key_id=AKID,secret_access_key=hush,session_token=hush",
    );
    expect(text).toBe("type=s3,bucket=b,access_key_id=***,secret_access_key=***,session_token=***");
    expect(parse("type=gha,token=hush,ghtoken=hush").text).not.toContain("hush");
    expect(parse("type=azblob,account_url=https://a/?sv=1&sig=hush&x=1").text).toBe(
      "type=azblob,account_url=https://a/?sv=1&sig=***&x=1",
    );
  });

  test("two names in one place are one store, two prefixes are two", () => {
    const same = (a: string, b: string): boolean => isSameStore(parse(a), parse(b));
    expect(same("type=s3,bucket=b,name=x", "type=s3,bucket=b,name=y,touch_refresh=1h")).toBe(true);
    expect(same("type=s3,bucket=b", "s3://b/?name=y")).toBe(true);
    expect(same("type=s3,bucket=b", "type=s3,bucket=b,prefix=p/")).toBe(false);
    expect(same("type=gha,scope=a", "type=gha,scope=b")).toBe(true);
    expect(same("type=gha,url=http://a", "type=gha,url=http://b")).toBe(false);
    expect(same("type=gha", "type=s3")).toBe(false);
  });
});
