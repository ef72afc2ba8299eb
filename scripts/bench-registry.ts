/** The groups of scripts/bench.ts that need a registry. */
import { join } from "node:path";
import { makeCache } from "./bench-data.ts";
import { group, peer, synced } from "./bench-run.ts";
import type { Bench, Contender } from "./bench-run.ts";

let pushes = 0;

/** Where skopeo remembers in which repository a blob was seen: it would mount what it pushed before. */
const SKOPEO_MEMORY = "/var/lib/containers/cache";

/** A repository of its own for each run, so that nothing is there already. */
function fresh(registry: string): (contender: Contender) => Contender {
  return (contender) => {
    const { command } = contender;
    const before = (): void => {
      if (contender.isPeer) Bun.spawnSync([command[0] as string, "rm", "-rf", SKOPEO_MEMORY]);
      const repository = `${registry}/bench/${process.pid}-${pushes++}`;
      contender.command = command.map((word) => word.replace("REPO", repository));
    };
    return Object.assign(contender, { before });
  };
}

/** Commands that push the layout to `REPO:latest`. */
function pushers(bench: Bench, layout: string): Contender[] {
  const { cacheport } = bench;
  const oras = ["oras", "cp", "--to-plain-http", "--from-oci-layout", `${layout}:latest`];
  return [
    { name: "cacheport copy", command: [cacheport, "copy", layout, "REPO:latest"] },
    ...peer(bench, "skopeo copy", [
      "skopeo",
      "copy",
      "--dest-tls-verify=false",
      `oci:${layout}:latest`,
      "docker://REPO:latest",
    ]),
    ...peer(bench, "oras cp", [...oras, "REPO:latest"]),
    ...peer(bench, "crane push", ["crane", "push", "--insecure", layout, "REPO:latest"]),
  ];
}

/** Commands that pull `source` into the folder `out`, which is removed before each. */
function pullers(bench: Bench, source: string, out: string, clear: () => void): Contender[] {
  const oras = ["oras", "cp", "--from-plain-http", "--to-oci-layout", source];
  return [
    { name: "cacheport copy", command: [bench.cacheport, "copy", source, out], before: clear },
    ...peer(
      bench,
      "skopeo copy",
      ["skopeo", "copy", "--src-tls-verify=false", `docker://${source}`, `oci:${out}:latest`],
      clear,
    ),
    ...peer(bench, "oras cp", [...oras, `${out}:latest`], clear),
    ...peer(
      bench,
      "crane pull --format=oci",
      ["crane", "pull", "--insecure", "--format=oci", source, out],
      clear,
    ),
  ];
}

/** Pushes, pulls and mounted copies of one cache. */
export async function registryGroups(bench: Bench, clear: () => void): Promise<void> {
  const { registry, cacheport, work } = bench;
  if (!registry) return;
  const out = join(work, "out");
  const layout = join(work, "cache");
  await group(bench, "folder -> registry", pushers(bench, layout).map(fresh(registry)));
  const source = `${registry}/bench/${process.pid}-source:latest`;
  Bun.spawnSync([cacheport, "copy", layout, source]);
  const pull = pullers(bench, source, out, clear);
  const promised = [...pull, ...synced(pull, "crane pull --format=oci", out)];
  await group(bench, "registry -> folder", promised);
  const oras = ["oras", "cp", "--from-plain-http", "--to-plain-http", source];
  const mounted: Contender[] = [
    { name: "cacheport copy", command: [cacheport, "copy", source, "REPO:latest"] },
    ...peer(bench, "skopeo copy", [
      "skopeo",
      "copy",
      "--src-tls-verify=false",
      "--dest-tls-verify=false",
      `docker://${source}`,
      "docker://REPO:latest",
    ]),
    ...peer(bench, "oras cp", [...oras, "REPO:latest"]),
    ...peer(bench, "crane copy", ["crane", "copy", "--insecure", source, "REPO:latest"]),
  ];
  await group(bench, "registry -> registry, mounted", mounted.map(fresh(registry)));
  clear();
}

/** Pulls and pushes of 2,000 layers of 20 kB, and the names of a repository. */
export async function smallBlobGroups(bench: Bench, clear: () => void): Promise<void> {
  const { registry, cacheport, work } = bench;
  const layout = join(work, "many");
  const out = join(work, "out");
  makeCache(
    layout,
    Array.from({ length: 2000 }, () => 20_000),
  );
  await group(bench, "2,000 layers of 20 kB, folder -> folder", [
    { name: "cacheport copy", command: [cacheport, "copy", layout, out], before: clear },
    ...peer(
      bench,
      "skopeo copy",
      ["skopeo", "copy", `oci:${layout}:latest`, `oci:${out}:latest`],
      clear,
    ),
    ...peer(
      bench,
      "oras cp",
      ["oras", "cp", "--from-oci-layout", "--to-oci-layout", `${layout}:latest`, `${out}:latest`],
      clear,
    ),
  ]);
  if (!registry) return;
  const push = pushers(bench, layout).map(fresh(registry));
  await group(bench, "2,000 layers of 20 kB, folder -> registry", push);
  const source = `${registry}/bench/${process.pid}-many:latest`;
  Bun.spawnSync([cacheport, "copy", layout, source]);
  const pull = pullers(bench, source, out, clear);
  await group(bench, "2,000 layers of 20 kB, registry -> folder", pull);
  for (let n = 0; n < 200; n++) Bun.spawnSync([cacheport, "tag", source, `tag-${n}`]);
  const repository = source.replace(":latest", "");
  await group(bench, "200 tags of one digest", [
    // The others list names alone.
    { name: "cacheport ls --names", command: [cacheport, "ls", "--names", repository] },
    { name: "cacheport ls", command: [cacheport, "ls", repository] },
    ...peer(bench, "crane ls", ["crane", "ls", "--insecure", repository]),
    ...peer(bench, "oras repo tags", ["oras", "repo", "tags", "--plain-http", repository]),
  ]);
  clear();
}

/** Pulls over a link of 60 ms and 100 Mbit/s, where concurrency decides and not cost. */
export async function slowLinkGroups(bench: Bench, clear: () => void): Promise<void> {
  const { registry, cacheport, work } = bench;
  if (!registry) return;
  const layout = join(work, "forty");
  makeCache(
    layout,
    Array.from({ length: 40 }, () => 500_000),
  );
  const link = Bun.spawn(
    [process.execPath, join(import.meta.dir, "bench-link.ts"), registry, "60", "100"],
    { stdin: "pipe", stdout: "pipe", stderr: "inherit" },
  );
  try {
    const { value } = await link.stdout.getReader().read();
    const slow = `127.0.0.1:${new TextDecoder().decode(value).trim()}`;
    const name = `bench/${process.pid}-forty:latest`;
    Bun.spawnSync([cacheport, "copy", layout, `${registry}/${name}`]);
    const pull = pullers(bench, `${slow}/${name}`, join(work, "out"), clear);
    await group(bench, "40 layers of 500 kB over 60 ms and 100 Mbit/s, registry -> folder", pull);
    const push = pushers(bench, layout).map(fresh(slow));
    await group(bench, "40 layers of 500 kB over 60 ms and 100 Mbit/s, folder -> registry", push);
  } finally {
    link.kill();
  }
  clear();
}
