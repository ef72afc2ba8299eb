/**
 * Speed and memory beside other tools: the same work, in turn, in one run.
 *
 *   npm run bench -- [--only GROUP,...] [--rounds N] [--megabytes N] [--json FILE]
 *
 * Each row shows medians over the rounds: wall and processor seconds, peak memory of
 * the largest process, and how many times as long as cacheport the other tool takes.
 * Tools that are not there are left out; the interop peers are used where PEERS_RUN
 * names them. Nothing here passes or fails.
 */
import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    rounds: { type: "string", default: "3" },
    megabytes: { type: "string", default: "1500" },
    json: { type: "string" },
  },
});
const rounds = Number(values.rounds);
const megabytes = Number(values.megabytes);
const wanted = values.only?.split(",");
const cacheport = join(import.meta.dir, "..", "dist", "cacheport");
const peers = process.env["PEERS_RUN"];
const registry = process.env["PEERS_REGISTRY"];
const work = mkdtempSync(join(tmpdir(), "cacheport-bench-"));
chmodSync(work, 0o755);

/** One command that does the work of a group. */
interface Contender {
  name: string;
  command: string[];
  /** What to do before each run, not timed. */
  before?: (() => void) | undefined;
  /** Bytes for its standard input. */
  stdin?: string;
}

/** What one run took. */
interface Sample {
  wall: number;
  cpu: number;
  /** MiB */
  memory: number;
}

/** The medians of one contender in one group. */
interface Row extends Sample {
  group: string;
  name: string;
  /** Its wall time over cacheport's. */
  ratio: number;
}

const rows: Row[] = [];

/** A peer's command, or nothing where there are no peers. */
function peer(name: string, command: string[], before?: () => void): Contender[] {
  return peers ? [{ name, command: [peers, ...command], before }] : [];
}

/** A command of this machine, or nothing where it is not installed. */
function local(name: string, command: string[], before?: () => void): Contender[] {
  return Bun.which(command[0] as string) ? [{ name, command, before }] : [];
}

async function measure(contender: Contender): Promise<Sample> {
  contender.before?.();
  const { name, command, stdin } = contender;
  // What earlier runs left to be written must not be paid for by this one.
  Bun.spawnSync(["sync"]);
  const start = performance.now();
  const child = Bun.spawn(command, {
    cwd: work,
    stdin: stdin ? Bun.file(stdin) : "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const stderr = await new Response(child.stderr).text();
  const code = await child.exited;
  const wall = (performance.now() - start) / 1000;
  if (code !== 0) throw new Error(`${name} ended with ${code}: ${stderr.slice(-500)}`);
  const usage = child.resourceUsage();
  return {
    wall,
    cpu: Number(usage?.cpuTime.total ?? 0) / 1e6,
    memory: Number(usage?.maxRSS ?? 0) / 1024 ** 2,
  };
}

const median = (numbers: number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] as number;

/** Runs the contenders in turn; the first is cacheport. */
async function group(title: string, contenders: Contender[]): Promise<void> {
  const samples = contenders.map((): Sample[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [position, contender] of contenders.entries()) {
      samples[position]?.push(await measure(contender));
    }
  }
  const medians = samples.map((taken) => ({
    wall: median(taken.map(({ wall }) => wall)),
    cpu: median(taken.map(({ cpu }) => cpu)),
    memory: median(taken.map(({ memory }) => memory)),
  }));
  const [own] = medians;
  console.log(`\n${title}`);
  for (const [position, contender] of contenders.entries()) {
    const figures = medians[position] as Sample;
    const ratio = figures.wall / (own as Sample).wall;
    rows.push({ group: title, name: contender.name, ...figures, ratio });
    console.log(
      `  ${contender.name.padEnd(28)} ${figures.wall.toFixed(3).padStart(8)} s  cpu ${figures.cpu
        .toFixed(3)
        .padStart(8)} s  ${figures.memory.toFixed(0).padStart(5)} MiB  ${ratio.toFixed(2)}x`,
    );
  }
}

/** Writes a file of random bytes, in which nothing compresses. @returns Its digest */
function randomFile(path: string, size: number): string {
  const hash = createHash("sha256");
  const file = openSync(path, "w");
  for (let left = size; left > 0; left -= 2 ** 20) {
    const piece = randomBytes(Math.min(left, 2 ** 20));
    hash.update(piece);
    writeSync(file, piece);
  }
  closeSync(file);
  return hash.digest("hex");
}

const sha256 = (bytes: string): string => createHash("sha256").update(bytes).digest("hex");

/** Makes a cache of random layers as an image manifest. */
function makeCache(layout: string, sizes: number[]): void {
  const blobs = join(layout, "blobs", "sha256");
  mkdirSync(blobs, { recursive: true });
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  const put = (text: string, mediaType: string) => {
    writeFileSync(join(blobs, sha256(text)), text);
    return {
      mediaType,
      digest: `sha256:${sha256(text)}`,
      size: Buffer.byteLength(text),
    };
  };
  const layers = sizes.map((size) => {
    const hex = randomFile(join(blobs, "new"), size);
    Bun.spawnSync(["mv", join(blobs, "new"), join(blobs, hex)]);
    const digest = `sha256:${hex}`;
    return {
      mediaType: "application/vnd.oci.image.layer.v1.tar",
      digest,
      size,
      annotations: { "containerd.io/uncompressed": digest },
    };
  });
  const config = put(
    JSON.stringify({
      layers: layers.map(({ digest }, n) => ({
        blob: digest,
        parent: n - 1 || undefined,
      })),
      records: layers.map(({ digest }, n) => ({
        layers: [{ layer: n, createdAt: "2026-01-01T00:00:00Z" }],
        digest,
      })),
    }),
    "application/vnd.buildkit.cacheconfig.v0",
  );
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = put(JSON.stringify({ schemaVersion: 2, mediaType, config, layers }), mediaType);
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  writeFileSync(
    join(layout, "index.json"),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [{ ...manifest, annotations }],
    }),
  );
}

