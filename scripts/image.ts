/**
 * Writes an image of cacheport for two architectures, as a layout in dist/image and
 * as an archive in dist/image.tar: the program, the C library that it needs, and
 * nothing else.
 *
 *   image.ts [--only amd64] [--libc arm64=FILE.deb|FOLDER ...] [--outdir DIR]
 *
 * The same commit and the same version of libc6 always give the same bytes.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { ContentWriter, Root } from "../src/content-store.ts";
import type { Descriptor } from "../src/descriptor.ts";
import { digestOf } from "../src/digest.ts";
import { encodeImageIndex } from "../src/image-index.ts";
import { encodeImageManifest } from "../src/image-manifest.ts";
import { LayoutArchiveWriter } from "../src/archive-writer.ts";
import { LayoutDirectoryWriter } from "../src/layout-directory.ts";
import { OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST } from "../src/media-types.ts";
import { file, folder, gzip, tar } from "./archive.ts";
import { commit, commitTime, compile, ROOT } from "./compile.ts";
import type { Target } from "./compile.ts";
import { cLibrary } from "./debian-libc.ts";
import type { Architecture, CLibrary } from "./debian-libc.ts";
import { components, project, spdxDocument } from "./sbom.ts";
import type { Component } from "./sbom.ts";

/** Whoever runs an image cannot choose by processor, so the build for all x64 is in it. */
const TARGETS: Readonly<Record<Architecture, Target>> = {
  amd64: "linux-x64-baseline",
  arm64: "linux-arm64",
};

/** Nobody's number on any machine; distroless images use it too. */
const USER = 65532;

const { values } = parseArgs({
  options: {
    only: { type: "string", multiple: true },
    libc: { type: "string", multiple: true, default: [] },
    outdir: { type: "string", default: join(ROOT, "dist") },
  },
});
const architectures = (values.only ?? Object.keys(TARGETS)).map(parseArchitecture);
const libraries = new Map(
  values.libc.map((text) => {
    const [name = "", path = ""] = text.split(/=(.*)/s);
    return [parseArchitecture(name), resolve(path)] as const;
  }),
);
const outdir = resolve(values.outdir);
const { name, version, description, license } = project();
const created = new Date(commitTime() * 1000).toISOString().replace(/\.\d+Z$/, "Z");

/** A blob with its descriptor. */
interface Blob {
  descriptor: Descriptor;
  bytes: Uint8Array;
}

const layout = join(outdir, "image");
const archive = join(outdir, "image.tar");
if (existsSync(layout) && !existsSync(join(layout, "oci-layout")))
  throw new Error(`Cannot replace "${layout}": it is no layout`);

const blobs: Blob[] = [];
const manifests: Descriptor[] = [];
const parts = new Map<string, Component>();
for (const architecture of architectures) manifests.push(await addImage(architecture));
await writeLayouts();
writeFileSync(join(outdir, "image.spdx.json"), spdxDocument([...parts.values()]));

function parseArchitecture(text: string): Architecture {
  if (text in TARGETS) return text as Architecture;
  throw new Error(
    `Cannot build an image for "${text}": the architectures are ${Object.keys(TARGETS).join(", ")}`,
  );
}

/** Makes the image for an architecture. @returns The descriptor of its manifest */
async function addImage(architecture: Architecture): Promise<Descriptor> {
  const library = cLibrary(architecture, libraries.get(architecture));
  const binary = await build(architecture);
  const packed = await tar(layerFiles(binary, library));
  const layer = addBlob(OCI_LAYER_GZIP, gzip(packed));
  const config = addJson(OCI_CONFIG, {
    created,
    architecture,
    os: "linux",
    config: {
      User: `${USER}:${USER}`,
      Env: ["PATH=/usr/bin"],
      Entrypoint: ["/usr/bin/cacheport"],
      WorkingDir: "/work",
      Labels: {
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.description": description,
        "org.opencontainers.image.licenses": license,
        "org.opencontainers.image.revision": commit(),
        "org.opencontainers.image.title": name,
        "org.opencontainers.image.version": version,
      },
    },
    rootfs: { type: "layers", diff_ids: [digestOf(packed)] },
    history: [
      {
        created,
        created_by: "npm run image",
        comment: `${name} ${version} and libc6 ${library.version ?? ""}`.trim(),
      },
    ],
  });
  const manifest = encodeImageManifest({
    mediaType: OCI_MANIFEST,
    config,
    layers: [layer],
  });
  const libc = library.version ?? "of a local folder";
  console.log(`Built linux/${architecture}, with libc6 ${libc}`);
  return {
    ...addBlob(OCI_MANIFEST, manifest),
    platform: { architecture, os: "linux" },
  };
}

/** Compiles the program and notes down what is in it. */
async function build(architecture: Architecture): Promise<Uint8Array> {
  const scratch = mkdtempSync(join(tmpdir(), "cacheport-image-"));
  try {
    const binary = join(scratch, "cacheport");
    const packages = await compile(binary, TARGETS[architecture]);
    for (const part of components(packages)) parts.set(part.name, part);
    return readFileSync(binary);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function layerFiles(binary: Uint8Array, { version, files }: CLibrary) {
  parts.set("libc6", {
    name: "libc6",
    version: version ?? "NOASSERTION",
    license: "LGPL-2.1-or-later",
    purl: `pkg:deb/debian/libc6${version ? `@${encodeURIComponent(version)}` : ""}`,
  });
  const parents = ["usr/bin/", ...files.map(({ path }) => path)].flatMap((path) => {
    const names = path.split("/").slice(0, -1);
    return names.map((_, index) => names.slice(0, index + 1).join("/"));
  });
  return [
    ...[...new Set(parents)].map((path) => folder(path)),
    file("usr/bin/cacheport", binary, 0o755),
    ...files.map(({ path, content }) => file(path, content, 0o755)),
    folder("tmp", 0o1777),
    // A place to mount what is worked on, and to work in where nothing is mounted.
    folder("work", 0o755, USER),
  ];
}

function addJson(mediaType: string, value: object): Descriptor {
  return addBlob(mediaType, new TextEncoder().encode(JSON.stringify(value)));
}

function addBlob(mediaType: string, bytes: Uint8Array): Descriptor {
  const descriptor = {
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
  };
  blobs.push({ descriptor, bytes });
  return descriptor;
}

async function writeLayouts(): Promise<void> {
  rmSync(layout, { recursive: true, force: true });
  mkdirSync(outdir, { recursive: true });
  const bytes = encodeImageIndex({ mediaType: OCI_INDEX, manifests });
  const descriptor = {
    mediaType: OCI_INDEX,
    digest: digestOf(bytes),
    size: bytes.length,
  };
  const imageName = `docker.io/library/${name}:${version}`;
  const root: Root = {
    descriptor,
    bytes,
    names: [{ kind: "set", name: { refName: version, imageName } }],
  };
  await fill(await LayoutDirectoryWriter.open(layout, { create: true }), root);
  await fill(await LayoutArchiveWriter.open({ path: archive }, { mode: "create" }), root);
  console.log(`Wrote ${layout} and ${archive}, ${descriptor.digest}`);
}

async function fill(writer: ContentWriter, root: Root): Promise<void> {
  try {
    for (const { descriptor, bytes } of blobs) await writer.put(descriptor, { bytes });
    await writer.publish([root]);
  } finally {
    await writer.close();
  }
}
