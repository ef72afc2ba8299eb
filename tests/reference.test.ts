import { describe, expect, test } from "bun:test";
import { CacheportError } from "../src/errors.ts";
import {
  canonicalName,
  familiarReference,
  formatReference,
  isDomain,
  isTag,
  normalizeReference,
  parseReference,
  resolveDomain,
} from "../src/reference.ts";
import { failure } from "./helpers/errors.ts";
import { random } from "./helpers/random.ts";
import type { Random } from "./helpers/random.ts";

const HEX = "86e0e091d0da6bde2456dbb48306f3956bbeb2eae1b5b9a43045843f69fe4aaa";
const SHA256 = `sha256:${HEX}`;
const SHA512 = `sha512:${HEX}${HEX}`;
const LONG_PATH = `${"a/".repeat(127)}a`;

/** Text, domain, path, tag, digest: as written, nothing added. */
const GOOD: [string, string | null, string, (string | undefined)?, string?][] = [
  ["app", null, "app"],
  ["a", null, "a"],
  ["my_app", null, "my_app"],
  ["my__app", null, "my__app"],
  ["my---app", null, "my---app"],
  ["app:1.0", null, "app", "1.0"],
  ["app:V1", null, "app", "V1"],
  ["app:_x", null, "app", "_x"],
  ["app:5000", null, "app", "5000"],
  [`app:${"t".repeat(128)}`, null, "app", "t".repeat(128)],
  // Without a slash there is no domain, whatever it looks like.
  ["reg.example", null, "reg.example"],
  ["reg.example:5000", null, "reg.example", "5000"],
  ["10.0.0.1:5000", null, "10.0.0.1", "5000"],
  ["localhost:8080", null, "localhost", "8080"],
  [`localhost@${SHA256}`, null, "localhost", undefined, SHA256],
  // With one, the first component is a domain whenever it can be.
  ["team/app", "team", "app"],
  ["team/sub/app:1", "team", "sub/app", "1"],
  ["team/my_app.io:8080", "team", "my_app.io", "8080"],
  ["my_team/app", null, "my_team/app"],
  ["my__team/app/x", null, "my__team/app/x"],
  ["localhost/app", "localhost", "app"],
  ["localhost:5000/app:1", "localhost:5000", "app", "1"],
  ["reg.example/app", "reg.example", "app"],
  ["reg:5000/app", "reg:5000", "app"],
  ["sub-1.reg.example/a/b/c:x-y", "sub-1.reg.example", "a/b/c", "x-y"],
  ["Reg.Example/app", "Reg.Example", "app"],
  ["TEAM/app", "TEAM", "app"],
  ["0101.example/app", "0101.example", "app"],
  ["xn--n3h.example/app:xn--n3h", "xn--n3h.example", "app", "xn--n3h"],
  ["reg.example/other.example/app", "reg.example", "other.example/app"],
  ["reg.example/a/p--q.r--s.t---u", "reg.example", "a/p--q.r--s.t---u"],
  ["10.0.0.1/app", "10.0.0.1", "app"],
  ["10.0.0.1:5000/app:5050", "10.0.0.1:5000", "app", "5050"],
  // A port of six digits is a matter of the one who connects.
  ["10.0.0.1:750050/app", "10.0.0.1:750050", "app"],
  ["[::1]/app", "[::1]", "app"],
  ["[::1]:5000/app", "[::1]:5000", "app"],
  ["[2001:db8::]:5000/app:1", "[2001:db8::]:5000", "app", "1"],
  ["[2001:DB8:1:2:3:4:5:6]/a/b", "[2001:DB8:1:2:3:4:5:6]", "a/b"],
  [`[fd00::1]:5000/app:1@${SHA256}`, "[fd00::1]:5000", "app", "1", SHA256],
  [`app@${SHA256}`, null, "app", undefined, SHA256],
  [`app:1@${SHA256}`, null, "app", "1", SHA256],
  [`reg.example:5000/app@${SHA512}`, "reg.example:5000", "app", undefined, SHA512],
  // 255 characters are the limit of the path; neither domain nor tag counts.
  [`reg.example/${LONG_PATH}:${"t".repeat(128)}`, "reg.example", LONG_PATH, "t".repeat(128)],
  [`${"d".repeat(300)}.example/app`, `${"d".repeat(300)}.example`, "app"],
  // 64 hex digits are a name once something stands beside them.
  [`docker.io/${HEX}`, "docker.io", HEX],
  [`${HEX}:latest`, null, HEX, "latest"],
  [HEX.slice(1), null, HEX.slice(1)],
  [`${HEX}0`, null, `${HEX}0`],
];

