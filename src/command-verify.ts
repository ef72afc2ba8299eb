/** `cacheport verify`: shows the problems that verify.ts finds, by their severity. */
import { availableParallelism } from "node:os";
import { defineCommand } from "./cli-command.ts";
import type { CommandContext } from "./cli-command.ts";
import type { NamedEntry, NameQuery, Store } from "./content-store.ts";
import { EXIT_CODES } from "./errors.ts";
import { openSource, storeSettings } from "./location-open.ts";
import { colored, printable } from "./cli-text.ts";
import { formatBytes } from "./units.ts";
import { verifyStore } from "./verify.ts";
import type { VerifyResult } from "./verify.ts";
import { PROBLEMS } from "./verify-problem.ts";
import type { Problem, Severity } from "./verify-problem.ts";

/** Lines that are shown of one kind of problem; `--json` has them all. */
const SHOWN = 20;

const CODES = Object.entries(PROBLEMS)
  .map(([code, [severity, meaning]]) => `${code} (${severity}): ${meaning}`)
  .join("\n");

/** `cacheport verify LOC`: is everything there and as it should be. */
export const verifyCommand = defineCommand({
  name: "verify",
  summary: "Check digests, sizes, media types and what BuildKit would refuse",
  description: `Hashes everything that a name reaches, or all names without one, and checks it: sizes, media types, the shape of the documents, and for a cache every rule by which BuildKit refuses it or silently drops a part. It never stops at the first fault. Exit code 4 when there are errors; warnings and notes do not count.\n\nThe codes of the problems:\n${CODES}`,
  operands: [{ name: "LOC", description: "What to verify", kind: "location" }],
  options: [
    {
      name: "deep",
      description: "Decompress layers as well and check their diffIDs",
    },
  ],
  examples: [
    {
      command: "cacheport verify ./cache",
      description: "Everything that the names of a cache folder reach",
    },
    {
      command: "cacheport verify image.tar --deep",
      description: "An archive, its layers unpacked as well",
    },
    {
      command: "cacheport verify registry.example/app/cache:main --json | jq .problems",
      description: "One tag of a repository, for scripts",
    },
  ],
  async run(context, args) {
    const settings = await storeSettings(context, args);
    const { store, location, query } = await openSource(args.location(0), settings);
    try {
      const result = await verifyStore(store, await rootsOf(store, query), {
        ...settings,
        // Hashing is bound by the processors, unless the user says otherwise.
        jobs:
          args.value("jobs") === undefined && location.kind !== "registry"
            ? Math.max(settings.jobs, availableParallelism())
            : settings.jobs,
        deep: args.flag("deep"),
        folder: location.kind === "directory" ? location.path : undefined,
        progress: context.progress,
      });
      await context.result(result, () => formatResult(result, context));
      return result.ok ? 0 : EXIT_CODES.VERIFY_FAILED;
    } finally {
      await store.close();
    }
  },
});

async function rootsOf(store: Store, query: NameQuery): Promise<NamedEntry[] | undefined> {
  if (query.name === undefined && query.digest === undefined) return undefined;
  const { descriptor, entry } = await store.resolve(query);
  return [entry ?? { descriptor }];
}

const COLORS = { error: "red", warning: "yellow", note: "cyan" } as const;

function formatResult(
  { ok, blobs, bytes, problems }: VerifyResult,
  { colors }: CommandContext,
): string {
  const verified = `${count(blobs, "blob")}, ${formatBytes(bytes)}`;
  const counts = (["error", "warning", "note"] as const)
    .map((severity) => count(ofSeverity(problems, severity).length, severity))
    .filter((text) => !text.startsWith("0 "));
  const summary = [ok ? `ok: ${verified}` : `failed: ${verified}`, ...counts];
  return [...problemLines(problems, colors), `${summary.join(", ")}\n`].join("");
}

function ofSeverity(problems: readonly Problem[], severity: Severity): Problem[] {
  return problems.filter((problem) => problem.severity === severity);
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

/** One line for each problem; of very many of a kind only the first. */
function* problemLines(problems: readonly Problem[], colors: boolean): Generator<string> {
  const byCode = Map.groupBy(problems, (problem) => problem.code);
  for (const [code, same] of byCode) {
    const [severity] = PROBLEMS[code];
    const label = colored(severity, COLORS[severity], colors);
    for (const { message } of same.slice(0, SHOWN))
      yield `${label}: ${printable(message)} [${code}]\n`;
    if (same.length > SHOWN)
      yield `${label}: and ${same.length - SHOWN} more like these [${code}]\n`;
  }
}
