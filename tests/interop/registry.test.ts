/** The registry client against real registries, BuildKit, crane, skopeo and oras. */
import { describe, expect, test } from "bun:test";
import type { CacheShape } from "../../src/cache-manifest.ts";
import { convertCache } from "../../src/convert.ts";
import { copyContent } from "../../src/copy.ts";
import { DEFAULT_LIMITS } from "../../src/documents.ts";
import { noProgress } from "../../src/progress.ts";
import { readCache } from "../../src/cache-read.ts";
import type { RegistryRepository } from "../../src/registry.ts";
import {
  PEERS_REGISTRY,
  buildContext,
  hasPeers,
  notCached,
  peerOutput,
  withBuildKit,
} from "../helpers/buildkit.ts";
import { failure } from "../helpers/errors.ts";
import {
  describeBytes,
  noise,
  openRepository,
  readAll,
  started,
} from "../helpers/registry-client.ts";
import { tempFolder } from "../helpers/temp.ts";
import { TestServer } from "../helpers/test-registry.ts";

const BASIC = process.env["PEERS_REGISTRY_BASIC"] ?? "";
const LOGIN = {
  username: process.env["PEERS_REGISTRY_BASIC_USER"] ?? "",
  password: process.env["PEERS_REGISTRY_BASIC_PASSWORD"] ?? "",
};
const SHAPES: Record<CacheShape, string> = {
  "image-manifest": "image-manifest=true,oci-mediatypes=true",
  "oci-index": "image-manifest=false,oci-mediatypes=true",
  "docker-list": "image-manifest=false,oci-mediatypes=false",
};
const NAMES = Object.keys(SHAPES) as CacheShape[];
const options = {
  limits: DEFAULT_LIMITS,
  jobs: 4,
  progress: noProgress,
};

/** Converts a tag in its repository and gives the new digest. */
async function convert(
  repository: RegistryRepository,
  from: string,
  shape: CacheShape,
  to: string,
): Promise<string> {
  const { descriptor } = await repository.resolve({ name: from });
  const set = await readCache(repository, descriptor, options);
  const result = await convertCache(repository, set, repository, {
    ...options,
    shape,
    names: [{ kind: "set", name: { refName: to } }],
    inPlace: true,
    checkBlobs: false,
    tempFolder: tempFolder(),
  });
  return result?.descriptor.digest ?? "";
}

describe.skipIf(!hasPeers)("interop: registry", () => {
  test(
    "a cache that BuildKit pushed is converted, copied and imported again",
    () =>
      withBuildKit(async (buildkit) => {
        const name = `interop/client-${crypto.randomUUID()}`;
        const context = buildContext(
          `FROM base:latest
RUN --network=none echo ${name} > /one
COPY a.txt /a.txt
RUN --network=none cat /one /a.txt > /two
`,
          { "a.txt": "a" },
        );
        const repository = openRepository(`${PEERS_REGISTRY}/${name}`);
        const locked = openRepository(`${BASIC}/${name}`, LOGIN);
        const second = openRepository(`${PEERS_REGISTRY}/${name}-2`);
        for (const shape of NAMES) {
          await buildkit.build({
            context,
            cacheTo: [
              `type=registry,ref=${PEERS_REGISTRY}/${name}:${shape},mode=max,${SHAPES[shape]}`,
            ],
          });
        }
        const tags = await repository.list();
        expect(tags.map(({ refName }) => refName).toSorted()).toEqual(NAMES.toSorted());
        for (const shape of NAMES) {
          const { descriptor } = await repository.resolve({ name: shape });
          const reference = `${PEERS_REGISTRY}/${name}:${shape}`;
          const digest = await peerOutput("crane", "digest", "--insecure", reference);
          expect(digest.trim()).toBe(descriptor.digest);
          for (const to of NAMES) {
            await convert(repository, shape, to, `${shape}-to-${to}`);
            const back = `${shape}-to-${to}-and-back`;
            const restored = await convert(repository, `${shape}-to-${to}`, shape, back);
            expect(restored).toBe(descriptor.digest);
          }
          const names = [{ kind: "set", name: { refName: shape } }] as const;
          for (const target of [second, locked]) {
            await copyContent(repository, [{ descriptor, names }], target, options);
            const copied = await target.resolve({ name: shape });
            expect(copied.descriptor).toEqual(descriptor);
          }
        }
        const raw = await peerOutput(
          "skopeo",
          "inspect",
          "--raw",
          "--tls-verify=false",
          "--creds",
          `${LOGIN.username}:${LOGIN.password}`,
          `docker://${BASIC}/${name}:image-manifest`,
        );
        const found = await locked.resolve({ name: "image-manifest" });
        expect(describeBytes(Buffer.from(raw)).digest).toBe(found.descriptor.digest);
        const resolved = await peerOutput(
          "oras",
          "resolve",
          "--plain-http",
          `${PEERS_REGISTRY}/${name}-2:oci-index`,
        );
        const index = await second.resolve({ name: "oci-index" });
        expect(resolved.trim()).toBe(index.descriptor.digest);

        for (const reference of [
          `${name}:oci-index-to-image-manifest`,
          `${name}:docker-list-to-oci-index`,
          `${name}-2:docker-list`,
        ]) {
          await buildkit.prune();
          const { steps } = await buildkit.build({
            context,
            cacheFrom: [`type=registry,ref=${PEERS_REGISTRY}/${reference}`],
          });
          expect(steps.length).toBeGreaterThan(0);
          expect(notCached(steps)).toEqual([]);
        }
      }),
    300_000,
  );

  test("distribution takes a blob in pieces, gives it back and mounts it", async () => {
    const name = `interop/pieces-${crypto.randomUUID()}`;
    const bytes = noise(5_000_001);
    const blob = describeBytes(bytes);
    // Nothing but a registry's demand makes uploads go in pieces, so one is put before it.
    const front = await started(
      new TestServer(async ({ method, url }) => {
        const reply = await fetch(`http://${PEERS_REGISTRY}${url}`, { method });
        const location = reply.headers.get("location");
        return {
          status: reply.status,
          headers: location ? { location, "oci-chunk-min-length": "1000000" } : {},
        };
      }).listen(),
    );
    const demanding = openRepository(`${front.domain}/${name}`, {
      chunkSize: 1,
      allowPrivateUpload: true,
    });
    expect(await demanding.put(blob, { bytes })).toBe("copied");
    expect(front.requests("PUT")).toHaveLength(0);
    const repository = openRepository(`${PEERS_REGISTRY}/${name}`);
    expect(await readAll(await repository.open(blob))).toEqual(Buffer.from(bytes));
    const other = openRepository(`${PEERS_REGISTRY}/${name}-2`);
    expect(await other.put(blob, { store: repository })).toBe("mounted");
  });

  test("the registry with a login refuses a wrong one", async () => {
    for (const login of [{}, { ...LOGIN, password: "wrong-word" }]) {
      const repository = openRepository(`${BASIC}/interop/x`, login);
      const error = await failure(() => repository.resolve({}));
      expect(error.code).toBe("REGISTRY_DENIED");
      expect(error.message).not.toContain("wrong-word");
    }
  });
});
