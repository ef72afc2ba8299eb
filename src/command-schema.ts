/** `cacheport schema`: what scripts can rely on of `--json`. */
import { defineCommand } from "./cli-command.ts";
import { CONTRACTS } from "./cli-contracts.ts";
import { toJsonSchema } from "./cli-schema.ts";
import { nearest } from "./cli-suggestion.ts";
import { CacheportError } from "./errors.ts";

/** `cacheport schema [COMMAND]`: the JSON Schema of a command's value. */
export const schemaCommand = defineCommand({
  name: "schema",
  summary: "Print the JSON Schema of what a command prints with --json",
  description:
    'Prints the contract of a command\'s JSON value as JSON Schema (draft 2020-12); without COMMAND the names that there are. Fields are only added: a script that passes over what it does not know goes on working. "error" is what every command prints when it fails; cacheport help errors lists its codes.',
  operands: [
    {
      name: "COMMAND",
      description: "A command, or error; with its option after -- where it has one",
      kind: "text",
      optional: true,
      repeat: true,
    },
  ],
  options: [],
  examples: [
    { command: "cacheport schema verify", description: "What verify --json prints" },
    {
      command: "cacheport schema ls | jq '.items.properties | keys'",
      description: "The fields of an entry",
    },
    { command: "cacheport schema -- ls --tree", description: "Another form of one command" },
  ],
  async run(context, args) {
    const name = args.operands.length > 0 ? args.operands.join(" ") : undefined;
    const names = Object.keys(CONTRACTS);
    if (name === undefined) {
      await context.result(names, () => names.map((one) => `${one}\n`).join(""));
      return;
    }
    const contract = Object.hasOwn(CONTRACTS, name) ? CONTRACTS[name] : undefined;
    if (!contract) {
      const meant = nearest(name, names);
      throw new CacheportError(
        "USAGE",
        `Cannot print the schema of ${JSON.stringify(name.slice(0, 100))}: it has none`,
        { hint: meant ? `Did you mean ${meant}?` : `There are: ${names.join(", ")}` },
      );
    }
    const schema = {
      $schema: "https://json-schema.org/draft/2020-12/schema",
      title: name === "error" ? "A failure" : `cacheport ${name} --json`,
      ...toJsonSchema(contract),
    };
    await context.result(schema, () => JSON.stringify(schema, undefined, 2));
  },
});