/** Text and the reason that the message gives. */
const BAD: [string, RegExp][] = [
  ["", /it is empty/],
  [" ", /white space/],
  ["app ", /white space/],
  ["app\n", /white space/],
  [":tag", /empty/],
  ["app:", /tag ""/],
  ["/app", /empty/],
  ["app/", /empty/],
  ["a//b", /empty/],
  ["reg.example/a//b", /empty/],
  ["reg.example/", /empty/],
  [`@${SHA256}`, /empty/],
  ["App", /must be lower case/],
  ["App:tag", /must be lower case/],
  ["team/App", /must be lower case/],
  ["reg.example:5000/App/x:1", /must be lower case/],
  ["reg.example/app/X", /must be lower case/],
  ["-app", /"-app" in the repository name/],
  ["app-", /"app-"/],
  ["_app", /"_app"/],
  ["app_", /"app_"/],
  [".app", /"\.app"/],
  ["a..b", /"a\.\.b"/],
  ["a___b", /"a___b"/],
  ["a_.b", /"a_\.b"/],
  ["a.-b", /"a\.-b"/],
  ["team/-app", /"-app"/],
  ["team/app-", /"app-"/],
  ["-team/app", /"-team"/],
  ["reg.example/__x/app", /"__x"/],
  ["reg.example/.x/app", /"\.x"/],
  ["reg.example/a..b/app", /"a\.\.b"/],
  ["a^b", /"a\^b"/],
  ["aa/b$$^/aa", /"b\$\$\^"/],
  ["äpp", /"äpp"/],
  ["app:-x", /tag "-x"/],
  ["app:.x", /tag "\.x"/],
  ["app:a~b", /tag "a~b"/],
  ["app:ä", /tag "ä"/],
  ["app:a:b", /in the repository name/],
  [`app:${"t".repeat(129)}`, /tag "t+\.\.\."/],
  ["reg.:5000/app", /"reg\.:5000" is no host name/],
  ["-reg.example/app", /"-reg\.example" is no host name/],
  ["reg-.example/app", /is no host name/],
  ["reg.-example/app", /is no host name/],
  ["my_reg.example:5000/app", /"my_reg\.example:5000" is no host name/],
  ["my__reg:5000/app", /is no host name/],
  ["reg.example:http/app", /is no host name/],
  ["localhost:http/app", /is no host name/],
  ["[::1]", /repository name/],
  ["[::1]:5000", /repository name/],
  ["[::1]:tag", /repository name/],
  ["[::1]5000/app", /is no host name/],
  ["[::1]::5000/app", /is no host name/],
  ["::1:5000/app", /is no host name/],
  ["[fe80::1%eth0]:5000/app", /is no host name/],
  ["[fe80::1%@zone]:5000/app", /./],
  ["[2001:db8::192.0.2.33]:5000/app", /is no host name/],
  ["https://reg.example/app", /has no scheme/],
  ["docker://alpine", /has no scheme/],
  ["app@", /digest after @/],
  ["app@bad", /digest after @/],
  ["app@sha256:bad", /digest after @/],
  [`app@sha256:${HEX.slice(1)}`, /digest after @/],
  [`app@sha256:${HEX}0`, /digest after @/],
  [`app@sha256:${HEX.toUpperCase()}`, /digest after @/],
  [`app@sha512:${HEX}`, /digest after @/],
  [`app@${SHA256}@${SHA256}`, /digest after @/],
  [`app@${SHA256}:tag`, /digest after @/],
  [`app@md5:${"0".repeat(32)}`, /algorithm "md5" is not supported/],
  [`app@sha384:${"0".repeat(96)}`, /algorithm "sha384" is not supported/],
  [`app@sha256+b64:${HEX}`, /algorithm "sha256\+b64" is not supported/],
  [HEX, /ID of an image/],
  [`reg.example/${LONG_PATH}a`, /256 characters and may have 255/],
  ["a".repeat(256), /256 characters and may have 255/],
  ["a".repeat(5000), /longer than 4096/],
  ["a\0b", /repository name/],
];

describe("parseReference", () => {
  test.each(GOOD)("reads %p", (...row) => {
    const [text, domain, path, tag, digest] = row;
    const reference = parseReference(text);
    expect(reference).toEqual({
      domain,
      path,
      tag: tag ?? null,
      digest: (digest ?? null) as never,
    });
    expect(formatReference(reference)).toBe(text);
  });

  test.each(BAD)("refuses %p and says why", async (text, reason) => {
    for (const parse of [parseReference, normalizeReference]) {
      const error = await failure(() => parse(text));
      expect(error.code).toBe("REFERENCE_INVALID");
      expect(error.exitCode).toBe(2);
      expect(error.message).toStartWith("Cannot parse reference ");
      expect(error.message.length).toBeLessThan(500);
    }
    expect((await failure(() => parseReference(text))).message).toMatch(reason);
    expect(canonicalName(text)).toBeUndefined();
  });

  test("hints at how to write an image ID as a digest", async () => {
    expect((await failure(() => parseReference(HEX))).hint).toContain(SHA256);
  });
});

