/**
 * `explain` against BuildKit itself: the cache of one build, and many changed builds from
 * it. Every certain answer has to be what BuildKit reports, and every list of files has to
 * be that of the files that were changed.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { cacheport } from "../helpers/binary.ts";
import { hasPeers, peer, withBuildKit } from "../helpers/buildkit.ts";
import { tempFolder } from "../helpers/temp.ts";

setDefaultTimeout(1_200_000);

const mark = crypto.randomUUID();

const DOCKERFILE = `ARG TAG=latest
FROM base:\${TAG} AS base
ENV LANG=C.UTF-8
WORKDIR /usr/src/app

FROM base AS vendor
COPY --link vendor/ ./vendor/
RUN --network=none --mount=type=bind,source=tools,target=/tools sh /tools/pack.sh > /pack

FROM base AS assets
ARG THEME=light
COPY assets/*.css assets/*.svg ./static/
COPY --exclude=*.map assets/js ./js
RUN --network=none echo $THEME ${mark} > theme && cat static/* > all.css

FROM base AS app
COPY --chown=1000:1000 src ./src
COPY <<CONF /etc/app.conf
port = 80
CONF
COPY --chmod=640 keys/ /etc/keys/
COPY --from=vendor /pack ./pack
COPY --from=assets /usr/src/app/all.css ./
ADD data.tar /data/
RUN --network=none --mount=type=cache,target=/tmp/c cat src/main.c pack > /out

FROM scratch AS final
COPY --from=app /out /bin
COPY LICENSE NOTICE /
`;

/** A member of a tar with one file. */
function tarOf(text: string): Buffer {
  const folder = tempFolder();
  writeFileSync(join(folder, "member.txt"), text);
  const { stdout } = Bun.spawnSync(["tar", "-cf", "-", "--mtime=@0", "-C", folder, "member.txt"]);
  return stdout;
}

function project(): string {
  const folder = tempFolder();
  const files: Record<string, string> = {
    Dockerfile: DOCKERFILE,
    "vendor/a/lib.txt": "lib",
    "vendor/b.txt": "b",
    "tools/pack.sh": `echo packed ${mark}\n`,
    "assets/one.css": "one",
    "assets/two.css": "two",
    "assets/logo.svg": "<svg/>",
    "assets/js/app.js": "js",
    "assets/js/app.map": "map",
    "assets/js/deep/x.js": "x",
    "src/main.c": "int main;",
    "src/util/util.c": "int util;",
    "src/run.sh": "echo run",
    "keys/one.pem": "one",
    LICENSE: "license",
    NOTICE: "notice",
    "unused.txt": "unused",
  };
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(folder, name, ".."), { recursive: true });
    writeFileSync(join(folder, name), text, { mode: 0o644 });
  }
  mkdirSync(join(folder, "src/empty"));
  symlinkSync("main.c", join(folder, "src/link.c"));
  writeFileSync(join(folder, "data.tar"), tarOf("one"));
  return folder;
}

interface Change {
  name: string;
  change?(folder: string): void;
  args?: string[];
  /** The files that the reasons have to name, with what is different; none where nothing is said of files. */
  files?: string[];
}

const write = (path: string, text: string) => (folder: string) =>
  writeFileSync(join(folder, path), text);
const edit = (was: string | RegExp, is: string) => (folder: string) => {
  const path = join(folder, "Dockerfile");
  const text = readFileSync(path, "utf8");
  const edited = text.replace(was, is);
  if (edited === text) throw new Error(`${was} is not in the Dockerfile`);
  writeFileSync(path, edited);
};

