/**
 * Running contenders in turn and taking what they took: the frame of scripts/bench.ts.
 *
 * Peak memory is that of the contender's own processes: GNU time starts them from a process
 * of its own size, where a child of this program would inherit this program's peak. What it
 * costs to enter the peers' tree is measured in the same run and taken off the peers' time.
 */
import { join } from "node:path";

/** One command that does the work of a group. */
export interface Contender {
  name: string;
  command: string[];
  /** What to do before each run, not timed. */
  before?: (() => void) | undefined;
  /** A file for its standard input. */
  stdin?: string | undefined;
  /** It runs in the peers' tree. */
  isPeer?: boolean | undefined;
}

/** What one run took. */
export interface Sample {
  /** Seconds. */
  wall: number;
  /** Seconds of processor time. */
  cpu: number;
  /** MiB, of the largest process. */
  memory: number;
}

/** The medians of one contender in one group. */
export interface Row extends Sample {
  group: string;
  name: string;
  /** Its wall time over cacheport's. */
  ratio: number;
}

/** How a run of the bench goes, the same for all groups. */
export interface Bench {
  /** The compiled program. */
  cacheport: string;
  /** A folder for everything, removed at the end. */
  work: string;
  rounds: number;
  /** Bytes of the large cache, in millions. */
  megabytes: number;
  /** The command that runs a peer; undefined where there are none. */
  peers: string | undefined;
  registry: string | undefined;
  rows: Row[];
  /** Seconds that entering the peers' tree takes. */
  entry: number;
}

/** A peer's command, or nothing where there are no peers. */
export function peer(
  { peers }: Bench,
  name: string,
  command: string[],
  before?: () => void,
): Contender[] {
  return peers ? [{ name, command: [peers, ...command], before, isPeer: true }] : [];
}

/** The same with what it wrote brought to the disk, as cacheport does it. */
export function synced(contenders: readonly Contender[], name: string, out: string): Contender[] {
  return contenders
    .filter((contender) => contender.name === name)
    .map((contender) => ({
      ...contender,
      name: `${name}, synced`,
      command: ["sh", "-c", `"$0" "$@" && sync -f ${out}`, ...contender.command],
    }));
}

/** A command of this machine, or nothing where it is not installed. */
export function local(name: string, command: string[], before?: () => void): Contender[] {
  return Bun.which(command[0] as string) ? [{ name, command, before }] : [];
}

/** The middle one. */
export const median = (numbers: number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] as number;

/** Runs a contender once. */
export async function measure(bench: Bench, contender: Contender): Promise<Sample> {
  contender.before?.();
  const { name, command, stdin, isPeer } = contender;
  // What earlier runs left to be written must not be paid for by this one.
  Bun.spawnSync(["sync"]);
  const report = join(bench.work, "time");
  const timed = Bun.which("time") ? ["time", "-f", "%M", "-o", report, ...command] : command;
  const start = performance.now();
  const child = Bun.spawn(timed, {
    cwd: bench.work,
    stdin: stdin ? Bun.file(stdin) : "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const stderr = await new Response(child.stderr).text();
  const code = await child.exited;
  const wall = (performance.now() - start) / 1000;
  if (code !== 0) throw new Error(`${name} ended with ${code}: ${stderr.slice(-500)}`);
  const usage = child.resourceUsage();
  const kilobytes =
    timed === command ? Number(usage?.maxRSS ?? 0) / 1024 : Number(await Bun.file(report).text());
  return {
    wall: Math.max(0, isPeer ? wall - bench.entry : wall),
    cpu: Number(usage?.cpuTime.total ?? 0) / 1e6,
    memory: kilobytes / 1024,
  };
}

/** Runs the contenders in turn, round by round, and prints their medians; the first is cacheport. */
export async function group(
  bench: Bench,
  title: string,
  contenders: readonly Contender[],
): Promise<void> {
  const samples = contenders.map((): Sample[] => []);
  for (let round = 0; round < bench.rounds; round++) {
    // Another one begins each time: what memory and disk are like is the work of the one before.
    for (let turn = 0; turn < contenders.length; turn++) {
      const position = (round + turn) % contenders.length;
      samples[position]?.push(await measure(bench, contenders[position] as Contender));
    }
  }
  const medians = samples.map((taken) => ({
    wall: median(taken.map(({ wall }) => wall)),
    cpu: median(taken.map(({ cpu }) => cpu)),
    memory: median(taken.map(({ memory }) => memory)),
  }));
  const own = (medians[0] as Sample).wall;
  console.log(`\n${title}`);
  for (const [position, { name }] of contenders.entries()) {
    const figures = medians[position] as Sample;
    const ratio = figures.wall / own;
    bench.rows.push({ group: title, name, ...figures, ratio });
    const columns = [
      `${figures.wall.toFixed(3).padStart(8)} s`,
      `cpu ${figures.cpu.toFixed(3).padStart(8)} s`,
      `${figures.memory.toFixed(0).padStart(5)} MiB`,
      `${ratio.toFixed(2)}x`,
    ];
    console.log(`  ${name.padEnd(28)} ${columns.join("  ")}`);
  }
}
