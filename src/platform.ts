/**
 * Platforms as people write them, `os/architecture[/variant]`, and which of
 * several documents is for one.
 *
 * Source: containerd/platforms, platforms.go (specifiers), database.go
 * (normalisation), compare.go (variants that run on another).
 */
import type { Platform } from "./descriptor.ts";
import { CacheportError } from "./errors.ts";

/** Architectures by the other names that they go by; Node's among them. */
const ARCHITECTURES = new Map([
  ["i386", "386"],
  ["ia32", "386"],
  ["x86_64", "amd64"],
  ["x86-64", "amd64"],
  ["x64", "amd64"],
  ["aarch64", "arm64"],
]);
/** Operating systems by the other names that they go by. */
const SYSTEMS = new Map([
  ["macos", "darwin"],
  ["win32", "windows"],
]);

/** Go's names, by which a single word is told to be one or the other. */
const KNOWN_SYSTEMS = new Set(
  "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris wasip1 windows zos".split(
    " ",
  ),
);
const KNOWN_ARCHITECTURES = new Set(
  "386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc ppc64 ppc64le riscv riscv64 s390 s390x sparc sparc64 wasm".split(
    " ",
  ),
);

/**
 * Parses a platform and normalises it.
 *
 * @param text `os/architecture[/variant]`, `os(version)/architecture`, one word
 *   that is an operating system or an architecture, or `local`.
 * @param local What stands for the parts that the text leaves out: this machine.
 * @throws {CacheportError} USAGE
 * @example
 * parsePlatform("linux/aarch64"); // { os: "linux", architecture: "arm64" }
 */
export function parsePlatform(text: string, local?: Platform): Platform {
  if (text === "local" && local) return normalizePlatform(local);
  const parts = text.split("/", 4);
  const [first = "", architecture, variant] = parts;
  const system = /^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?$/.exec(first);
  if (
    !system ||
    parts.length > 3 ||
    !parts.slice(1).every((part) => /^[A-Za-z0-9_.-]+$/.test(part))
  )
    throw unreadable(text, "it is not os/architecture[/variant]");
  const os = system[1] ?? "";
  const version = system[2] || undefined;
  if (architecture !== undefined)
    return normalizePlatform({
      os,
      architecture,
      variant,
      "os.version": version,
    });
  return completeWord(text, os, version, local);
}

/** Completes a single word with the other half of this machine's platform. */
function completeWord(
  text: string,
  word: string,
  version: string | undefined,
  local: Platform | undefined,
): Platform {
  const asSystem = normalizePlatform({ os: word, architecture: "" }).os;
  const asArchitecture = normalizePlatform({ os: "", architecture: word });
  if (local && KNOWN_SYSTEMS.has(asSystem))
    return normalizePlatform({
      ...local,
      os: asSystem,
      "os.version": version,
    });
  if (local && version === undefined && KNOWN_ARCHITECTURES.has(asArchitecture.architecture))
    return normalizePlatform({ ...asArchitecture, os: local.os });
  throw unreadable(
    text,
    local
      ? "it is neither an operating system nor an architecture"
      : "it is not os/architecture[/variant]",
  );
}

/**
 * The platform of this machine.
 *
 * @param os As Node or Go names it: `linux`, `win32`.
 * @param architecture As Node, Go or uname names it: `x64`, `amd64`, `x86_64`.
 */
export function localPlatform(os: string, architecture: string): Platform {
  return normalizePlatform({ os, architecture });
}

/**
 * The one form of a platform that can be written in several: names in lower case
 * and as Go has them, no variant where it is the usual one (`arm64/v8`,
 * `amd64/v1`), `arm` always with one.
 */
export function normalizePlatform(platform: Platform): Platform {
  const written = platform.architecture.toLowerCase();
  const os = platform.os.toLowerCase();
  let architecture = ARCHITECTURES.get(written) ?? written;
  let variant = platform.variant?.toLowerCase() ?? "";
  if (architecture === "armhf") [architecture, variant] = ["arm", "v7"];
  else if (architecture === "armel") [architecture, variant] = ["arm", "v6"];
  else if (architecture === "386" && written !== "386") variant = "";
  if (architecture === "arm" && variant === "") variant = "v7";
  if (/^arm(?:64)?$/.test(architecture) && /^[0-9]/.test(variant)) variant = `v${variant}`;
  // Armv9.0 is Armv9, as containerd has it.
  if (architecture === "arm64") variant = variant.replace(/^(v[89])\.0$/, "$1");
  if (
    (architecture === "arm64" && variant === "v8") ||
    (architecture === "amd64" && variant === "v1")
  )
    variant = "";
  return {
    ...platform,
    os: SYSTEMS.get(os) ?? os,
    architecture,
    variant: variant || undefined,
  };
}

