/** `cacheport cat`: bytes as they are stored, whatever they are. */
import { CacheportError } from "./errors.ts";
import { defineCommand } from "./cli-command.ts";
import { digestOf } from "./digest.ts";
import { locationQuery, storeSettings } from "./location-open.ts";
import { CACHE_CONFIG, isDocumentType } from "./media-types.ts";
import { PLATFORM_OPTION, resolveSource } from "./location-source.ts";
import { verifiedStream } from "./blob-check.ts";

/** `cacheport cat LOC`: the bytes of what a location names. */
export const catCommand = defineCommand({
  name: "cat",
  summary: "Print the bytes of a manifest or a blob",
  description:
    "Writes the bytes of what a location names to standard output, exactly as they are stored. LOC@DIGEST prints any blob of the store. Of a cache in an object store the one document that it has there is printed, not the manifest that stands for it elsewhere. The digest is checked: when it does not fit, the exit code is 4. With --json the bytes are given as base64.",
  operands: [{ name: "LOC", description: "What to print", kind: "location" }],
  options: [PLATFORM_OPTION],
  examples: [
    {
      command: "cacheport cat ./cache:main | jq .",
      description: "Read a manifest",
    },
    {
      command: "cacheport cat ./cache@sha256:90bc05... | tar tz",
      description: "List the files of a layer",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const { store, descriptor, location } = await resolveSource(args.location(0), settings, args);
    try {
      const asked = locationQuery(location).digest;
      const stored = asked === undefined ? await store.stored?.(descriptor) : undefined;
      if (stored) {
        const document = { mediaType: CACHE_CONFIG, digest: digestOf(stored), size: stored.length };
        const data = (): string => Buffer.from(stored).toString("base64");
        if (context.json) await context.result({ ...document, data: data() }, () => "");
        else await context.write(stored);
      } else if (context.json) {
        const bytes = await store.read(descriptor, settings.limits.config);
        const { mediaType, digest, size } = descriptor;
        const data = Buffer.from(bytes).toString("base64");
        await context.result({ mediaType, digest, size, data }, () => "");
      } else if (isDocumentType(descriptor.mediaType)) {
        await context.write(await store.read(descriptor, settings.limits.manifest));
      } else {
        if (context.stdoutIsTerminal) refuseBinary(descriptor.mediaType);
        const stream = await store.open(descriptor, settings.signal);
        for await (const chunk of verifiedStream(stream, descriptor)) await context.write(chunk);
      }
    } finally {
      await store.close();
    }
  },
});

/** Bytes of a layer would leave a terminal in any state; what is JSON or text is meant to be read. */
function refuseBinary(mediaType: string): void {
  if (/json|^text\//i.test(mediaType)) return;
  throw new CacheportError("USAGE", "Cannot write binary content to a terminal", {
    hint: "Redirect it to a file, or pipe it on: cacheport cat LOCATION | tar tz",
  });
}
