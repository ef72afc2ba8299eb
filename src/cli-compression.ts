/** The options by which `convert` and `copy` recompress layers, and their attribute forms. */
import type { Arguments, OptionSpec } from "./cli-command.ts";
import { CacheportError } from "./errors.ts";
import type { Location } from "./location.ts";
import type { CompressionChoice } from "./recompress.ts";

/** For the tables of commands. */
export const COMPRESSION_OPTIONS = [
  {
    name: "compression",
    value: "KIND",
    choices: ["gzip", "zstd", "uncompressed"],
    description: "Recompress every layer that is compressed otherwise",
  },
  {
    name: "compression-level",
    value: "N",
    description: "0-9 for gzip (default 6), 0-22 for zstd (default 3)",
  },
  {
    name: "force-compression",
    description: "Recompress layers that have that compression already too",
  },
] as const satisfies readonly OptionSpec[];

/**
 * The compression that the options ask for, else the target's attributes.
 *
 * @returns Undefined when layers stay as they are.
 * @throws {CacheportError} USAGE, NOT_SUPPORTED
 */
export function compressionChoice(
  args: Arguments<"force-compression", "compression" | "compression-level">,
  target: Location | undefined,
): CompressionChoice | undefined {
  const attributes = target?.attributes;
  const compression = args.value("compression") ?? attributes?.compression;
  const force = args.flag("force-compression") || attributes?.forceCompression === true;
  const level =
    args.integer("compression-level", { min: 0, max: 22 }) ?? attributes?.compressionLevel;
  if (compression === undefined) {
    if (!force && level === undefined) return undefined;
    throw new CacheportError(
      "USAGE",
      "Cannot recompress: --compression is missing beside --compression-level or --force-compression",
    );
  }
  if (compression === "estargz") {
    throw new CacheportError("NOT_SUPPORTED", "Cannot write estargz layers: only BuildKit does", {
      hint: "Choose gzip, zstd or uncompressed",
    });
  }
  const most = compression === "gzip" ? 9 : 22;
  if (level !== undefined && level > most) {
    throw new CacheportError(
      "USAGE",
      `Cannot use --compression-level ${level}: ${compression} has levels up to ${most}`,
    );
  }
  return {
    compression: compression as CompressionChoice["compression"],
    level,
    force,
  };
}