/**
 * The text of a platform, as it is: `linux/arm64/v8`,
 * `windows(10.0.17763.1)/amd64`; `unknown` where no operating system is given.
 */
export function formatPlatform(platform: Platform): string {
  if (platform.os === "") return "unknown";
  const version = platform["os.version"];
  return [
    version ? `${platform.os}(${version})` : platform.os,
    platform.architecture,
    platform.variant,
  ]
    .filter(Boolean)
    .join("/");
}

/**
 * Tells whether a platform is the wanted one in whatever form the two are
 * written. A version of the operating system counts where both have one;
 * features of the operating system do not count.
 */
export function matchPlatform(wanted: Platform, candidate: Platform): boolean {
  const a = normalizePlatform(wanted);
  const b = normalizePlatform(candidate);
  return sameMachine(a, b) && a.variant === b.variant;
}

/**
 * Those of several documents that are for a platform, in their own order: the ones
 * for just this variant, else for the nearest older variant that runs on it
 * (`arm/v6` for `arm/v7`). Other architectures are never taken, though some
 * machines run them (386 on amd64).
 *
 * @returns Nothing when none fits; several when the documents do not differ in platform.
 */
export function selectPlatform<T extends { platform?: Platform | undefined }>(
  wanted: Platform,
  candidates: readonly T[],
): T[] {
  const target = normalizePlatform(wanted);
  const fitting = candidates.flatMap((candidate) => {
    if (!candidate.platform) return [];
    const platform = normalizePlatform(candidate.platform);
    return sameMachine(target, platform) ? [{ candidate, variant: platform.variant ?? "" }] : [];
  });
  for (const variant of [target.variant ?? "", ...olderVariants(target)]) {
    const found = fitting.filter((entry) => entry.variant === variant);
    if (found.length > 0) return found.map((entry) => entry.candidate);
  }
  return [];
}

/** Compares all but the variant. */
function sameMachine(a: Platform, b: Platform): boolean {
  return (
    a.os === b.os &&
    a.architecture === b.architecture &&
    sameVersion(a["os.version"], b["os.version"])
  );
}

/** `10.0.17763` is every `10.0.17763.N`; no version at all is every version. */
function sameVersion(wanted?: string, candidate?: string): boolean {
  return !wanted || !candidate || `${candidate}.`.startsWith(`${wanted}.`);
}

/** The older variants that a normalised platform runs, in normal form, the newest first. */
function olderVariants({ architecture, variant = "" }: Platform): string[] {
  const [, major, minor] = /^v([0-9]{1,2})(?:\.([0-9]{1,2}))?$/.exec(variant) ?? [];
  switch (architecture) {
    case "amd64":
      // x86-64-v3 runs what was built for v2 and v1; v1 is written as none.
      return [...descend(Number(major) - 1, 2).map((n) => `v${n}`), ""];
    case "arm":
      return descend(Number(major) - 1, 5).map((n) => `v${n}`);
    case "arm64":
      return olderArm64(Number(major), Number(minor ?? 0));
    default:
      return [];
  }
}

/** Armv9.x runs what was built for Armv8.(x+5); v8 is written as none. */
function olderArm64(major: number, minor: number): string[] {
  if (major === 9)
    return [
      ...descend(minor - 1, 1).map((n) => `v9.${n}`),
      "v9",
      ...descend(minor + 5, 1).map((n) => `v8.${n}`),
      "",
    ];
  return major === 8 ? [...descend(minor - 1, 1).map((n) => `v8.${n}`), ""] : [];
}

/** The whole numbers from one down to another. */
function descend(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, from - to + 1) }, (_, i) => from - i);
}

function unreadable(text: string, reason: string): CacheportError {
  const shown = text.length > 100 ? `${text.slice(0, 100)}...` : text;
  return new CacheportError("USAGE", `Cannot parse platform ${JSON.stringify(shown)}: ${reason}`, {
    hint: "Write it as in linux/amd64, linux/arm64 or linux/arm/v7",
  });
}
