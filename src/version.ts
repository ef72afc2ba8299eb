/** What this program is: from package.json and, where it was compiled, from the build. */
import { description, name, version } from "../package.json" with { type: "json" };

export const NAME: string = name;
export const VERSION: string = version;
export const DESCRIPTION: string = description;

// scripts/compile.ts puts texts in the place of these names.
declare const BUILD_COMMIT: string | undefined;
declare const BUILD_TARGET: string | undefined;

/** The commit that the program was built from; `unknown` outside git. */
export const COMMIT: string = typeof BUILD_COMMIT === "undefined" ? "unknown" : BUILD_COMMIT;

/** What the program was built for: `linux-x64-musl`; `source` for a program that was not compiled. */
export const TARGET: string = typeof BUILD_TARGET === "undefined" ? "source" : BUILD_TARGET;