/** Text, what it stands for, what Docker would show. */
const NORMAL: [string, string, string][] = [
  ["alpine", "docker.io/library/alpine:latest", "alpine:latest"],
  ["alpine:3", "docker.io/library/alpine:3", "alpine:3"],
  ["library/alpine", "docker.io/library/alpine:latest", "alpine:latest"],
  ["docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"],
  ["docker.io/library/alpine:3", "docker.io/library/alpine:3", "alpine:3"],
  ["index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"],
  ["index.docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"],
  ["index.docker.io/team/app", "docker.io/team/app:latest", "team/app:latest"],
  [
    "registry-1.docker.io/app",
    "registry-1.docker.io/app:latest",
    "registry-1.docker.io/app:latest",
  ],
  ["team/app", "docker.io/team/app:latest", "team/app:latest"],
  ["team/sub/app:1", "docker.io/team/sub/app:1", "team/sub/app:1"],
  ["team/library", "docker.io/team/library:latest", "team/library:latest"],
  ["library", "docker.io/library/library:latest", "library:latest"],
  ["library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"],
  ["docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"],
  ["my_team/app", "docker.io/my_team/app:latest", "my_team/app:latest"],
  ["docker/app", "docker.io/docker/app:latest", "docker/app:latest"],
  ["localhost", "docker.io/library/localhost:latest", "localhost:latest"],
  ["localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"],
  ["reg.example", "docker.io/library/reg.example:latest", "reg.example:latest"],
  ["localhost/app", "localhost/app:latest", "localhost/app:latest"],
  [
    "localhost:5000/library/app",
    "localhost:5000/library/app:latest",
    "localhost:5000/library/app:latest",
  ],
  ["reg.example/app", "reg.example/app:latest", "reg.example/app:latest"],
  ["reg:5000/app:1", "reg:5000/app:1", "reg:5000/app:1"],
  ["10.0.0.1:8/app", "10.0.0.1:8/app:latest", "10.0.0.1:8/app:latest"],
  ["[fc00::1]:5000/a/b", "[fc00::1]:5000/a/b:latest", "[fc00::1]:5000/a/b:latest"],
  // Paths have no upper case, so this can only be a host.
  ["Team/app", "Team/app:latest", "Team/app:latest"],
  [`docker.io/${HEX}`, `docker.io/library/${HEX}:latest`, `${HEX}:latest`],
  [HEX.slice(1), `docker.io/library/${HEX.slice(1)}:latest`, `${HEX.slice(1)}:latest`],
  [`alpine@${SHA256}`, `docker.io/library/alpine@${SHA256}`, `alpine@${SHA256}`],
  [`alpine:3@${SHA256}`, `docker.io/library/alpine:3@${SHA256}`, `alpine:3@${SHA256}`],
  [`docker.io/team/app@${SHA512}`, `docker.io/team/app@${SHA512}`, `team/app@${SHA512}`],
];

describe("normalizeReference", () => {
  test.each(NORMAL)("reads %p as %p", (text, canonical, familiar) => {
    const reference = normalizeReference(text);
    expect(formatReference(reference)).toBe(canonical);
    expect(familiarReference(reference)).toBe(familiar);
    expect(canonicalName(text)).toBe(canonical);
    expect(canonicalName(canonical)).toBe(canonical);
    expect(canonicalName(familiar)).toBe(canonical);
  });

  test("shows the text of the user in its errors, not the completed one", async () => {
    const error = await failure(() => normalizeReference("App"));
    expect(error.message).toBe(
      'Cannot parse reference "App": the repository name must be lower case',
    );
  });

  test("refuses a host that the grammar takes for a part of the path", async () => {
    expect(parseReference("my_reg.example/app").domain).toBeNull();
    const error = await failure(() => normalizeReference("my_reg.example/app"));
    expect(error.code).toBe("REFERENCE_INVALID");
    expect(error.message).toContain('"my_reg.example" is no host name');
  });

  test("refuses an upper-case path on docker.io that would be a host elsewhere", async () => {
    const error = await failure(() => normalizeReference("docker.io/Team/app"));
    expect(error.message).toContain("lower case");
  });
});

test("resolveDomain adds the registry and no tag", () => {
  expect(resolveDomain("alpine")).toEqual({
    domain: "docker.io",
    path: "library/alpine",
    tag: null,
    digest: null,
  });
  expect(resolveDomain("index.docker.io/a/b:1").domain).toBe("docker.io");
});

