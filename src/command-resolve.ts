/** `cacheport resolve`: from a location to a digest. */
import { defineCommand } from "./cli-command.ts";
import { orderDescriptor } from "./descriptor.ts";
import { storeSettings } from "./location-open.ts";
import { PLATFORM_OPTION, resolveSource } from "./location-source.ts";

/** `cacheport resolve LOC`: the descriptor of what a location names. */
export const resolveCommand = defineCommand({
  name: "resolve",
  summary: "Print the digest and descriptor of what a location names",
  description:
    "Resolves a name to its descriptor. The text output is the digest alone, for use in scripts; --json prints the whole descriptor.",
  operands: [{ name: "LOC", description: "What to resolve", kind: "location" }],
  options: [PLATFORM_OPTION],
  examples: [
    {
      command: "cacheport resolve ./cache:main",
      description: "The digest behind a tag",
    },
    {
      command: "cacheport resolve ./image --platform linux/arm64 --json",
      description: "The descriptor of one platform's manifest",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const { store, descriptor } = await resolveSource(args.location(0), settings, args, {
      documentsOnly: true,
    });
    try {
      await context.result(orderDescriptor(descriptor), () => `${descriptor.digest}\n`);
    } finally {
      await store.close();
    }
  },
});
