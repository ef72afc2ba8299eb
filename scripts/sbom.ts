/**
 * What is inside a binary: the packages with their versions and licences, as an
 * SPDX document and as the texts of the licences.
 *
 * Source: SPDX 2.3, clauses 6, 7 and 11 (spdx.github.io/spdx-spec/v2.3).
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { commit, commitTime, ROOT } from "./compile.ts";

/** A piece of software that is inside. */
export interface Component {
  name: string;
  version: string;
  /** SPDX licence expression as its author declares it. */
  license: string;
  /** Where it is from: a package URL. */
  purl: string;
  /** Hex of the sha512 that the lock file holds for it. */
  sha512?: string | undefined;
  comment?: string | undefined;
}

/** The name of the single file for people who have Bun. */
export const SCRIPT = "cacheport.js";

/** The single file for people who have Bun. */
export interface ScriptFile {
  /** Hex of its digest. */
  sha256: string;
  /** What is in it beside cacheport's own code. */
  parts: readonly Component[];
}

interface Manifest {
  name: string;
  version: string;
  license: string;
  description: string;
}

function readManifest(...path: string[]): Manifest {
  const text = readFileSync(join(ROOT, ...path, "package.json"), "utf8");
  return JSON.parse(text) as Manifest;
}

/** cacheport itself, from its package.json. */
export function project(): Manifest {
  return readManifest();
}

/** The runtime, which is in every binary whole. */
function runtime(): Component {
  const { version, license } = readManifest("node_modules", "bun");
  return {
    name: "bun",
    version,
    license,
    purl: `pkg:npm/bun@${version}`,
    comment:
      "Bun links JavaScriptCore (LGPL-2.1) and other libraries statically: https://bun.com/docs/project/license",
  };
}

/**
 * What a binary is made of beside cacheport's own code.
 *
 * @param packages The names of the npm packages whose code is in it.
 */
export function components(packages: readonly string[]): Component[] {
  const lock = readFileSync(join(ROOT, "bun.lock"), "utf8");
  const fromNpm = packages.map((name): Component => {
    const { version, license } = readManifest("node_modules", name);
    const locked = `\\["${name}@${version}", .*"sha512-([^"]+)"\\]`;
    const integrity = new RegExp(locked).exec(lock)?.[1];
    return {
      name,
      version,
      license,
      purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
      sha512: integrity && Buffer.from(integrity, "base64").toString("hex"),
    };
  });
  return [runtime(), ...fromNpm];
}

/**
 * The SPDX document of a release; the same for the same commit.
 *
 * @param parts What is in every binary.
 * @param script The single file, if the release has it: a package of its own, which has all
 *   of the parts but the runtime and needs that one.
 */
export function spdxDocument(parts: readonly Component[], script?: ScriptFile): string {
  const { name, version, license } = project();
  const revision = commit();
  const own: Component = {
    name,
    version,
    license,
    purl: `pkg:generic/${name}@${version}`,
    comment: `Built from commit ${revision}`,
  };
  const document = {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    name: `${name}-${version}`,
    documentNamespace: `https://spdx.org/spdxdocs/${name}-${version}-${revision}`,
    creationInfo: {
      created: spdxTime(commitTime()),
      creators: [`Tool: ${name}-release-${version}`],
    },
    packages: [
      ...[own, ...parts].map((part) => ({
        ...spdxPackage(part),
        ...(part.sha512 && {
          checksums: [{ algorithm: "SHA512", checksumValue: part.sha512 }],
        }),
      })),
      ...(script
        ? [
            {
              ...spdxPackage({ ...own, name: SCRIPT }),
              packageFileName: SCRIPT,
              checksums: [{ algorithm: "SHA256", checksumValue: script.sha256 }],
            },
          ]
        : []),
    ],
    relationships: [
      {
        spdxElementId: "SPDXRef-DOCUMENT",
        relationshipType: "DESCRIBES",
        relatedSpdxElement: spdxId(own.name),
      },
      ...contains(own.name, parts),
      ...(script
        ? [
            {
              spdxElementId: "SPDXRef-DOCUMENT",
              relationshipType: "DESCRIBES",
              relatedSpdxElement: spdxId(SCRIPT),
            },
            ...contains(SCRIPT, script.parts),
            {
              spdxElementId: spdxId("bun"),
              relationshipType: "RUNTIME_DEPENDENCY_OF",
              relatedSpdxElement: spdxId(SCRIPT),
            },
          ]
        : []),
    ],
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

function spdxId(name: string): string {
  return `SPDXRef-Package-${name.replace(/[^A-Za-z0-9.-]/g, "-")}`;
}

function spdxPackage({ name, version, license, purl, comment }: Component) {
  return {
    name,
    SPDXID: spdxId(name),
    versionInfo: version,
    downloadLocation: "NOASSERTION",
    filesAnalyzed: false,
    licenseConcluded: "NOASSERTION",
    licenseDeclared: license,
    copyrightText: "NOASSERTION",
    ...(comment && { comment }),
    externalRefs: [
      {
        referenceCategory: "PACKAGE-MANAGER",
        referenceType: "purl",
        referenceLocator: purl,
      },
    ],
  };
}

function contains(whole: string, parts: readonly Component[]) {
  return parts.map(({ name }) => ({
    spdxElementId: spdxId(whole),
    relationshipType: "CONTAINS",
    relatedSpdxElement: spdxId(name),
  }));
}

/** A time without fractions of a second. @param seconds Since 1970 */
function spdxTime(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(/\.\d+Z$/, "Z");
}

/** The licences of everything that is in a binary beside cacheport's own code. */
export function licenseTexts(parts: readonly Component[]): string {
  const sections = parts.map((part) => {
    const head = `${part.name} ${part.version} (${part.license})`;
    const line = "=".repeat(head.length);
    return `${head}\n${line}\n\n${licenseText(part)}\n`;
  });
  return sections.join("\n\n");
}

function licenseText({ name, comment = "" }: Component): string {
  const folder = join(ROOT, "node_modules", name);
  const path = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  return path ? readFileSync(join(folder, path), "utf8").trim() : comment;
}
