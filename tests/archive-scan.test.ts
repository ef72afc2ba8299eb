import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isCacheportError } from "../src/errors.ts";
import { checkMemberPath, MAX_TAR_EXTENSION } from "../src/archive-members.ts";
import { scanTar } from "../src/archive-scan.ts";
import type { TarScan } from "../src/archive-scan.ts";
import { makeTar, paxRecords, sealHeader } from "./helpers/archives.ts";
import type { TestMember } from "./helpers/archives.ts";
import { failure } from "./helpers/errors.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

const folder = tempFolder();

function scan(bytes: Uint8Array): TarScan {
  const path = join(folder, `${crypto.randomUUID()}.tar`);
  writeFileSync(path, bytes);
  const fd = openSync(path, "r");
  try {
    return scanTar(fd, "a.tar");
  } finally {
    closeSync(fd);
  }
}

/** The content of a member, by the place that the scan gives it. */
function contentOf(bytes: Uint8Array, path: string): string {
  const member = scan(bytes).members.get(path);
  if (!member) throw new Error(`There is no member ${path}`);
  return Buffer.from(bytes.subarray(member.offset, member.offset + member.size)).toString();
}

const LONG = `${"d".repeat(90)}/${"f".repeat(200)}`;

/** Ways to write one member, each with the path that it must have. */
const FORMS: [title: string, members: TestMember[], path: string][] = [
  ["ustar", [{ name: "a/b", content: "hello" }], "a/b"],
  [
    "the old form without a magic",
    [{ name: "a", content: "hello", magic: "", typeflag: "\0" }],
    "a",
  ],
  [
    "GNU's magic, where the prefix field is no prefix",
    [
      {
        name: "a",
        content: "hello",
        magic: "ustar  \0",
        patch: (block) => block.set(Buffer.from("00001234567"), 345),
      },
    ],
    "a",
  ],
  [
    "a ustar prefix",
    [
      {
        name: "name",
        content: "hello",
        patch: (block) => block.set(Buffer.from("pre/fix"), 345),
      },
    ],
    "pre/fix/name",
  ],
  ["a path with ./ before it", [{ name: "./a//b", content: "hello" }], "a/b"],
  [
    "a GNU long name",
    [
      { name: "././@LongLink", typeflag: "L", content: `${LONG}\0` },
      { name: LONG.slice(0, 100), content: "hello" },
    ],
    LONG,
  ],
  [
    "a GNU long link target, which means nothing here",
    [
      { name: "././@LongLink", typeflag: "K", content: "x".repeat(600) },
      { name: "a", content: "hello" },
    ],
    "a",
  ],
  [
    "a PAX path",
    [
      { name: "x", typeflag: "x", content: paxRecords({ path: LONG }) },
      { name: "short", content: "hello" },
    ],
    LONG,
  ],
  [
    "a PAX size, before which the header's own gives way",
    [
      { name: "x", typeflag: "x", content: paxRecords({ size: "5" }) },
      { name: "a", content: "hello", size: 0 },
    ],
    "a",
  ],
  [
    "a size in base-256",
    [
      {
        name: "a",
        content: "hello",
        patch: (block) => {
          block.fill(0, 124, 136);
          block[124] = 0x80;
          block[135] = 5;
        },
      },
    ],
    "a",
  ],
  [
    "a global PAX header with a comment",
    [
      { name: "g", typeflag: "g", content: paxRecords({ comment: "git" }) },
      { name: "a", content: "hello" },
    ],
    "a",
  ],
];