const CHANGES: Change[] = [
  { name: "nothing", files: [] },
  {
    name: "content of a file",
    change: write("src/main.c", "int main2;"),
    files: ["src/main.c content"],
  },
  {
    name: "mode of a file",
    change: (folder) => chmodSync(join(folder, "src/run.sh"), 0o775),
    files: ["src/run.sh mode"],
  },
  { name: "a file more", change: write("src/util/new.c", "new"), files: ["src/util/new.c added"] },
  {
    name: "a file less",
    change: (folder) => unlinkSync(join(folder, "src/util/util.c")),
    files: ["src/util/util.c removed"],
  },
  {
    name: "an empty folder less",
    change: (folder) => rmSync(join(folder, "src/empty"), { recursive: true }),
    files: ["src/empty removed"],
  },
  {
    name: "a link to elsewhere",
    change(folder) {
      unlinkSync(join(folder, "src/link.c"));
      symlinkSync("run.sh", join(folder, "src/link.c"));
    },
    files: ["src/link.c link"],
  },
  {
    name: "a file instead of a link",
    change(folder) {
      unlinkSync(join(folder, "src/link.c"));
      writeFileSync(join(folder, "src/link.c"), "int main;");
    },
    files: ["src/link.c type"],
  },
  {
    name: "a file of a wildcard",
    change: write("assets/two.css", "TWO"),
    files: ["assets/two.css content"],
  },
  {
    name: "a file more for a wildcard",
    change: write("assets/three.css", "3"),
    files: ["assets/three.css added"],
  },
  { name: "an excluded file", change: write("assets/js/app.map", "MAP"), files: [] },
  {
    name: "a file beside an excluded one",
    change: write("assets/js/deep/x.js", "X"),
    files: ["assets/js/deep/x.js content"],
  },
  {
    name: "a file under --link",
    change: write("vendor/a/lib.txt", "LIB"),
    files: ["vendor/a/lib.txt content"],
  },
  {
    name: "a file under --chmod",
    change: write("keys/one.pem", "two"),
    files: ["keys/one.pem content"],
  },
  {
    name: "a bind-mounted tool that makes the same",
    change: write("tools/pack.sh", `echo packed ${mark} # again\n`),
  },
  {
    name: "a bind-mounted tool that makes something else",
    change: write("tools/pack.sh", `echo PACKED ${mark}\n`),
  },
  {
    name: "an archive",
    change: (folder) => writeFileSync(join(folder, "data.tar"), tarOf("two")),
    files: ["data.tar content"],
  },
  {
    name: "one of several files of a COPY",
    change: write("NOTICE", "NOTICE"),
    files: ["NOTICE content"],
  },
  { name: "a file that no step takes", change: write("unused.txt", "UNUSED"), files: [] },
  { name: "an argument", args: ["--build-arg", "THEME=dark"], files: [] },
  { name: "a variable of the base stage", change: edit("LANG=C.UTF-8", "LANG=C"), files: [] },
  {
    name: "the working folder",
    change: edit("FROM base AS app\n", "FROM base AS app\nWORKDIR /srv/app\n"),
    files: [],
  },
  { name: "an inline document", change: edit("port = 80", "port = 81"), files: [] },
  {
    name: "a command",
    change: edit("cat src/main.c pack > /out", "cat pack src/main.c > /out"),
    files: [],
  },
  {
    name: "an instruction more",
    change: edit("ADD data.tar", "RUN --network=none echo more > /more\nADD data.tar"),
    files: [],
  },
  { name: "a label", change: edit("COPY LICENSE", "LABEL a=b\nCOPY LICENSE"), files: [] },
  {
    name: "a file that is ignored now",
    change: write(".dockerignore", "src/util/util.c\n"),
    files: ["src/util/util.c removed"],
  },
  { name: "an owner", change: edit("--chown=1000:1000", "--chown=1001:1000"), files: [] },
  { name: "a stage without the cache", args: ["--no-cache-filter", "assets"], files: [] },
  { name: "no cache at all", args: ["--no-cache"], files: [] },
  { name: "another target", args: ["--target", "assets"], files: [] },
];

/** Builds and says of each vertex whether BuildKit took it from a cache. */
async function build(
  context: string,
  metadata: string,
  ...more: string[]
): Promise<Map<string, boolean>> {
  const { code, stderr } = await peer(
    "env",
    "BUILDX_METADATA_PROVENANCE=max",
    "docker",
    "buildx",
    "build",
    "--progress=rawjson",
    "--provenance=false",
    "--metadata-file",
    metadata,
    "--output",
    "type=cacheonly",
    ...more,
    context,
  );
  if (code !== 0) throw new Error(stderr.slice(-2000));
  const cached = new Map<string, boolean>();
  for (const line of stderr.split("\n")) {
    if (!line.startsWith("{")) continue;
    const { vertexes = [], statuses = [] } = JSON.parse(line);
    for (const vertex of vertexes)
      cached.set(vertex.digest, cached.get(vertex.digest) === true || vertex.cached === true);
    // What is fetched is a result of a cache, whether it then ends as CACHED or not.
    for (const { vertex, id } of statuses)
      if (/^(?:extracting )?sha256:/.test(id)) cached.set(vertex, true);
  }
  return cached;
}

/** The digest by which logs know each step. */
function vertices(metadata: string): Map<string, string> {
  const { "buildx.build.provenance": predicate } = JSON.parse(readFileSync(metadata, "utf8"));
  return new Map(
    Object.entries(predicate.buildConfig.digestMapping as Record<string, string>).map(
      ([digest, id]) => [id, digest],
    ),
  );
}

describe.skipIf(!hasPeers)("explain and BuildKit agree", () => {
  test(`${CHANGES.length} changed builds`, () =>
    withBuildKit(async (buildkit) => {
      const first = project();
      const work = tempFolder();
      const cache = join(work, "cache");
      const was = join(work, "a.json");
      await buildkit.prune();
      await build(first, was, "--cache-to", `type=local,dest=${cache},mode=max`);
      const faults: unknown[] = [];
      let certain = 0;
      let all = 0;
      for (const { name, change, args = [], files } of CHANGES) {
        const context = tempFolder();
        cpSync(first, context, { recursive: true, verbatimSymlinks: true });
        change?.(context);
        const metadata = join(work, "b.json");
        await buildkit.prune();
        const reported = await build(
          context,
          metadata,
          "--cache-from",
          `type=local,src=${cache}`,
          ...args,
        );
        const byId = vertices(metadata);
        const run = await cacheport([
          "explain",
          cache,
          "--build",
          metadata,
          "--was",
          was,
          "--context",
          context,
          "--json",
        ]);
        if (run.code !== 0) throw new Error(run.stderr);
        const { steps } = run.json();
        for (const { id, name: step, status, why } of steps) {
          const isCached = reported.get(byId.get(id) ?? "") ?? false;
          all++;
          if (status === "maybe") continue;
          certain++;
          if ((status === "hit") !== isCached)
            faults.push({ name, id, step, status, isCached, why });
        }
        if (files === undefined) continue;
        const named = steps.flatMap(({ why }: any) =>
          why.flatMap((reason: any) =>
            (reason.files ?? []).map(({ path, change: kind }: any) => `${path} ${kind}`),
          ),
        );
        if ([...new Set(named)].toSorted().join() !== files.toSorted().join())
          faults.push({ name, named, files });
      }
      console.log(`${certain} of ${all} answers are certain`);
      expect(faults).toEqual([]);
      expect(certain / all).toBeGreaterThan(0.8);
    }));
});
