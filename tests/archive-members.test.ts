/** A tar means the same whether it is read as a file or as a stream. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TarMember } from "../src/archive-members.ts";
import { scanTar } from "../src/archive-scan.ts";
import { unpackTar } from "../src/archive-unpack.ts";
import { isCacheportError } from "../src/errors.ts";
import { RunFolder } from "../src/layout-work.ts";
import { makeTar, paxRecords, sealHeader } from "./helpers/archives.ts";
import type { TestMember } from "./helpers/archives.ts";
import { tempFolder } from "./helpers/temp.ts";

const folder = tempFolder();

/** Members with their contents, or the words of the refusal. */
interface Outcome {
  members?: [string, string, string][];
  refusal?: string;
}

const describeMember = ({ path, type, size, link }: TarMember, content: string) =>
  [path, `${type} ${size} ${link?.target ?? ""}`, content] as [string, string, string];

async function outcomeOf(read: () => Promise<[string, string, string][]>): Promise<Outcome> {
  try {
    return { members: await read() };
  } catch (error) {
    if (!isCacheportError(error, "ARCHIVE_INVALID")) throw error;
    return { refusal: error.message };
  }
}

function readFile(bytes: Uint8Array): Promise<Outcome> {
  return outcomeOf(async () => {
    const path = join(folder, "a.tar");
    writeFileSync(path, bytes);
    const fd = openSync(path, "r");
    try {
      return [...scanTar(fd, "a.tar").members.values()].map((member) => {
        const { type, offset, size } = member;
        const content = Buffer.from(bytes.subarray(offset, offset + size)).toString("latin1");
        return describeMember(member, type === "file" ? content : "");
      });
    } finally {
      closeSync(fd);
    }
  });
}

function readStream(bytes: Uint8Array, piece: number): Promise<Outcome> {
  async function* pieces(): AsyncGenerator<Uint8Array, void> {
    for (let at = 0; at < bytes.length; at += piece) yield bytes.subarray(at, at + piece);
  }
  return outcomeOf(async () => {
    const run = await RunFolder.within(folder);
    try {
      const { members, files } = await unpackTar(pieces(), run, () => true, "a.tar");
      return [...members.values()].map((member) => {
        const path = files.get(member.offset);
        const isFile = member.type === "file";
        return describeMember(member, isFile && path ? readFileSync(path, "latin1") : "");
      });
    } finally {
      await run.close();
    }
  });
}

async function expectSame(bytes: Uint8Array, pieces = [1, 511, 4096]): Promise<Outcome> {
  const file = await readFile(bytes);
  for (const piece of pieces) expect(await readStream(bytes, piece)).toEqual(file);
  return file;
}

const number = (block: Uint8Array, field: number[]): void => block.set(field, 124);

const REFUSED: [string, TestMember[]][] = [
  [
    "a GNU long name above the root",
    [{ name: "././@LongLink", typeflag: "L", content: "../../../etc/passwd\0" }, { name: "a" }],
  ],
  [
    "a PAX path above the root",
    [
      { name: "x", typeflag: "x", content: paxRecords({ path: "a/../../b" }) },
      { name: "index.json" },
    ],
  ],
  [
    "a negative size in base-256",
    [{ name: "a", patch: (block) => number(block, Array(12).fill(255)) }],
  ],
  [
    "a negative size in octal",
    [{ name: "a", patch: (block) => block.set(Buffer.from("-0000000005"), 124) }],
  ],
  [
    "a negative PAX size",
    [{ name: "x", typeflag: "x", content: paxRecords({ size: "-5" }) }, { name: "a" }],
  ],
  [
    "a global PAX path",
    [{ name: "g", typeflag: "g", content: paxRecords({ path: "index.json" }) }, { name: "b" }],
  ],
  [
    "a global PAX size",
    [
      { name: "g", typeflag: "g", content: paxRecords({ size: "3" }) },
      { name: "b", content: "abc" },
    ],
  ],
  [
    "a PAX header that nothing follows",
    [{ name: "x", typeflag: "x", content: paxRecords({ path: "a" }) }],
  ],
  ["a PAX header over the limit", [{ name: "x", typeflag: "x", size: 2 ** 21 }]],
  ["a member that is cut short", [{ name: "a", size: 90_000, content: "abc" }]],
];

describe("refused with the same words as a file and as a stream", () => {
  test.each(REFUSED)("%s", async (_title, members) => {
    const { refusal } = await expectSame(makeTar([{ name: "first", content: "1" }, ...members]));
    expect(refusal).toStartWith('Cannot read archive "a.tar": ');
  });

  test("a zero block between two members", async () => {
    const first = makeTar([{ name: "a" }], { end: false });
    const bytes = Buffer.concat([first, Buffer.alloc(512), makeTar([{ name: "b" }])]);
    expect((await expectSame(bytes)).refusal).toContain("zero block at byte 512");
  });
});

describe("read alike as a file and as a stream", () => {
  test("a GNU long name goes before a PAX path, as Go has it", async () => {
    const long: TestMember = { name: "././@LongLink", typeflag: "L", content: "gnu\0" };
    const pax: TestMember = { name: "x", typeflag: "x", content: paxRecords({ path: "pax" }) };
    for (const extensions of [
      [long, pax],
      [pax, long],
    ]) {
      const { members } = await expectSame(makeTar([...extensions, { name: "a", content: "1" }]));
      expect(members?.map(([path]) => path)).toEqual(["gnu"]);
    }
  });

  test("a hard link is the file that went before it; other links stay what they are", async () => {
    const { members } = await expectSame(
      makeTar([
        { name: "./a", content: "one" },
        { name: "b", typeflag: "1", linkname: "./a" },
        { name: "a", content: "two" },
        { name: "c", typeflag: "1", linkname: "later" },
        { name: "d", typeflag: "2", linkname: "a" },
        { name: "K", typeflag: "K", content: `${"t".repeat(120)}\0` },
        { name: "e", typeflag: "2", linkname: "short" },
      ]),
    );
    expect(members).toEqual([
      ["a", "file 3 ", "two"],
      ["b", "file 3 ", "one"],
      ["c", "link 0 later", ""],
      ["d", "link 0 a", ""],
      ["e", `link 0 ${"t".repeat(120)}`, ""],
    ]);
  });

  test("three hundred tars with changed bytes and right checksums", async () => {
    const seed = makeTar([
      { name: "x", typeflag: "x", content: paxRecords({ path: "long", size: "5" }) },
      { name: "a", content: "hello" },
      { name: "././@LongLink", typeflag: "L", content: "name\0" },
      { name: "b", content: "world" },
      { name: "c", typeflag: "1", linkname: "long" },
      { name: "g", typeflag: "g", content: paxRecords({ comment: "git" }) },
      { name: "d", typeflag: "S", magic: "ustar  \0", content: "holes" },
      { name: "e/", typeflag: "5", size: 9 },
    ]);
    let state = 7;
    const random = (limit: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % limit;
    };
    let refused = 0;
    for (let run = 0; run < 300; run++) {
      const bytes = Buffer.from(seed.subarray(0, 512 + random(seed.length)));
      for (let change = 0; change < 3; change++) bytes[random(bytes.length)] = random(256);
      for (let at = 0; at + 512 <= bytes.length; at += 512)
        if (random(2) === 0) sealHeader(bytes.subarray(at, at + 512));
      if ((await expectSame(bytes, [1 + random(1000)])).refusal) refused++;
    }
    // Both kinds are met, or this shows nothing.
    expect(refused).toBeGreaterThan(30);
    expect(refused).toBeLessThan(270);
  });
});
