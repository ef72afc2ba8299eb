/**
 * The recipes of README's "In CI", taken out of its text and run: as a runner runs them,
 * against a registry that wants a login.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BINARY } from "./helpers/binary.ts";
import { canChroot, commandIn, USER } from "./helpers/chroot.ts";
import { vector } from "./helpers/explain-vectors.ts";
import { buildImage, canBuildImage } from "./helpers/image.ts";
import { blobFile, readDocument, readIndex } from "./helpers/layout.ts";
import { ended } from "./helpers/output.ts";
import { started } from "./helpers/registry-client.ts";
import { load } from "./helpers/registry-commands.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

const README = readFileSync(join(import.meta.dir, "..", "README.md"), "utf8");
const recipes: any[] = [...README.matchAll(/^```yaml\n([^]*?)^```$/gm)].map(([, text = ""]) =>
  Bun.YAML.parse(text),
);
const gitlab = recipes.find((recipe) => recipe["merge-cache"]);
const kubernetes = recipes.find(({ kind }) => kind === "Job");
const workflow: any[] = recipes.find(
  (recipe) => Array.isArray(recipe) && recipe.some(({ run }) => run),
);

const LOGIN = { username: "gitlab-ci-token", password: "job'$token `word`" };

/** A registry that answers nobody without the login. */
const registryWithLogin = () => started(TestRegistry.start({ basic: LOGIN }));

/** A folder with a login as Docker keeps it. */
function dockerConfig(registry: TestRegistry): string {
  const folder = tempFolder();
  const auth = Buffer.from(`${LOGIN.username}:${LOGIN.password}`).toString("base64");
  const auths = { [registry.domain]: { auth } };
  writeFileSync(join(folder, "config.json"), JSON.stringify({ auths }));
  return folder;
}

/** A folder with the program under its own name. */
function programFolder(): string {
  const folder = tempFolder();
  symlinkSync(BINARY, join(folder, "cacheport"));
  return folder;
}

/** Puts a cache there; the layers that the vectors were published without are empty. */
function loadPublished(registry: TestRegistry, name: string, layout: string): string {
  const [{ digest }] = readIndex(layout).manifests;
  const manifest = readDocument(layout, digest);
  for (const each of [manifest.config, ...manifest.layers]) {
    const path = blobFile(layout, each.digest);
    const bytes = existsSync(path) ? readFileSync(path) : new Uint8Array();
    registry.repository(name).blobs.set(each.digest, bytes);
  }
  return registry.addManifest(name, manifest, "main");
}

