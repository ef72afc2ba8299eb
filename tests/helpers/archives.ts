/** Moves whole stores in tests, and makes tars by hand. */
import type { ContentWriter, Store } from "../../src/content-store.ts";
import { DEFAULT_LIMITS } from "../../src/documents.ts";
import { walk } from "../../src/walk.ts";

/** Copies all that the entries of a store reach, with their names. */
export async function copyAll(source: Store, writer: ContentWriter): Promise<void> {
  const entries = await source.list();
  const roots = entries.map((entry) => entry.descriptor);
  const nodes = await walk(source, roots, { limits: DEFAULT_LIMITS });
  for (const { descriptor, bytes } of nodes)
    await writer.put(descriptor, bytes ? { bytes } : { store: source });
  await writer.publish(
    await Promise.all(
      entries.map(async ({ descriptor, refName, imageName }) => ({
        descriptor,
        bytes: await source.read(descriptor, DEFAULT_LIMITS.manifest),
        names:
          refName === undefined && imageName === undefined
            ? [{ kind: "list" as const }]
            : [{ kind: "set" as const, name: { refName, imageName } }],
      })),
    ),
  );
}

/** A member for {@link makeTar}. */
export interface TestMember {
  name: string;
  content?: Uint8Array | string;
  typeflag?: string;
  /** The size field, when it is not the content's. */
  size?: number;
  linkname?: string;
  /** `ustar` unless told otherwise. */
  magic?: string;
  /** Changes the header block before the checksum is made. */
  patch?: (block: Uint8Array) => void;
}

/** Makes a tar, with rules of its own that owe nothing to the code under test. */
export function makeTar(
  members: readonly TestMember[],
  { end = true }: { end?: boolean } = {},
): Uint8Array {
  const blocks = members.flatMap((member) => {
    const content = Buffer.from(member.content ?? "");
    const rest = Buffer.alloc((512 - (content.length % 512)) % 512);
    return [headerBlock(member, content.length), content, rest];
  });
  if (end) blocks.push(Buffer.alloc(1024));
  return Buffer.concat(blocks);
}

function headerBlock(member: TestMember, length: number): Buffer {
  const block = Buffer.alloc(512);
  block.write(member.name, 0, 100, "utf8");
  block.write("0000644\0", 100);
  block.write("0000000\0", 108);
  block.write("0000000\0", 116);
  const size = member.size ?? length;
  block.write(`${size.toString(8).padStart(11, "0")}\0`, 124);
  block.write("00000000000\0", 136);
  block.write(member.typeflag ?? "0", 156, "latin1");
  block.write(member.linkname ?? "", 157);
  block.write(member.magic ?? "ustar\u000000", 257, "latin1");
  member.patch?.(block);
  return sealHeader(block);
}

/** Writes the checksum of a header block. */
export function sealHeader(block: Buffer): Buffer {
  block.fill(" ", 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

/** The records of a PAX header. */
export function paxRecords(records: Record<string, string>): string {
  return Object.entries(records)
    .map(([key, value]) => {
      const rest = ` ${key}=${value}\n`;
      const bytes = Buffer.byteLength(rest);
      // The number of digits is part of what they count.
      const digits = [1, 2, 3, 4].find((count) => String(bytes + count).length === count);
      return `${bytes + (digits ?? 0)}${rest}`;
    })
    .join("");
}
