/** `cacheport version`: what was built, from what and for what. */
import { defineCommand } from "./cli-command.ts";
import { COMMIT, NAME, TARGET, VERSION } from "./version.ts";

/** `cacheport version`: what exactly this program is. */
export const versionCommand = defineCommand({
  name: "version",
  summary: "Print the version, and what the program was built from and for",
  description:
    "Prints the version of cacheport, the commit that it was built from, the version of Bun that runs it, and the system that it was built for (bun for cacheport.js). A commit that ends with -dirty had changes that are in no commit.",
  operands: [],
  options: [],
  examples: [{ command: "cacheport version --json", description: "For scripts" }],
  async run(context) {
    const value = {
      name: NAME,
      version: VERSION,
      commit: COMMIT,
      bun: Bun.version,
      target: TARGET,
    };
    await context.result(
      value,
      () => `${NAME} ${VERSION}\ncommit ${COMMIT}\nbun    ${Bun.version}\ntarget ${TARGET}`,
    );
  },
});
