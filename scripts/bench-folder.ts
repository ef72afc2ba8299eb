/** The groups of scripts/bench.ts that need no registry. */
import { mkdirSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { makeCache, makeGzipCache, makeLargeConfig, makeSparseCache } from "./bench-data.ts";
import { group, local, peer, synced } from "./bench-run.ts";
import type { Bench } from "./bench-run.ts";

/** Starting, and what takes hardly longer. */
export async function startGroups(bench: Bench): Promise<void> {
  const { cacheport, work } = bench;
  const small = join(work, "small");
  makeCache(small, [1000]);
  await group(bench, "start-up: --version", [
    { name: "cacheport", command: [cacheport, "--version"] },
    ...peer(bench, "skopeo", ["skopeo", "--version"]),
    ...peer(bench, "oras", ["oras", "version"]),
    ...peer(bench, "crane", ["crane", "version"]),
  ]);
  await group(bench, "names of a small layout", [
    { name: "cacheport ls", command: [cacheport, "ls", small] },
    ...peer(bench, "oras repo tags", ["oras", "repo", "tags", "--oci-layout", small]),
    ...peer(bench, "umoci ls", ["umoci", "ls", "--layout", small]),
    ...peer(bench, "skopeo inspect --raw", ["skopeo", "inspect", "--raw", `oci:${small}:latest`]),
  ]);
}

/** Conversions in place, which must not cost more for larger blobs. */
export async function convertGroups(bench: Bench): Promise<void> {
  const { cacheport, work, megabytes } = bench;
  const place = join(work, "place");
  for (const size of [1, megabytes]) {
    rmSync(place, { recursive: true, force: true });
    if (size > 10) Bun.spawnSync(["cp", "-r", join(work, "cache"), place]);
    else makeCache(place, [size * 1e6]);
    let to = "oci-index";
    const contender = {
      name: "cacheport convert",
      command: [cacheport, "convert", place, "--to", to],
      before: () => {
        to = to === "oci-index" ? "docker-list" : "oci-index";
        contender.command[4] = to;
      },
    };
    await group(bench, `conversion in place of ${size} MB of blobs`, [contender]);
  }
  rmSync(place, { recursive: true, force: true });
}

/** Copies between folders. */
export async function folderGroups(bench: Bench, clear: () => void): Promise<void> {
  await copies(bench, "folder -> folder", join(bench.work, "cache"), clear);
  const sparse = join(bench.work, "sparse");
  makeSparseCache(sparse, 8 * 2 ** 30);
  await copies(bench, "one layer of 8 GiB, folder -> folder", sparse, clear);
  rmSync(sparse, { recursive: true });
}

async function copies(bench: Bench, title: string, from: string, clear: () => void): Promise<void> {
  const { cacheport, work } = bench;
  const out = join(work, "out");
  const oras = ["oras", "cp", "--from-oci-layout", "--to-oci-layout"];
  const copiers = peer(bench, "oras cp", [...oras, `${from}:latest`, `${out}:latest`], clear);
  const skopeo = ["skopeo", "copy", `oci:${from}:latest`, `oci:${out}:latest`];
  const contenders = [
    { name: "cacheport copy", command: [cacheport, "copy", from, out], before: clear },
    ...peer(bench, "skopeo copy", skopeo, clear),
    ...copiers,
    ...synced(copiers, "oras cp", out),
    ...local("cp -r (checks nothing)", ["cp", "-r", "--sparse=never", from, out], clear),
  ];
  await group(bench, title, contenders);
  clear();
}

/** Tars, as files and through pipes. */
export async function archiveGroups(bench: Bench, clear: () => void): Promise<void> {
  const { cacheport, work } = bench;
  const [cache, out, tar, source] = ["cache", "out", "out.tar", "in.tar"].map((one) =>
    join(work, one),
  ) as [string, string, string, string];
  const clearTar = () => rmSync(tar, { force: true });
  await group(bench, "folder -> tar", [
    { name: "cacheport copy", command: [cacheport, "copy", cache, tar], before: clearTar },
    ...peer(
      bench,
      "skopeo copy",
      ["skopeo", "copy", `oci:${cache}:latest`, `oci-archive:${tar}:latest`],
      clearTar,
    ),
    ...local("tar cf (checks nothing)", ["tar", "-C", cache, "-cf", tar, "."], clearTar),
  ]);
  Bun.spawnSync([cacheport, "copy", cache, source]);
  const emptied = () => {
    clear();
    mkdirSync(out);
  };
  await group(bench, "tar -> folder", [
    { name: "cacheport copy", command: [cacheport, "copy", source, out], before: clear },
    ...peer(
      bench,
      "skopeo copy",
      ["skopeo", "copy", `oci-archive:${source}:latest`, `oci:${out}:latest`],
      clear,
    ),
    ...local("tar xf (checks nothing)", ["tar", "-C", out, "-xf", source], emptied),
  ]);
  await group(bench, "names of a tar", [
    { name: "cacheport ls", command: [cacheport, "ls", source] },
    ...local("tar tf", ["tar", "-tf", source]),
  ]);
  const extract = local("tar x (checks nothing)", ["tar", "-C", out, "-x"], emptied);
  await group(bench, "pipe -> folder", [
    {
      name: "cacheport copy -",
      command: [cacheport, "copy", "-", out],
      before: clear,
      stdin: source,
    },
    ...extract.map((one) => ({ ...one, stdin: source })),
  ]);
  clear();
  for (const file of [tar, source]) rmSync(file, { force: true });
}

/** Checking everything, beside hashing alone. */
export async function verifyGroups(bench: Bench): Promise<void> {
  const { cacheport, work, megabytes } = bench;
  const speed = Bun.spawnSync(
    ["openssl", "speed", "-evp", "sha256", "-bytes", "1048576", "-seconds", "3"],
    { stderr: "ignore" },
  );
  const perCore = Number(/sha256 +([\d.]+)k/.exec(speed.stdout.toString())?.[1] ?? 0) / 1000;
  const cores = availableParallelism();
  const ideal = (megabytes / perCore / cores).toFixed(2);
  console.log(
    `\nopenssl speed sha256, one core: ${perCore.toFixed(0)} MB/s; ${megabytes} MB on ${cores} cores: ${ideal} s`,
  );
  const cache = join(work, "cache");
  await group(bench, "verify", [
    { name: "cacheport verify", command: [cacheport, "verify", cache] },
    ...local("openssl dgst, one core", [
      "sh",
      "-c",
      `openssl dgst -sha256 ${cache}/blobs/sha256/*`,
    ]),
  ]);
}

/** gzip to zstd, with something like a root file system: text and programs. */
export async function recompressGroups(bench: Bench, clear: () => void): Promise<void> {
  const { cacheport, work, megabytes } = bench;
  const raw = join(work, "raw.tar");
  const packed = join(work, "out.zst");
  const size = Math.min(megabytes, 600) * 1e6;
  Bun.spawnSync(["sh", "-c", `tar -C /usr -cf - lib bin 2>/dev/null | head -c ${size} >${raw}`]);
  Bun.spawnSync(["sh", "-c", `gzip -6c ${raw} >${raw}.gz`]);
  makeGzipCache(join(work, "gz"), raw);
  await group(bench, "gzip -> zstd, level 3", [
    {
      name: "cacheport convert",
      command: [cacheport, "convert", join(work, "gz"), join(work, "out"), "--compression", "zstd"],
      before: clear,
    },
    ...local("gzip -dc | zstd -T0", [
      "sh",
      "-c",
      `gzip -dc ${raw}.gz | zstd -q -3 -T0 -f -o ${packed}`,
    ]),
  ]);
  clear();
  for (const path of [raw, `${raw}.gz`, packed, join(work, "gz")])
    rmSync(path, { recursive: true, force: true });
}

/** Caches of 20,000 records. No other tool does this. */
export async function recordGroups(bench: Bench, clear: () => void): Promise<void> {
  const { cacheport, work } = bench;
  const [a, b, out] = ["a", "b", "out"].map((one) => join(work, one)) as [string, string, string];
  makeLargeConfig(a, 20_000, "a");
  makeLargeConfig(b, 20_000, "b");
  const own = (verb: string, ...rest: string[]) => ({
    name: `cacheport ${verb}`,
    command: [cacheport, verb, ...rest],
    before: clear,
  });
  await group(bench, "two caches of 20,000 records", [
    own("merge", a, b, out),
    // The layers are random bytes, no tars whose files could be compared.
    own("diff", a, b, "--no-files"),
    own("inspect", a),
    own("prune", a, "--max-age", "1d", "--dry-run"),
  ]);
  clear();
}