const at = (name: string): string => join(work, name);
const without =
  (...names: string[]) =>
  () => {
    for (const name of names) rmSync(at(name), { recursive: true, force: true });
  };

const groups: Record<string, () => Promise<void>> = {
  async startup() {
    makeCache(at("small"), [1000]);
    await group("start-up: --version", [
      { name: "cacheport", command: [cacheport, "--version"] },
      ...peer("skopeo", ["skopeo", "--version"]),
      ...peer("oras", ["oras", "version"]),
      ...peer("crane", ["crane", "version"]),
      ...peer("(chroot of the peers alone)", ["true"]),
    ]);
    await group("names of a small layout", [
      { name: "cacheport ls", command: [cacheport, "ls", at("small")] },
      ...peer("oras repo tags", ["oras", "repo", "tags", "--oci-layout", at("small")]),
      ...peer("umoci ls", ["umoci", "ls", "--layout", at("small")]),
      ...peer("skopeo inspect --raw", ["skopeo", "inspect", "--raw", `oci:${at("small")}:latest`]),
    ]);
  },
  async convert() {
    for (const [name, size] of [
      ["1 MB", 1e6],
      [`${megabytes} MB`, megabytes * 1e6],
    ] as const) {
      rmSync(at("place"), { recursive: true, force: true });
      if (size > 1e7) Bun.spawnSync(["cp", "-r", at("cache"), at("place")]);
      else makeCache(at("place"), [size]);
      let to = "oci-index";
      const contender = {
        name: "cacheport convert",
        command: [cacheport, "convert", at("place"), "--to", to],
        before: () => {
          to = to === "oci-index" ? "docker-list" : "oci-index";
          contender.command[4] = to;
        },
      };
      await group(`conversion in place of ${name} of blobs`, [contender]);
    }
    rmSync(at("place"), { recursive: true, force: true });
  },
  async archive() {
    await group("folder -> tar", [
      {
        name: "cacheport copy",
        command: [cacheport, "copy", at("cache"), at("out.tar")],
        before: without("out.tar"),
      },
      ...peer(
        "skopeo copy",
        ["skopeo", "copy", `oci:${at("cache")}:latest`, `oci-archive:${at("out.tar")}:latest`],
        without("out.tar"),
      ),
      ...local(
        "tar cf (checks nothing)",
        ["tar", "-C", at("cache"), "-cf", at("out.tar"), "."],
        without("out.tar"),
      ),
    ]);
    Bun.spawnSync([cacheport, "copy", at("cache"), at("in.tar")]);
    const extract = () => {
      without("out")();
      mkdirSync(at("out"));
    };
    await group("tar -> folder", [
      {
        name: "cacheport copy",
        command: [cacheport, "copy", at("in.tar"), at("out")],
        before: without("out"),
      },
      ...peer(
        "skopeo copy",
        ["skopeo", "copy", `oci-archive:${at("in.tar")}:latest`, `oci:${at("out")}:latest`],
        without("out"),
      ),
      ...local("tar xf (checks nothing)", ["tar", "-C", at("out"), "-xf", at("in.tar")], extract),
    ]);
    await group("names of a tar", [
      { name: "cacheport ls", command: [cacheport, "ls", at("in.tar")] },
      ...local("tar tf", ["tar", "-tf", at("in.tar")]),
    ]);
    await group("pipe -> folder", [
      {
        name: "cacheport copy -",
        command: [cacheport, "copy", "-", at("out")],
        before: without("out"),
        stdin: at("in.tar"),
      },
      ...local("tar x (checks nothing)", ["tar", "-C", at("out"), "-x"], extract).map((one) => ({
        ...one,
        stdin: at("in.tar"),
      })),
    ]);
    without("out", "out.tar", "in.tar")();
  },
  async folder() {
    await group("folder -> folder", [
      {
        name: "cacheport copy",
        command: [cacheport, "copy", at("cache"), at("out")],
        before: without("out"),
      },
      ...peer(
        "skopeo copy",
        ["skopeo", "copy", `oci:${at("cache")}:latest`, `oci:${at("out")}:latest`],
        without("out"),
      ),
      ...peer(
        "oras cp",
        [
          "oras",
          "cp",
          "--from-oci-layout",
          "--to-oci-layout",
          `${at("cache")}:latest`,
          `${at("out")}:latest`,
        ],
        without("out"),
      ),
      ...local("cp -r (checks nothing)", ["cp", "-r", at("cache"), at("out")], without("out")),
    ]);
    without("out")();
  },
  async registry() {
    if (!registry) return;
    let run = 0;
    /** A repository of its own for each run, so that nothing is there already. */
    const fresh = (contender: Contender): Contender => {
      const { command } = contender;
      const before = (): void => {
        const repository = `${registry}/bench/${process.pid}-${run++}`;
        contender.command = command.map((word) => word.replace("REPO", repository));
      };
      return Object.assign(contender, { before });
    };
    await group(
      "folder -> registry",
      [
        {
          name: "cacheport copy",
          command: [cacheport, "copy", at("cache"), "REPO:latest"],
        },
        ...peer("skopeo copy", [
          "skopeo",
          "copy",
          "--dest-tls-verify=false",
          `oci:${at("cache")}:latest`,
          "docker://REPO:latest",
        ]),
        ...peer("oras cp", [
          "oras",
          "cp",
          "--to-plain-http",
          "--from-oci-layout",
          `${at("cache")}:latest`,
          "REPO:latest",
        ]),
        ...peer("crane push", ["crane", "push", "--insecure", at("cache"), "REPO:latest"]),
      ].map(fresh),
    );
    const source = `${registry}/bench/${process.pid}-source:latest`;
    Bun.spawnSync([cacheport, "copy", at("cache"), source]);
    await group("registry -> folder", [
      {
        name: "cacheport copy",
        command: [cacheport, "copy", source, at("out")],
        before: without("out"),
      },
      ...peer(
        "skopeo copy",
        [
          "skopeo",
          "copy",
          "--src-tls-verify=false",
          `docker://${source}`,
          `oci:${at("out")}:latest`,
        ],
        without("out"),
      ),
      ...peer(
        "oras cp",
        ["oras", "cp", "--from-plain-http", "--to-oci-layout", source, `${at("out")}:latest`],
        without("out"),
      ),
      ...peer(
        "crane pull --format=oci",
        ["crane", "pull", "--insecure", "--format=oci", source, at("out")],
        without("out"),
      ),
    ]);
    await group(
      "registry -> registry, mounted",
      [
        {
          name: "cacheport copy",
          command: [cacheport, "copy", source, "REPO:latest"],
        },
        ...peer("skopeo copy", [
          "skopeo",
          "copy",
          "--src-tls-verify=false",
          "--dest-tls-verify=false",
          `docker://${source}`,
          "docker://REPO:latest",
        ]),
        ...peer("oras cp", [
          "oras",
          "cp",
          "--from-plain-http",
          "--to-plain-http",
          source,
          "REPO:latest",
        ]),
        ...peer("crane copy", ["crane", "copy", "--insecure", source, "REPO:latest"]),
      ].map(fresh),
    );
    without("out")();
  },
  async verify() {
    const megabyte =
      Number(
        Bun.spawnSync(
          ["openssl", "speed", "-evp", "sha256", "-bytes", "1048576", "-seconds", "3"],
          {
            stderr: "ignore",
          },
        )
          .stdout.toString()
          .match(/sha256 +([\d.]+)k/)?.[1] ?? 0,
      ) / 1000;
    console.log(
      `\nopenssl speed sha256, one core: ${megabyte.toFixed(0)} MB/s; ${megabytes} MB on ${availableParallelism()} cores: ${(megabytes / megabyte / availableParallelism()).toFixed(2)} s`,
    );
    await group("verify", [
      { name: "cacheport verify", command: [cacheport, "verify", at("cache")] },
      ...local("openssl dgst, one core", [
        "sh",
        "-c",
        `openssl dgst -sha256 ${at("cache")}/blobs/sha256/*`,
      ]),
    ]);
  },
  async recompress() {
    const raw = at("raw.tar");
    // Something like a root file system: text and programs, half of what compresses.
    Bun.spawnSync([
      "sh",
      "-c",
      `tar -C /usr -cf - lib bin 2>/dev/null | head -c ${Math.min(megabytes, 600) * 1e6} >${raw}`,
    ]);
    Bun.spawnSync(["sh", "-c", `gzip -6c ${raw} >${raw}.gz`]);
    makeGzipCache(at("gz"), raw);
    await group("gzip -> zstd, level 3", [
      {
        name: "cacheport convert",
        command: [cacheport, "convert", at("gz"), at("out"), "--compression", "zstd"],
        before: without("out"),
      },
      ...local(
        "gzip -dc | zstd -T0",
        ["sh", "-c", `gzip -dc ${raw}.gz | zstd -q -3 -T0 -c >${at("out.zst")}`],
        without("out.zst"),
      ),
    ]);
    without("out", "out.zst", "raw.tar", "raw.tar.gz", "gz")();
  },
};

