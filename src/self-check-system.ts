/** What machine this is: its system, C library and processor, as far as it tells. */
import { dlopen } from "bun:ffi";
import { readFileSync } from "node:fs";
import { arch, platform } from "node:process";

/** The system for people: `linux x64, glibc 2.36, AVX2`. */
export function describeSystem(): string {
  const facts = [`${platform} ${arch}`, cLibrary(), vectorUnit()];
  return facts.filter((fact) => fact !== undefined).join(", ");
}

/** The C library that the program runs on; undefined where there is no choice of them. */
function cLibrary(): string | undefined {
  if (platform !== "linux") return undefined;
  const machine = arch === "arm64" ? "aarch64" : "x86_64";
  try {
    const { symbols } = dlopen("libc.so.6", {
      gnu_get_libc_version: { args: [], returns: "cstring" },
    });
    return `glibc ${symbols.gnu_get_libc_version()}`;
  } catch {
    // It is another one, or calls into it are forbidden: what is mapped still tells.
  }
  try {
    const maps = readFileSync("/proc/self/maps", "utf8");
    return maps.includes(`ld-musl-${machine}`) ? "musl" : "glibc";
  } catch {
    return "an unknown C library";
  }
}

/** What decides between the x64 build, which needs AVX2, and the baseline build. */
function vectorUnit(): string | undefined {
  if (platform !== "linux" || arch !== "x64") return undefined;
  try {
    const flags = /^flags\s*:.*$/m.exec(readFileSync("/proc/cpuinfo", "utf8"));
    return flags?.[0].includes(" avx2") ? "AVX2" : "no AVX2";
  } catch {
    return undefined;
  }
}