/** Runs a command; not in this process's way, which may be the registry that it asks. */
async function run(command: readonly string[], env: Record<string, string>, cwd = tempFolder()) {
  const child = Bun.spawn([...command], {
    cwd,
    env: { PATH: process.env["PATH"], HOME: "/nonexistent", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  return ended(child);
}

/** The shells in which GitLab's runner executes a script, as it starts them. */
const SHELLS = [
  ["bash", ["bash", "-c", "set -eo pipefail\n$0"]],
  ["sh", ["sh", "-c", "set -e\n$0"]],
] as const;

describe.each(SHELLS)("the GitLab jobs, by %s", (_, [shell, option, frame]) => {
  /** Runs the script of a job as CI would. */
  async function job(name: string, registry: TestRegistry, more: Record<string, string> = {}) {
    const script = gitlab[name].script.join("\n");
    return await run([shell, option, frame.replace("$0", () => script)], {
      PATH: `${programFolder()}:${process.env["PATH"]}`,
      CI_REGISTRY_IMAGE: `${registry.domain}/group/app`,
      CI_REGISTRY_USER: LOGIN.username,
      CI_REGISTRY_PASSWORD: LOGIN.password,
      CI_COMMIT_REF_SLUG: "feature-1",
      ...more,
    });
  }

  test("seed-cache begins a branch with the cache of main, once", async () => {
    const registry = await registryWithLogin();
    const main = load(registry, "group/app/cache", fixture("multi-cache-amd64"), "main");
    expect((await job("seed-cache", registry)).code).toBe(0);
    const { tags } = registry.repository("group/app/cache");
    expect(Object.fromEntries(tags)).toEqual({ main, "feature-1": main });
    const other = load(registry, "group/app/cache", fixture("multi-cache-arm64"), "main");
    expect((await job("seed-cache", registry)).code).toBe(0);
    expect(Object.fromEntries(tags)).toEqual({ main: other, "feature-1": main });
  });

  test("seed-cache lets the first pipeline pass, which has no cache, but not a wrong login", async () => {
    const registry = await registryWithLogin();
    expect((await job("seed-cache", registry)).code).toBe(0);
    load(registry, "group/app/cache", fixture("multi-cache-amd64"), "other");
    expect((await job("seed-cache", registry)).code).toBe(0);
    expect([...registry.repository("group/app/cache").tags.keys()]).toEqual(["other"]);
    const wrong = await job("seed-cache", registry, { CI_REGISTRY_PASSWORD: "wrong" });
    expect(wrong.code).not.toBe(0);
    expect(wrong.stderr).toContain("Cannot");
    expect(wrong.stderr + wrong.stdout).not.toContain(LOGIN.password);
  });

  test("merge-cache writes what both jobs made under main, and removes what main was", async () => {
    const registry = await registryWithLogin();
    const repository = registry.repository("group/app/cache");
    const amd64 = load(registry, "group/app/cache", fixture("multi-cache-amd64"), "amd64");
    const arm64 = load(registry, "group/app/cache", fixture("multi-cache-arm64"), "arm64");
    const old = load(registry, "group/app/cache", fixture("donorA"), "main");
    const merged = await job("merge-cache", registry);
    expect([merged.code, merged.code === 0 ? "" : merged.stderr]).toEqual([0, ""]);
    const main = repository.tags.get("main") as string;
    expect([...repository.tags.keys()].toSorted()).toEqual(["amd64", "arm64", "main"]);
    expect(new Set([main, amd64, arm64, old]).size).toBe(4);
    expect([...repository.manifests.keys()].toSorted()).toEqual([amd64, arm64, main].toSorted());
    // Every layer of both is a layer of the merged one, and is there.
    const layers = (digest: string): Set<string> => {
      const document = JSON.parse(Buffer.from(repository.manifests.get(digest)!.bytes).toString());
      return new Set(document.layers.map((layer: any) => layer.digest));
    };
    const both = layers(amd64).union(layers(arm64));
    expect(both.size).toBeGreaterThan(layers(amd64).size);
    expect(layers(main)).toEqual(both);
    for (const digest of both) expect(repository.blobs.has(digest)).toBe(true);
  });
});

test("the workflow's steps explain the build in the job's summary, and leave a healthy cache as it is", async () => {
  const registry = await registryWithLogin();
  const before = loadPublished(registry, "owner/app/cache", vector("ci-app", "A", "cache"));
  const { run: script, env } = workflow.find((step) => step.run);
  expect(env).toEqual({ METADATA: "${{ steps.build.outputs.metadata }}" });
  const [folder, checkout] = [tempFolder(), tempFolder()];
  cpSync(vector("ci-app", "B-sha", "context"), checkout, { recursive: true });
  const filled = script.replaceAll("ghcr.io", registry.domain);
  const summary = join(folder, "summary.md");
  const step = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", filled];
  const done = await run(
    step,
    {
      PATH: `${programFolder()}:${process.env["PATH"]}`,
      DOCKER_CONFIG: dockerConfig(registry),
      METADATA: readFileSync(vector("ci-app", "B-sha", "metadata.json"), "utf8"),
      RUNNER_TEMP: folder,
      GITHUB_STEP_SUMMARY: summary,
    },
    checkout,
  );
  expect([done.code, done.code === 0 ? "" : done.stderr]).toEqual([0, ""]);
  // The build changed a variable and no file: COPY . . is a hit.
  const lines = readFileSync(summary, "utf8").split("\n");
  expect(lines.find((line) => line.includes("COPY . ."))).toContain("hit");
  expect(lines.join("\n")).toMatch(/miss/i);
  expect(existsSync(join(checkout, "build.json"))).toBe(false);
  expect(registry.repository("owner/app/cache").tags.get("main")).toBe(before);
});

describe.skipIf(!canBuildImage || !canChroot)("the Kubernetes job, in the image", () => {
  const [container] = kubernetes.spec.template.spec.containers;
  let root = "";
  let config: any;

  beforeAll(() => {
    const outdir = tempFolder();
    expect(buildImage(outdir)).toEqual({ code: 0, stderr: "" });
    const layout = join(outdir, "image");
    const [index] = readIndex(layout).manifests;
    const [{ digest }] = readDocument(layout, index.digest).manifests;
    const manifest = readDocument(layout, digest);
    ({ config } = readDocument(layout, manifest.config.digest));
    root = tempFolder();
    for (const layer of manifest.layers)
      Bun.spawnSync(["tar", "-xzpf", blobFile(layout, layer.digest), "-C", root]);
    // What a runtime mounts there.
    mkdirSync(join(root, "proc"));
  }, 120_000);

  test("asks for no more than the image is made for", () => {
    expect(container.securityContext).toEqual({
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      allowPrivilegeEscalation: false,
    });
    // A name instead of a number is refused by runAsNonRoot.
    expect(config.User).toBe(`${USER}:${USER}`);
    expect(config.Entrypoint).toEqual(["/usr/bin/cacheport"]);
    const mounts = container.volumeMounts.map(({ name }: any) => name);
    expect(kubernetes.spec.template.spec.volumes.map(({ name }: any) => name)).toEqual(mounts);
  });

  test("converts the cache in its registry: nobody, nothing to write to, the login of a secret", async () => {
    const registry = await registryWithLogin();
    load(registry, "app/cache", fixture("app-oci-index"), "main");
    mountSecret(readFileSync(join(dockerConfig(registry), "config.json")));
    const args = container.args.map((arg: string) =>
      arg.replace("registry.example", registry.domain),
    );
    const env = Object.fromEntries(container.env.map(({ name, value }: any) => [name, value]));
    const done = await run(commandIn(root, tempFolder(), args), env);
    expect([done.code, done.code === 0 ? "" : done.stderr]).toEqual([0, ""]);
    // What BuildKit calls the same cache in that shape.
    const [expected] = readIndex(fixture("app-image-manifest")).manifests;
    expect(registry.repository("app/cache").tags.get("main")).toBe(expected.digest);
  });

  /** Puts the secret where the job mounts it, by the links that a kubelet makes for it. */
  function mountSecret(bytes: Uint8Array): void {
    const [mount] = container.volumeMounts;
    const [{ secret }] = kubernetes.spec.template.spec.volumes;
    const [{ key, path }] = secret.items;
    expect([key, mount.readOnly]).toEqual([".dockerconfigjson", true]);
    const folder = join(root, mount.mountPath);
    mkdirSync(join(folder, "..2026_01_02"), { recursive: true });
    writeFileSync(join(folder, "..2026_01_02", path), bytes, { mode: 0o644 });
    symlinkSync("..2026_01_02", join(folder, "..data"));
    symlinkSync(join("..data", path), join(folder, path));
  }
});