test("familiarReference leaves a reference without a domain as it is", () => {
  expect(familiarReference(parseReference("library"))).toBe("library");
});

test.each([
  ["v1", true],
  ["_", true],
  ["1.2-x_Y", true],
  ["t".repeat(128), true],
  ["t".repeat(129), false],
  ["", false],
  [".x", false],
  ["-x", false],
  ["a/b", false],
  ["a:b", false],
  ["a b", false],
  ["v1\n", false],
  ["é", false],
] as const)("isTag(%p) is %p", (text, expected) => {
  expect(isTag(text)).toBe(expected);
});

test.each([
  ["localhost", true],
  ["reg.example:443", true],
  ["Asdf.example", true],
  ["a-b.example", true],
  ["[fd00:1:2::3]:75050", true],
  ["ab.-example", false],
  ["ab.example-", false],
  ["a_b", false],
  ["", false],
  ["reg.example/", false],
  ["reg.example:http", false],
  ["fd00::3:75050", false],
] as const)("isDomain(%p) is %p", (text, expected) => {
  expect(isDomain(text)).toBe(expected);
});

// A grammar that backtracks would not come to an end on these.
test.each([
  "a-".repeat(2000),
  `${"a.".repeat(2000)}!`,
  `${"a".repeat(4000)}!`,
  `${"a/".repeat(2000)}!`,
  `${"a__".repeat(1300)}!`,
  `${"-".repeat(4000)}a`,
  `a:${"a".repeat(4000)}`,
  `${"a:".repeat(2000)}!`,
  `a@${"a+".repeat(2000)}`,
  `a@${"a".repeat(2000)}:${"f".repeat(2000)}g`,
  `[${":".repeat(4000)}`,
  "a".repeat(10_000_000),
  "a.".repeat(5_000_000),
])("a hostile text is refused (%#)", async (text) => {
  expect((await failure(() => parseReference(text))).code).toBe("REFERENCE_INVALID");
  expect(canonicalName(text)).toBeUndefined();
  expect(isTag(text)).toBe(false);
});

describe("random references", () => {
  const LOWER = "abcxyz0189";
  const ANY = `${LOWER}ABCXYZ`;

  function component({ pick, many }: Random): string {
    const word = () => many(1, 4, () => pick(LOWER));
    return word() + many(0, 2, () => pick([".", "_", "__", "-", "---"]) + word());
  }

  function domain({ pick, many, below }: Random): string {
    const label = () =>
      many(1, 3, () => pick(ANY)) + many(0, 1, () => pick(["-", "--"]) + pick(ANY));
    const host =
      below(5) === 0
        ? `[${many(1, 9, () => pick("0123456789abcdefABCDEF:"))}]`
        : label() + many(0, 2, () => `.${label()}`);
    return host + many(0, 1, () => `:${many(1, 5, () => pick("0123456789"))}`);
  }

  function reference(choices: Random): string {
    const { pick, many, below } = choices;
    const hex = (length: number) => many(length, length, () => pick("0123456789abcdef"));
    const tag = () => `:${pick(`${ANY}_`)}${many(0, 20, () => pick(`${ANY}_.-`))}`;
    const digest = () => `@${below(2) ? `sha256:${hex(64)}` : `sha512:${hex(128)}`}`;
    return [
      many(0, 1, () => `${domain(choices)}/`),
      component(choices) + many(0, 3, () => `/${component(choices)}`),
      many(0, 1, tag),
      many(0, 1, digest),
    ].join("");
  }

  test("are parsed, and written as the same text", () => {
    const choices = random(1);
    for (let round = 0; round < 5000; round++) {
      const text = reference(choices);
      expect(formatReference(parseReference(text))).toBe(text);
      const canonical = canonicalName(text);
      if (canonical !== undefined) expect(canonicalName(canonical)).toBe(canonical);
    }
  });

  test("that were damaged are parsed or refused with REFERENCE_INVALID", () => {
    const choices = random(2);
    let refused = 0;
    for (let round = 0; round < 5000; round++) {
      const text = reference(choices);
      const at = choices.below(text.length + 1);
      const damaged =
        text.slice(0, at) +
        choices.pick(["", "/", ":", "@", ".", "-", "_", "A", " ", "\0", "é", "[", "%"]) +
        text.slice(at + choices.below(2));
      try {
        expect(formatReference(parseReference(damaged))).toBe(damaged);
      } catch (error) {
        if (!(error instanceof CacheportError)) throw error;
        expect(error.code).toBe("REFERENCE_INVALID");
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(500);
  });
});
