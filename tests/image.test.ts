/** The image, read with other eyes than those that wrote it, and run by others. */
import { beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { cacheport } from "./helpers/binary.ts";
import { buildImage, canBuildImage } from "./helpers/image.ts";
import { blobFile, layoutFaults, readDocument, readIndex } from "./helpers/layout.ts";
import { fixtureCopy, tempFolder } from "./helpers/temp.ts";

/** Milliseconds for what moves the whole image, on a busy machine. */
const BUILD_TIME = 120_000;

const ROOT = join(import.meta.dir, "..");
const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
const USER = 65532;

describe.skipIf(!canBuildImage)("npm run image", () => {
  let outdir = "";
  let layout = "";
  let manifest: any;
  let config: any;

  beforeAll(() => {
    outdir = tempFolder();
    layout = join(outdir, "image");
    expect(buildImage(outdir)).toEqual({ code: 0, stderr: "" });
    const [entry] = readIndex(layout).manifests;
    const [platform] = readDocument(layout, entry.digest).manifests;
    expect(platform.platform).toEqual({ architecture: "amd64", os: "linux" });
    manifest = readDocument(layout, platform.digest);
    config = readDocument(layout, manifest.config.digest);
  }, BUILD_TIME);

  test(
    "writes a sound layout, with the version as its name",
    async () => {
      expect(layoutFaults(layout)).toEqual([]);
      const { code } = await cacheport(["verify", "--deep", layout]);
      expect(code).toBe(0);
      const { json } = await cacheport(["ls", layout, "--json"]);
      expect(json()).toMatchObject([
        {
          refName: version,
          imageName: `docker.io/library/cacheport:${version}`,
          kind: "index",
        },
      ]);
    },
    BUILD_TIME,
  );

  test("writes the same into an archive", async () => {
    const resolve = async (place: string) =>
      (await cacheport(["resolve", place, "--json"])).json().digest;
    expect(await resolve(join(outdir, "image.tar"))).toBe(await resolve(layout));
  });

  test(
    "runs as nobody, in a folder to mount over",
    () => {
      expect(config).toMatchObject({
        architecture: "amd64",
        os: "linux",
        config: {
          User: "65532:65532",
          Entrypoint: ["/usr/bin/cacheport"],
          WorkingDir: "/work",
          Labels: { "org.opencontainers.image.version": version },
        },
      });
      const layer = readFileSync(blobFile(layout, manifest.layers[0].digest));
      const digest = createHash("sha256").update(gunzipSync(layer)).digest("hex");
      expect(config.rootfs.diff_ids).toEqual([`sha256:${digest}`]);
    },
    BUILD_TIME,
  );

  test(
    "holds the program, its five libraries and nothing else",
    () => {
      const layer = blobFile(layout, manifest.layers[0].digest);
      const list = Bun.spawnSync(["tar", "--numeric-owner", "-tvzf", layer]);
      const members = list.stdout
        .toString()
        .trimEnd()
        .split("\n")
        .map((line) => line.split(/\s+/))
        .map(([mode, owner, , , , path]) => `${mode} ${owner} ${path}`);
      expect(members).toEqual([
        "drwxr-xr-x 0/0 lib/",
        "drwxr-xr-x 0/0 lib/x86_64-linux-gnu/",
        "-rwxr-xr-x 0/0 lib/x86_64-linux-gnu/libc.so.6",
        "-rwxr-xr-x 0/0 lib/x86_64-linux-gnu/libdl.so.2",
        "-rwxr-xr-x 0/0 lib/x86_64-linux-gnu/libm.so.6",
        "-rwxr-xr-x 0/0 lib/x86_64-linux-gnu/libpthread.so.0",
        "drwxr-xr-x 0/0 lib64/",
        "-rwxr-xr-x 0/0 lib64/ld-linux-x86-64.so.2",
        "drwxrwxrwt 0/0 tmp/",
        "drwxr-xr-x 0/0 usr/",
        "drwxr-xr-x 0/0 usr/bin/",
        "-rwxr-xr-x 0/0 usr/bin/cacheport",
        "drwxr-xr-x 65532/65532 work/",
      ]);
    },
    BUILD_TIME,
  );

  test("replaces an image that it wrote, and no other folder", () => {
    const other = tempFolder();
    mkdirSync(join(other, "image"));
    writeFileSync(join(other, "image", "precious"), "");
    const result = buildImage(other);
    expect(result.code).not.toBe(0);
    expect(result.stderr).toContain("it is no layout");
    expect(readdirSync(join(other, "image"))).toEqual(["precious"]);
  });

  const RUN = process.env["PEERS_RUN"];

  describe.skipIf(RUN === undefined)("run by others", () => {
    /** A folder with a cache in it that the user of the image may write to. */
    function workFolder(): string {
      const work = join(fixtureCopy("app-oci-index"), "..");
      for (const path of readdirSync(work, { recursive: true }) as string[]) {
        chownSync(join(work, path), USER, USER);
        chmodSync(join(work, path), 0o755);
      }
      chownSync(work, USER, USER);
      return work;
    }

    /** What must work without root, with a root file system that cannot be written to. */
    const COMMANDS: [args: string[], output: RegExp][] = [
      [["self-check"], /This machine is fine/],
      [["convert", "app-oci-index", "--json"], /"shape":"image-manifest"|"digest":"sha256:/],
      [["ls", "app-oci-index"], /^latest +cache/m],
      [["verify", "app-oci-index"], /^ok: /m],
    ];

    test(
      "docker",
      () => {
        const peer = (...args: string[]) => Bun.spawnSync([RUN as string, "docker", ...args]);
        const load = peer("load", "--input", join(outdir, "image.tar"));
        expect(load.stderr.toString()).toBe("");
        const work = workFolder();
        try {
          for (const [args, output] of COMMANDS) {
            const child = peer(
              "run",
              "--rm",
              "--network=none",
              "--read-only",
              `--volume=${work}:/work`,
              `cacheport:${version}`,
              ...args,
            );
            expect(child.exitCode).toBe(0);
            expect(child.stdout.toString()).toMatch(output);
          }
        } finally {
          peer("image", "rm", `cacheport:${version}`);
        }
      },
      BUILD_TIME,
    );

    test(
      "runc",
      () => {
        const bundle = mkdtempSync(join(tmpdir(), "cacheport-bundle-"));
        const work = workFolder();
        try {
          mkdirSync(join(bundle, "rootfs"));
          const layer = blobFile(layout, manifest.layers[0].digest);
          const rootfs = join(bundle, "rootfs");
          Bun.spawnSync(["tar", "-xzpf", layer, "-C", rootfs]);
          for (const [args, output] of COMMANDS) {
            writeFileSync(
              join(bundle, "config.json"),
              JSON.stringify(runtimeConfig(config.config, args, work)),
            );
            const id = `cacheport-${crypto.randomUUID()}`;
            const child = Bun.spawnSync([RUN as string, "runc", "run", "--bundle", bundle, id], {
              cwd: bundle,
              stdin: "ignore",
            });
            expect(child.stderr.toString()).not.toContain("runc");
            expect(child.exitCode).toBe(0);
            expect(child.stdout.toString()).toMatch(output);
          }
        } finally {
          rmSync(bundle, { recursive: true, force: true });
        }
      },
      BUILD_TIME,
    );

    test("skopeo reads it", () => {
      const skopeo = Bun.spawnSync([
        RUN as string,
        "skopeo",
        "inspect",
        `oci:${layout}:${version}`,
      ]);
      expect(JSON.parse(skopeo.stdout.toString())).toMatchObject({
        Architecture: "amd64",
        Labels: { "org.opencontainers.image.title": "cacheport" },
      });
    });
  });
});

/** A container without privileges, network and a root that can be written to. */
function runtimeConfig(image: any, args: readonly string[], work: string) {
  const nothing: string[] = [];
  return {
    ociVersion: "1.0.2",
    process: {
      user: { uid: USER, gid: USER },
      args: [...image.Entrypoint, ...args],
      env: image.Env,
      cwd: image.WorkingDir,
      noNewPrivileges: true,
      capabilities: {
        bounding: nothing,
        effective: nothing,
        permitted: nothing,
      },
    },
    root: { path: "rootfs", readonly: true },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs" },
      {
        destination: "/work",
        type: "bind",
        source: work,
        options: ["bind", "rw"],
      },
    ],
    linux: {
      namespaces: ["pid", "mount", "ipc", "uts", "network"].map((type) => ({
        type,
      })),
    },
  };
}
