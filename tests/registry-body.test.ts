/** How a blob of a local file is sent: by the kernel where nobody watches, seen where somebody does. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createProgress } from "../src/cli-progress.ts";
import { fileFeed } from "../src/registry-body.ts";
import { StallWatch } from "../src/registry-limits.ts";
import { cacheport } from "./helpers/binary.ts";
import { repositoryFaults } from "./helpers/registry-commands.ts";
import { describeBytes, noise, started } from "./helpers/registry-client.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

describe("a blob of a local file on its way to this machine", () => {
  const bytes = noise(3_000_000);
  const opened = async (isLive: boolean, nearby: boolean) => {
    const path = join(tempFolder(), "blob");
    writeFileSync(path, bytes);
    const location = { path, offset: 0, size: bytes.length, disposable: false };
    const reached: number[] = [];
    const watch = new StallWatch(60_000, () => {});
    const { body } = fileFeed(describeBytes(bytes), location, isLive);
    const open = await body(0, bytes.length, (sent) => void reached.push(sent)).open(watch, nearby);
    return { open, reached, watch };
  };

  test("is handed to the kernel whole when nobody watches", async () => {
    const { open } = await opened(false, true);
    expect(open.init).toBeInstanceOf(Blob);
  });

  test.each([
    [true, true],
    [false, false],
  ])(
    "is told of piece by piece with live progress %p, on this machine %p",
    async (isLive, nearby) => {
      const { open, reached, watch } = await opened(isLive, nearby);
      const sent = Buffer.from(await new Response(open.init as ReadableStream).arrayBuffer());
      expect(Buffer.compare(sent, bytes)).toBe(0);
      expect(reached.length).toBeGreaterThan(1);
      expect(reached.at(-1)).toBe(bytes.length);
      expect(reached.toSorted((a, b) => a - b)).toEqual(reached);
      watch.stop();
      await open.close?.();
    },
  );

  test("progress is live on a terminal and for machines alone", () => {
    const stream = { say: () => {}, isTerminal: true, columns: 80 } as never;
    const live = (mode: "tty" | "plain" | "json" | "none") =>
      createProgress(mode, stream, { jobs: 1 }).isLive;
    expect([live("tty"), live("json"), live("plain"), live("none")]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });

  test("a push with live progress arrives as any other", async () => {
    const registry = await started(TestRegistry.start({}));
    const place = `${registry.domain}/app:main`;
    const cache = await cacheport(["copy", fixture("app-uncompressed"), place, "--progress=json"]);
    expect(cache.code).toBe(0);
    expect(repositoryFaults(registry, "app")).toEqual([]);
  });
});