/** A cache of one gzip layer. */
function makeGzipCache(layout: string, raw: string): void {
  makeCache(layout, [1]);
  const blobs = join(layout, "blobs", "sha256");
  const hashOf = (path: string): string =>
    Bun.spawnSync(["openssl", "dgst", "-sha256", path]).stdout.toString().split("= ")[1]?.trim() ??
    "";
  const digest = `sha256:${hashOf(`${raw}.gz`)}`;
  const diffId = `sha256:${hashOf(raw)}`;
  Bun.spawnSync(["cp", `${raw}.gz`, join(blobs, digest.slice(7))]);
  const config = JSON.stringify({
    layers: [{ blob: digest, parent: -1 }],
    records: [{ layers: [{ layer: 0, createdAt: "2026-01-01T00:00:00Z" }], digest }],
  });
  writeFileSync(join(blobs, sha256(config)), config);
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: {
      mediaType: "application/vnd.buildkit.cacheconfig.v0",
      digest: `sha256:${sha256(config)}`,
      size: config.length,
    },
    layers: [
      {
        mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
        digest,
        size: Bun.file(`${raw}.gz`).size,
        annotations: { "containerd.io/uncompressed": diffId },
      },
    ],
  });
  writeFileSync(join(blobs, sha256(manifest)), manifest);
  writeFileSync(
    join(layout, "index.json"),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [
        {
          mediaType: "application/vnd.oci.image.manifest.v1+json",
          digest: `sha256:${sha256(manifest)}`,
          size: manifest.length,
        },
      ],
    }),
  );
}

console.log(
  `${cpus()[0]?.model ?? "unknown processor"}, ${availableParallelism()} cores; medians of ${rounds} rounds`,
);
const { memory: floor } = await measure({ name: "true", command: ["true"] });
console.log(`Peak memory under ${floor.toFixed(0)} MiB, this script's own, cannot be told`);
try {
  const each = Math.floor((megabytes * 1e6) / 12);
  makeCache(
    at("cache"),
    Array.from({ length: 12 }, () => each),
  );
  for (const [name, run] of Object.entries(groups)) {
    if (!wanted || wanted.includes(name)) await run();
  }
  if (values.json) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
