/** Names of cache records by the steps of builds, against caches that BuildKit wrote. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { readCache } from "../src/cache-read.ts";
import { DEFAULT_LIMITS } from "../src/documents.ts";
import { buildKeys, StepKeys } from "../src/explain-match.ts";
import { nameRecords } from "../src/explain-names.ts";
import { readProvenance } from "../src/explain-provenance.ts";
import { RecordView } from "../src/explain-records.ts";
import { LayoutDirectory } from "../src/layout-directory.ts";
import { cacheport } from "./helpers/binary.ts";
import { vector, VECTOR_CASES, vectorJson } from "./helpers/explain-vectors.ts";

async function viewOf(location: string): Promise<RecordView> {
  const store = await LayoutDirectory.open(location, { limits: DEFAULT_LIMITS, jobs: 4 });
  const { descriptor } = await store.resolve({});
  const { caches } = await readCache(store, descriptor, { limits: DEFAULT_LIMITS });
  return new RecordView(caches[0]!);
}

const FILES = [
  "metadata.json",
  "metadata-v1.json",
  "provenance-v0.2.linux-amd64.json",
  "provenance-v0.2.linux-arm64.json",
  "provenance-v1.linux-amd64.json",
  "provenance-v1.linux-arm64.json",
];

describe.each([...VECTOR_CASES])("%s", (name) => {
  const expected = vectorJson(name, "expected.json");

  for (const file of FILES.filter((one) => existsSync(vector(name, "A", one)))) {
    if (name === "multi-platform" && file.startsWith("metadata")) continue;
    test(`every step of ${file} has the digest that BuildKit gave its records`, async () => {
      const [build] = readProvenance(readFileSync(vector(name, "A", file)), file, "build");
      const view = await viewOf(vector(name, "A", "cache"));
      const keys = buildKeys(build!, (blob) => view.diffIds.get(blob));
      const found = new StepKeys(keys, view, () => undefined, "match");
      const platform = /linux-(\w+)/.exec(file)?.[1];
      const steps = expected.steps.filter(
        (step: any) => !step.platform || !platform || step.platform === `linux/${platform}`,
      );
      expect(steps.length).toBeGreaterThan(0);
      for (const step of steps) {
        const at = build!.steps.findIndex(({ id }) => id === step.id);
        if (step.opDigest) expect(keys.digests[at]).toContain(step.opDigest);
        if (step.line) expect(build!.steps[at]!.place?.line).toBe(step.line);
        expect(
          keys.needs[at]!.map(({ selector, content }) => [selector || null, content !== undefined]),
        ).toEqual(step.inputs.map((input: any) => [input.selector, input.contentBased]));
        for (const { index, recordDigest, records } of step.outputs) {
          const got = found
            .of(at, index)
            .map(({ record }) => record)
            .filter((record) => view.config.records[record]!.digest === recordDigest);
          // The list goes by digests alone; where several steps have one digest, the links tell them apart.
          if (records.length <= 1 || name !== "copy-flags")
            expect(got.toSorted()).toEqual(records.toSorted());
          else expect(records).toEqual(expect.arrayContaining(got));
        }
      }
    });
  }

  test("every record has a name", async () => {
    const view = await viewOf(vector(name, "A", "cache"));
    const builds = FILES.filter(
      (file) =>
        existsSync(vector(name, "A", file)) &&
        (name === "multi-platform" ? file.startsWith("provenance-v0.2") : file === "metadata.json"),
    ).flatMap((file) => readProvenance(readFileSync(vector(name, "A", file)), file, "build"));
    const names = nameRecords(view, builds);
    expect(view.config.records.flatMap((_, at) => (names.has(at) ? [] : [at]))).toEqual([]);
    for (const { index, what, line } of expected.records) {
      const places = names.get(index)!.map(({ place }) => place);
      if (what === "step" && line && name !== "copy-flags")
        expect(places).toContain(`Dockerfile:${line}`);
    }
  });

  test("the chains of base images name themselves without any build", async () => {
    const view = await viewOf(vector(name, "A", "cache"));
    const chains = expected.records.filter(({ what }: any) => what === "source:image:chain");
    const names = nameRecords(view, []);
    expect([...names.keys()].toSorted()).toEqual(chains.map(({ index }: any) => index));
    for (const { index, chainID } of chains)
      expect(view.chains().get(index)!.chainId).toBe(chainID);
  });
});

test("the same instruction on two parents is two records, told apart by their links", async () => {
  const view = await viewOf(vector("copy-flags", "A", "cache"));
  const metadata = readFileSync(vector("copy-flags", "A", "metadata.json"));
  const names = nameRecords(view, readProvenance(metadata, "a", "build"));
  expect(view.config.records[8]!.digest).toBe(view.config.records[9]!.digest);
  expect(names.get(9)!.map(({ text }) => text)).toEqual(["COPY --link a.txt /link/a.txt"]);
  expect(names.get(8)!.map(({ text }) => text)).toEqual(["COPY --link --chown=5 dir/ /link/dir/"]);
});

describe("inspect --build", () => {
  const cache = vector("ci-app", "A", "cache");

  test.each([
    ["a metadata file", vector("ci-app", "A", "metadata.json")],
    ["a bundle", vector("history", "A.dockerbuild")],
  ])("names layers and records by %s", async (_, build) => {
    const run = await cacheport(["inspect", cache, "--build", build]);
    expect([run.code, run.stderr]).toEqual([0, ""]);
    expect(run.stdout).toContain("COPY . . (Dockerfile:8)");
    expect(run.stdout).toMatch(/RUN .*\(Dockerfile:5\)/);
    const found = (await cacheport(["inspect", cache, "--build", build, "--json"])).json();
    expect(new Set(found.names.map(({ record }: any) => record)).size).toBe(15);
    expect(found.names).toContainEqual({
      record: 0,
      kind: "step",
      text: "COPY . .",
      place: "Dockerfile:8",
      platform: null,
      step: "step6",
    });
    const layers = found.layers.filter(({ names }: any) => names === undefined);
    expect(layers).toEqual([]);
  });

  test("an image with an inline cache and an attestation names itself", async () => {
    const image = vector("inline", "image");
    const found = (await cacheport(["inspect", image, "--build", image, "--json"])).json();
    const { steps } = vectorJson("inline", "expected.json");
    for (const { line, records, id } of steps)
      for (const record of records)
        expect(found.names).toContainEqual(
          expect.objectContaining({ record, place: `Dockerfile:${line}`, step: id }),
        );
  });

  test.each(["dot", "mermaid", "html", "json"])("--format %s shows the names", async (format) => {
    const args = ["--build", vector("ci-app", "A", "metadata.json"), "--format", format];
    const run = await cacheport(["inspect", cache, ...args]);
    expect(run.code).toBe(0);
    expect(run.stdout.replaceAll(/#(\d+);/g, (_, code) => String.fromCharCode(code))).toContain(
      "RUN --network=none ls -la (Dockerfile:16)",
    );
  });
});

describe("what cannot serve as a build says why", () => {
  test.each([
    ["multi-platform/A/metadata.json", "the metadata file has no provenance", 2],
    ["ci-app/expected.json", "it holds no provenance of a build", 2],
    ["ci-app/A/cache", "has no provenance", 2],
    ["ci-app/nowhere.json", "nowhere.json", 3],
  ])("%s", async (path, reason, code) => {
    const run = await cacheport([
      "inspect",
      vector("ci-app", "A", "cache"),
      "--build",
      vector(...path.split("/")),
    ]);
    expect(run.code).toBe(code);
    expect(run.stderr).toContain(reason);
    expect(run.stderr.split("\n").length).toBeLessThanOrEqual(3);
  });

  test("mode=min provenance says how to get max", async () => {
    const metadata = vectorJson("ci-app", "A", "metadata.json");
    delete metadata["buildx.build.provenance"].buildConfig;
    const bytes = new TextEncoder().encode(JSON.stringify(metadata));
    expect(() => readProvenance(bytes, "b", 'build "b"')).toThrow("mode=min");
  });
});