describe("scanTar", () => {
  test.each(FORMS)("finds a member in %s", (_title, members, path) => {
    const bytes = makeTar([...members, { name: "after", content: "end" }]);
    expect(contentOf(bytes, path)).toBe("hello");
    expect(contentOf(bytes, "after")).toBe("end");
  });

  test("takes the last of several members with one path", () => {
    const bytes = makeTar([
      { name: "index.json", content: "old" },
      { name: "./index.json", content: "newer" },
    ]);
    expect(contentOf(bytes, "index.json")).toBe("newer");
  });

  test("accepts a checksum that was made of signed bytes", () => {
    const bytes = Buffer.from(makeTar([{ name: "é", content: "hello" }]));
    const header = bytes.subarray(0, 512);
    const sum = Number.parseInt(header.toString("latin1", 148, 154), 8);
    const signed = (sum - 2 * 256).toString(8).padStart(6, "0");
    header.write(signed, 148);
    expect(contentOf(bytes, "é")).toBe("hello");
  });

  test("tells files from what has no content of its own", () => {
    const { members } = scan(
      makeTar([
        { name: "dir/", typeflag: "5", size: 4096 },
        { name: "old-dir/" },
        { name: "hard", typeflag: "1", linkname: "x", size: 99 },
        { name: "soft", typeflag: "2", linkname: "/etc/passwd" },
        { name: "pipe", typeflag: "6" },
        { name: "file", content: "x" },
        { name: "contiguous", typeflag: "7", content: "x" },
        { name: "volume", typeflag: "V" },
        {
          name: "x",
          typeflag: "x",
          content: paxRecords({ "GNU.sparse.major": "1" }),
        },
        { name: "sparse", content: "x" },
      ]),
    );
    expect(Object.fromEntries([...members].map(([path, { type }]) => [path, type]))).toEqual({
      dir: "directory",
      "old-dir": "directory",
      hard: "link",
      soft: "link",
      pipe: "other",
      file: "file",
      contiguous: "file",
      volume: "other",
      sparse: "sparse",
    });
  });

  test("goes over the map of an old GNU sparse member", () => {
    const sparse = (isLast: boolean): Buffer => {
      const block = Buffer.alloc(512);
      block[504] = isLast ? 0 : 1;
      return block;
    };
    const head = Buffer.from(
      makeTar(
        [
          {
            name: "holes",
            typeflag: "S",
            magic: "ustar  \0",
            size: 5,
            patch: (block) => void (block[482] = 1),
          },
        ],
        { end: false },
      ),
    );
    const data = Buffer.alloc(512, "data!");
    const bytes = Buffer.concat([
      head,
      sparse(false),
      sparse(true),
      data,
      makeTar([{ name: "after", content: "end" }]),
    ]);
    expect(contentOf(bytes, "after")).toBe("end");
    expect(scan(bytes).members.get("holes")?.type).toBe("sparse");
  });

  test("stops at two zero blocks, whatever follows", () => {
    const first = makeTar([{ name: "a", content: "1" }]);
    const bytes = Buffer.concat([first, makeTar([{ name: "b" }])]);
    const { members, end, isComplete } = scan(bytes);
    expect([...members.keys()]).toEqual(["a"]);
    expect({ end, isComplete }).toEqual({ end: 1024, isComplete: true });
  });

  test("reads an archive without an end mark and says so", () => {
    const bytes = makeTar([{ name: "a", content: "12345" }], { end: false });
    expect(scan(bytes)).toMatchObject({ end: 1024, isComplete: false });
    // Without the padding of the last member too.
    expect(scan(bytes.subarray(0, 517))).toMatchObject({
      end: 1024,
      isComplete: false,
    });
  });

  test("reads headers of more than one window", () => {
    const many = Array.from({ length: 500 }, (_, at) => ({
      name: `member-${at}`,
      content: "x".repeat(at),
    }));
    const { members } = scan(makeTar(many));
    expect(members.size).toBe(500);
    expect(members.get("member-499")?.size).toBe(499);
  });
});

const BAD: [title: string, members: TestMember[], words: RegExp][] = [
  ["a member above the root", [{ name: "../../etc/passwd" }], /outside/],
  ["a member above the root inside", [{ name: "a/../../b" }], /outside/],
  ["a way back that stays inside", [{ name: "a/../b" }], /outside/],
  ["an absolute member", [{ name: "/etc/passwd" }], /outside/],
  [
    "an absolute PAX path",
    [{ name: "x", typeflag: "x", content: paxRecords({ path: "/etc/x" }) }, { name: "a" }],
    /outside/,
  ],
  ["a size beyond the file", [{ name: "a", size: 5000 }], /truncated.*"a"/],
  [
    "a negative size",
    [
      {
        name: "a",
        patch: (block) => block.fill(0xff, 124, 136),
      },
    ],
    /size that is no number/,
  ],
  [
    "a size over 2^53",
    [
      {
        name: "a",
        patch: (block) => {
          block.fill(0xff, 124, 136);
          block[124] = 0x80;
        },
      },
    ],
    /size that is no number/,
  ],
  [
    "a size that is no number",
    [{ name: "a", patch: (block) => void block.set(Buffer.from("12x"), 124) }],
    /size that is no number/,
  ],
  [
    "PAX records without a length",
    [{ name: "x", typeflag: "x", content: "path=a\n" }, { name: "a" }],
    /malformed/,
  ],
  [
    "a PAX record that is longer than the header",
    [{ name: "x", typeflag: "x", content: "99 path=a\n" }, { name: "a" }],
    /malformed/,
  ],
  [
    "a PAX size that is no number",
    [{ name: "x", typeflag: "x", content: paxRecords({ size: "-5" }) }, { name: "a" }],
    /size that is no number/,
  ],
  [
    "a global PAX path",
    [{ name: "g", typeflag: "g", content: paxRecords({ path: "a" }) }, { name: "b" }],
    /global/,
  ],
  [
    "an extended header of more than the limit",
    [{ name: "x", typeflag: "x", size: MAX_TAR_EXTENSION + 1 }],
    /limit/,
  ],
  [
    "an extended header before nothing",
    [{ name: "x", typeflag: "x", content: paxRecords({ path: "a" }) }],
    /truncated/,
  ],
];

