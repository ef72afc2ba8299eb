/**
 * Runs BuildKit itself (docker buildx from the interop peers) and reads which steps
 * came out of a cache.
 *
 * There is one BuildKit for all test files and `prune` empties it, so whoever builds
 * holds a lock for the whole of what must not be disturbed:
 *
 * ```ts
 * describe.skipIf(!hasPeers)("...", () => {
 *   test("...", () => withBuildKit(async (buildkit) => {
 *     await buildkit.build({ context, cacheTo: [`type=local,dest=${cache},mode=max`] });
 *     await buildkit.prune();
 *     const { steps } = await buildkit.build({ context, cacheFrom: [`type=local,src=${cache}`] });
 *     expect(notCached(steps)).toEqual([]);
 *   }));
 * });
 * ```
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { ended } from "./output.ts";
import type { Ended } from "./output.ts";
import { tempFolder } from "./temp.ts";

const RUN = process.env["PEERS_RUN"];
const LOCK = join(tmpdir(), "cacheport-buildkit.lock");

/** True when the interop peers are up. */
export const hasPeers = RUN !== undefined;

/** The address of the open registry of the peers: `127.0.0.1:5055`. */
export const PEERS_REGISTRY = process.env["PEERS_REGISTRY"] ?? "";

/** One step of a Dockerfile as a build ran it. */
export interface BuildStep {
  /** The instruction with its position, without the digest of a base image: `[stage-1 2/3] COPY --from=a /a /b`. */
  name: string;
  cached: boolean;
}

/** What to build. */
export interface BuildRequest {
  /** The folder with the Dockerfile. */
  context: string;
  cacheTo?: string[];
  cacheFrom?: string[];
  /** As `--output` takes it; nothing is exported without it. */
  output?: string;
  platform?: string;
  target?: string;
  /** Further arguments. */
  args?: string[];
}

/** How a build went. */
export interface BuildResult {
  /** In the order of the log; base images (`FROM`) and internal steps are left out. */
  steps: BuildStep[];
  log: string;
}

/** What a holder of the lock can do. */
export interface BuildKit {
  /** Builds; throws with the log when the build fails. */
  build(request: BuildRequest): Promise<BuildResult>;
  /** Empties BuildKit's own cache: `docker buildx prune -af`. */
  prune(): Promise<void>;
}

/** Runs one peer command (`skopeo`, `crane`, `docker`, ...) and waits for its end. */
export async function peer(...command: string[]): Promise<Ended> {
  const child = Bun.spawn([RUN as string, ...command], {
    cwd: tmpdir(),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  return ended(child);
}

/** Runs one peer command and gives its standard output; throws when it fails. */
export async function peerOutput(...command: string[]): Promise<string> {
  const { code, stdout, stderr } = await peer(...command);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}:\n${stderr}`);
  return stdout;
}

/** Writes a build context and gives its folder; file names may have folders in them. */
export function buildContext(
  dockerfile: string,
  files: Record<string, string | Uint8Array> = {},
): string {
  const folder = tempFolder();
  for (const [name, content] of Object.entries({
    Dockerfile: dockerfile,
    ...files,
  })) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  }
  return folder;
}

/** The names of the steps that ran instead of coming from a cache. */
export function notCached(steps: readonly BuildStep[]): string[] {
  return steps.filter(({ cached }) => !cached).map(({ name }) => name);
}

/** Runs something while no other test file uses BuildKit. Not to be nested. */
export async function withBuildKit<T>(run: (buildkit: BuildKit) => Promise<T>): Promise<T> {
  // The lock is held by a process that lives as long as its standard input is open,
  // so that it ends with this test process however that ends.
  const holder = Bun.spawn(
    ["flock", "--exclusive", LOCK, "sh", "-c", "echo held; cat >/dev/null"],
    { stdin: "pipe", stdout: "pipe", stderr: "inherit" },
  );
  try {
    const { done } = await holder.stdout.getReader().read();
    if (done) throw new Error(`Cannot lock ${LOCK}`);
    return await run({ build, prune });
  } finally {
    await holder.stdin.end();
    await holder.exited;
  }
}

async function prune(): Promise<void> {
  await peerOutput("docker", "buildx", "prune", "--all", "--force");
}

async function build(request: BuildRequest): Promise<BuildResult> {
  const list = (option: string, values: readonly string[] = []): string[] =>
    values.flatMap((value) => [option, value]);
  const one = (option: string, value: string | undefined): string[] =>
    value === undefined ? [] : [option, value];
  const { code, stderr } = await peer(
    "docker",
    "buildx",
    "build",
    "--progress=plain",
    "--provenance=false",
    ...list("--cache-to", request.cacheTo),
    ...list("--cache-from", request.cacheFrom),
    ...one("--output", request.output ?? "type=cacheonly"),
    ...one("--platform", request.platform),
    ...one("--target", request.target),
    ...(request.args ?? []),
    request.context,
  );
  if (code !== 0) throw new Error(`The build failed:\n${stderr}`);
  return { steps: parseSteps(stderr), log: stderr };
}

/** Reads the steps of Dockerfile instructions from a log of `--progress=plain`. */
export function parseSteps(log: string): BuildStep[] {
  const steps = new Map<string, BuildStep>();
  for (const line of log.split("\n")) {
    const [, number, text] = /^#(\d+) (.*)$/.exec(line) ?? [];
    if (number === undefined || text === undefined) continue;
    if (/^\[(?!internal\])[^\]]+\] /.test(text)) {
      if (/^\[[^\]]+\] FROM /.test(text)) continue;
      // The log names a step again when it comes back to it.
      if (!steps.has(number)) steps.set(number, { name: text, cached: false });
    }
    const step = steps.get(number);
    // A result that is fetched is one of a cache. Whether the step then ends as CACHED
    // or, once its layers are extracted, as DONE is a matter of timing.
    if (step && /^(?:CACHED$|(?:extracting )?sha256:[0-9a-f]{64} )/.test(text)) step.cached = true;
  }
  return [...steps.values()];
}
