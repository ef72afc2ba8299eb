/** A registry that takes no cache in index shape, through the binary. */
import { beforeAll, expect, test } from "bun:test";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { BINARY } from "./helpers/binary.ts";
import { readIndex } from "./helpers/layout.ts";
import { started } from "./helpers/registry-client.ts";
import { ask, load, repositoryFaults, runHint } from "./helpers/registry-commands.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

const TYPES = {
  "image-manifest": "application/vnd.oci.image.manifest.v1+json",
  "oci-index": "application/vnd.oci.image.index.v1+json",
  "docker-list": "application/vnd.docker.distribution.manifest.list.v2+json",
};
/** One cache, as BuildKit wrote it in two shapes. */
const [IMAGE, INDEX] = ["app-image-manifest", "app-oci-index"].map(
  (name) => readIndex(fixture(name)).manifests[0].digest,
);

/** Takes an index only when all that it lists are manifests, as distribution 3 does. */
let strict: TestRegistry;
beforeAll(async () => {
  strict = await started(TestRegistry.start({ strict: true }));
});

let count = 0;
const fresh = () => `${strict.domain}/team/cache-${++count}`;
const tagsOf = (at: string) =>
  Object.fromEntries(strict.repository(at.slice(at.indexOf("/") + 1)).tags);

test.each(["oci-index", "docker-list"])(
  "--to auto keeps %s where it can and lands the image manifest here",
  async (shape) => {
    const at = fresh();
    const args = ["convert", fixture(`app-${shape}`), `${at}:main`];
    const run = await ask(strict, [...args, "--to", "auto", "--json"]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.json()).toMatchObject({
      shape: "image-manifest",
      digest: IMAGE,
      blobs: { copied: 8, skipped: 0 },
    });
    expect(tagsOf(at)).toEqual({ main: IMAGE });
    const puts = strict.requests("PUT", /manifests\/main/).slice(-2);
    expect(puts.map(({ headers }) => headers["content-type"])).toEqual([
      TYPES[shape as "oci-index"],
      TYPES["image-manifest"],
    ]);
    const open = await started(TestRegistry.start());
    const kept = await ask(open, [
      "convert",
      fixture(`app-${shape}`),
      `${open.domain}/x:auto`,
      "--to",
      "auto",
      "--json",
    ]);
    expect(kept.json().shape).toBe(shape);
  },
);

// Any source that a shell would take apart.
const odd = () => {
  const layout = join(tempFolder(), "Joe's cache");
  cpSync(fixture("app-oci-index"), layout, { recursive: true });
  return layout;
};
test.each([
  ["convert", "an OCI index", ["--to", "oci-index"]],
  ["convert", "a Docker manifest list", ["--to", "docker-list"]],
  ["copy", "an OCI index", []],
])("%s of %s is refused with the command that works", async (command, shape, more) => {
  const at = fresh();
  const source = odd();
  const run = await ask(strict, [command, source, `${at}:main`, "--json", ...more]);
  expect(run.code).toBe(5);
  const { code, message, hint } = run.json().error;
  expect(code).toBe("REGISTRY_REJECTED");
  expect(message).toBe(
    `Cannot write manifest "${at}:main": this registry does not take caches in the shape of ${shape} (400 MANIFEST_BLOB_UNKNOWN: blob unknown to registry)`,
  );
  const quoted = `'${source.replace("'", "'\\''")}'`;
  expect(hint).toBe(
    `Write it as an image manifest: cacheport convert ${quoted} ${at}:main --to image-manifest`,
  );
  expect(run.stderr).toBe(`cacheport: ${message}\nhint: ${hint}\n`);
  expect(tagsOf(at)).toEqual({});
  expect(await runHint(hint, BINARY)).toBe(0);
  expect(tagsOf(at)).toEqual({ main: IMAGE });
});

test("a refusal in place leaves the tag", async () => {
  const at = fresh();
  load(strict, at.slice(at.indexOf("/") + 1), fixture("app-image-manifest"), "main");
  const run = await ask(strict, ["convert", `${at}:main`, "--to=oci-index"]);
  expect(run.code).toBe(5);
  expect(run.stderr).toContain(`convert ${at}:main ${at}:main --to image-manifest`);
  expect(tagsOf(at)).toEqual({ main: IMAGE });
});

test("tag names the command as well", async () => {
  const at = fresh();
  const name = at.slice(at.indexOf("/") + 1);
  // It was there before the registry became strict.
  load(strict, name, fixture("app-oci-index"), "main");
  const run = await ask(strict, ["tag", `${at}:main`, "new", "--json"]);
  const { hint } = run.json().error;
  expect(hint).toEndWith(`${at}:main ${at}:new --to image-manifest`);
  expect(await runHint(hint, BINARY)).toBe(0);
  expect(tagsOf(at)).toEqual({ main: INDEX, new: IMAGE });
});

test("copy from another registry, and copy --all, name the entry that was refused", async () => {
  const at = fresh();
  const source = { at: fresh() };
  const name = source.at.slice(source.at.indexOf("/") + 1);
  load(strict, name, fixture("app-oci-index"), "main");
  const run = await ask(strict, ["copy", `${source.at}:main`, at, "--json"]);
  expect(run.json().error.hint).toEndWith(
    `convert ${source.at}:main ${at}:main --to image-manifest`,
  );
  const all = await ask(strict, ["copy", "--all", source.at, at, "--json"]);
  expect(all.json().error.hint).toEndWith(
    `convert ${source.at}:main ${at}:main --to image-manifest`,
  );
  const layout = fixture("app-docker-list");
  const from = `type=local,src=${layout}`;
  const local = await ask(strict, ["copy", "--all", from, at, "--json"]);
  expect(local.json().error.hint).toEndWith(
    `convert ${from},tag=latest ${at}:latest --to image-manifest`,
  );
  expect(tagsOf(at)).toEqual({});
  expect(await runHint(local.json().error.hint, BINARY)).toBe(0);
  expect(tagsOf(at)).toEqual({ latest: IMAGE });
});

test("an index of manifests is no such cache", async () => {
  const at = fresh();
  for (const name of ["multi-image", "multi-cache", "image-attested"]) {
    const run = await ask(strict, ["copy", fixture(name), `${at}:${name}`]);
    expect(run.code).toBe(0);
  }
  expect(repositoryFaults(strict, at.slice(at.indexOf("/") + 1))).toEqual([]);
});