describe("scanTar refuses", () => {
  test.each(BAD)("%s", async (_title, members, words) => {
    const error = await failure(() => scan(makeTar(members)));
    expect(error.code).toBe("ARCHIVE_INVALID");
    expect(error.message).toMatch(words);
    expect(error.message).toStartWith('Cannot read archive "a.tar": ');
    expect(error.message.length).toBeLessThan(400);
  });

  test("a zero block in the middle", async () => {
    const bytes = Buffer.concat([
      makeTar([{ name: "a" }], { end: false }),
      Buffer.alloc(512),
      makeTar([{ name: "b" }]),
    ]);
    const error = await failure(() => scan(bytes));
    expect(error.message).toContain("zero block at byte 512");
  });

  test("a header with any one bit flipped, or reads it right", async () => {
    const bytes = Buffer.from(makeTar([{ name: "a", content: "hello" }, { name: "b" }]));
    const right = [...scan(bytes).members.values()];
    for (let bit = 0; bit < 512 * 8; bit++) {
      const broken = Buffer.from(bytes);
      broken[bit >> 3] = (broken[bit >> 3] as number) ^ (1 << (bit & 7));
      try {
        expect([...scan(broken).members.values()]).toEqual(right);
      } catch (error) {
        if (!isCacheportError(error, "ARCHIVE_INVALID")) throw error;
      }
    }
  });
});

test("no bytes make the scan fail without a code, hang or leave the file", () => {
  const seed = Buffer.from(
    makeTar([
      {
        name: "x",
        typeflag: "x",
        content: paxRecords({ path: "long", size: "5" }),
      },
      { name: "a", content: "hello" },
      { name: "././@LongLink", typeflag: "L", content: "name\0" },
      { name: "b", content: "world" },
    ]),
  );
  let state = 42;
  const random = (limit: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % limit;
  };
  for (let run = 0; run < 2000; run++) {
    const bytes = Buffer.from(seed.subarray(0, 512 + random(seed.length)));
    for (let change = 0; change < 4; change++) {
      bytes[random(bytes.length)] = random(256);
    }
    // With right checksums, so that more than the first check is met.
    for (let at = 0; at + 512 <= bytes.length; at += 512)
      if (random(2) === 0) sealHeader(bytes.subarray(at, at + 512));
    try {
      for (const { path, offset, size } of scan(bytes).members.values()) {
        expect(offset + size).toBeLessThanOrEqual(bytes.length);
        expect(path).not.toMatch(/^\/|(^|\/)\.\.(\/|$)/);
      }
    } catch (error) {
      if (!isCacheportError(error, "ARCHIVE_INVALID")) throw error;
    }
  }
});

test("BuildKit's own archives are read", () => {
  const bytes = readFileSync(fixture("image.tar"));
  const { members, end, isComplete } = scan(bytes);
  expect([...members.keys()].filter((path) => !path.startsWith("blobs"))).toEqual([
    "index.json",
    "oci-layout",
  ]);
  expect({ end, isComplete }).toEqual({
    end: bytes.length - 1024,
    isComplete: true,
  });
});

test.each([
  ["a/b", "a/b"],
  ["./a/./b/", "a/b"],
  ["./", ""],
  ["a//b", "a/b"],
  ["..a/b..", "..a/b.."],
])("checkMemberPath cleans %p to %p", (name, path) => {
  expect(checkMemberPath(name, "a.tar")).toBe(path);
});
