/** No value from outside drives the terminal or forges a line of a CI job's log. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import type { RunResult } from "./helpers/binary.ts";
import { addBlob, writeLayout } from "./helpers/layout.ts";
import { started } from "./helpers/registry-client.ts";
import { TestServer } from "./helpers/test-registry.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

/** What a hostile author would write: commands of GitHub and Azure, colours, marks that turn text round. */
const EVIL = [
  "x\n::error file=a::pwned\r##teamcity[x]",
  "::add-mask::a ##vso[task.setvariable variable=a]b ##[error]c",
  "\x1b[2J\x9b31m\x7f\u202eb\u2066c\u061c",
];

/** Lines that a CI job would take for a command, and characters that drive a terminal. */
function forged({ stdout, stderr }: RunResult): string[] {
  return `${stdout}\n${stderr}`
    .split("\n")
    .filter(
      (line) =>
        /^\s*::[a-z]/i.test(line) ||
        /##[\w.]*\[/.test(line) ||
        /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/u.test(line),
    );
}

const EMPTY_CONFIG = "application/vnd.oci.empty.v1+json";

/** A layout in which every text that its author chooses is hostile. */
function hostileLayout(evil: string): string {
  const layout = join(tempFolder(), "layout");
  const layer = addBlob(layout, "layer", "application/vnd.oci.image.layer.v1.tar");
  const config = addBlob(
    layout,
    {
      architecture: evil,
      os: evil,
      variant: evil,
      author: evil,
      config: { Env: [evil], Cmd: [evil], Labels: { [evil]: evil }, User: evil, WorkingDir: evil },
      rootfs: { type: evil, diff_ids: [evil] },
      history: [{ created_by: evil, comment: evil, author: evil }],
    },
    "application/vnd.oci.image.config.v1+json",
  );
  const manifest = (mediaType: string, configType: object, extra: object) =>
    addBlob(
      layout,
      { schemaVersion: 2, mediaType, config: configType, layers: [layer], ...extra },
      mediaType,
    );
  const annotations = { [evil]: evil, "org.opencontainers.image.title": evil };
  const image = manifest("application/vnd.oci.image.manifest.v1+json", config, { annotations });
  const artifact = manifest(
    "application/vnd.oci.image.manifest.v1+json",
    addBlob(layout, {}, EMPTY_CONFIG),
    { annotations, artifactType: evil, layers: [{ ...layer, mediaType: evil, annotations }] },
  );
  const unknown = addBlob(layout, { schemaVersion: 2, mediaType: evil }, evil);
  const missing = { ...image, digest: `sha256:${"0".repeat(64)}` };
  const index = addBlob(
    layout,
    {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: [
        { ...image, platform: { os: evil, architecture: evil }, annotations },
        { ...missing, platform: { os: "linux", architecture: "amd64", variant: evil } },
      ],
    },
    "application/vnd.oci.image.index.v1+json",
  );
  const cacheConfig = addBlob(
    layout,
    {
      layers: [{ blob: evil, parent: -1 }],
      records: [{ digest: evil, inputs: [[{ selector: evil, link: 9 }]] }],
    },
    "application/vnd.buildkit.cacheconfig.v0",
  );
  const cache = manifest("application/vnd.oci.image.manifest.v1+json", cacheConfig, {});
  const named = (entry: object, name: string) => ({
    ...entry,
    annotations: {
      "org.opencontainers.image.ref.name": name,
      "io.containerd.image.name": name,
      [evil]: evil,
    },
  });
  writeLayout(layout, [
    named(image, evil),
    named(artifact, `${evil}2`),
    named(unknown, `${evil}3`),
    named(missing, `${evil}4`),
    named(index, `${evil}5`),
    named(cache, "cache"),
    named(image, "image"),
    named(index, "index"),
    named(artifact, "artifact"),
    named(unknown, "unknown"),
  ]);
  return layout;
}

describe.each(EVIL.map((evil) => [evil]))("a layout full of %j", (evil) => {
  const layout = hostileLayout(evil);
  const names = ["", ":image", ":index", ":unknown", ":cache"];
  const commands = [
    ["ls", layout],
    ["ls", "--tree", layout],
    ["copy", "--all", layout, "new"],
    ["copy", "--all", layout, "new.tar"],
    ["gc", layout, "--dry-run"],
    ["verify", layout],
    ["verify", "--deep", layout],
    ...names.flatMap((name) => [
      ["inspect", layout + name],
      ["inspect", "--files", layout + name],
      ["resolve", "--platform", "linux/arm64", layout + name],
      ["convert", layout + name, "new"],
      ["copy", layout + name, "new"],
      ["merge", layout + name, fixture("app-oci-index"), "new"],
      ["diff", layout + name, fixture("app-oci-index")],
      ["prune", "--dry-run", layout + name, "--max-size", "1"],
      ["tag", layout + name, "v2", "--dry-run"],
      ["untag", layout + name, "--dry-run"],
    ]),
  ];
  test("shows it escaped, whatever the command", async () => {
    const cwd = tempFolder();
    for (const command of commands)
      for (const extra of [["--progress", "json"], ["--json"]]) {
        const run = await cacheport([...command, ...extra], { cwd });
        expect({ command, forged: forged(run) }).toEqual({ command, forged: [] });
        expect(run.stderr).not.toContain("This is a fault in cacheport");
        if (extra[0] === "--json" && run.stdout !== "") JSON.parse(run.stdout);
      }
  }, 120_000);
});

test("what a registry says is shown escaped", async () => {
  for (const evil of EVIL) {
    const server = await started(
      new TestServer(() => ({
        status: 403,
        body: JSON.stringify({ errors: [{ code: evil, message: evil, detail: evil }] }),
      })).listen(),
    );
    for (const extra of [[], ["--json"]]) {
      const run = await cacheport(["ls", `${server.domain}/app`, ...extra]);
      expect(run.code).toBe(5);
      expect(forged(run)).toEqual([]);
    }
  }
});
