/**
 * A second pair of eyes on layouts: plain Node reading files, sharing no code with
 * what is tested.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** An index.json as it is on disk. */
export function readIndex(layout: string): any {
  return JSON.parse(readFileSync(join(layout, "index.json"), "utf8"));
}

/** The path of a blob. */
export function blobFile(layout: string, digest: string): string {
  return join(layout, "blobs", ...digest.split(":"));
}

/** A document of a layout. */
export function readDocument(layout: string, digest: string): any {
  return JSON.parse(readFileSync(blobFile(layout, digest), "utf8"));
}

/** The digest that a name has in index.json, told by ref.name alone. */
export function digestOfName(layout: string, name: string): string | undefined {
  return readIndex(layout).manifests.find(
    (entry: any) => entry.annotations?.["org.opencontainers.image.ref.name"] === name,
  )?.digest;
}

const sha256 = (bytes: Uint8Array | string): string =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/**
 * Checks a layout whole: the mark, every blob's name against its bytes and mode, and
 * that whatever index.json reaches is there in the right size.
 *
 * @returns What is wrong, one line each.
 */
export function layoutFaults(layout: string): string[] {
  const faults: string[] = [];
  const mark = readFileSync(join(layout, "oci-layout"), "utf8");
  if (mark !== '{"imageLayoutVersion":"1.0.0"}') faults.push(`oci-layout: ${mark}`);
  for (const name of readdirSync(join(layout, "blobs", "sha256"))) {
    const actual = sha256(readFileSync(blobFile(layout, `sha256:${name}`)));
    if (actual !== `sha256:${name}`) faults.push(`${name}: the bytes have ${actual}`);
  }
  const visit = (descriptor: any): void => {
    const path = blobFile(layout, descriptor.digest);
    if (!existsSync(path)) {
      faults.push(`${descriptor.digest}: missing`);
      return;
    }
    const { size } = statSync(path);
    if (size !== descriptor.size) faults.push(`${descriptor.digest}: ${size} bytes`);
    if (!/manifest\.(list\.)?v[12]\+json|image\.index\.v1\+json/.test(descriptor.mediaType)) return;
    const document = JSON.parse(readFileSync(path, "utf8"));
    for (const child of document.manifests ?? [document.config, ...document.layers]) visit(child);
  };
  for (const entry of readIndex(layout).manifests) visit(entry);
  return faults;
}

/** Adds a document or blob to a layout by hand. @returns Its descriptor */
export function addBlob(layout: string, content: object | string | Uint8Array, mediaType = "") {
  const bytes =
    typeof content === "string" || content instanceof Uint8Array
      ? Buffer.from(content as string)
      : Buffer.from(JSON.stringify(content));
  const digest = sha256(bytes);
  mkdirSync(join(layout, "blobs", "sha256"), { recursive: true });
  writeFileSync(blobFile(layout, digest), bytes);
  return { mediaType, digest, size: bytes.length };
}

/** Makes a layout by hand, with entries for index.json. */
export function writeLayout(layout: string, entries: readonly object[]): void {
  mkdirSync(join(layout, "blobs", "sha256"), { recursive: true });
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(
    join(layout, "index.json"),
    JSON.stringify({ schemaVersion: 2, manifests: entries }),
  );
}

/** Everything in a folder with its bytes, for telling whether anything changed. */
export function snapshot(folder: string): Record<string, string> {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true });
  return Object.fromEntries(
    files
      .filter((file) => file.isFile())
      .map((file) => join(file.parentPath, file.name))
      .toSorted()
      .map((path) => [path.slice(folder.length + 1), sha256(readFileSync(path))]),
  );
}
