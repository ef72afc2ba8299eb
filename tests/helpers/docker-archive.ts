/**
 * Archives of images without an index.json, made by hand in the ways of the programs that
 * write them. They share no code with what is tested.
 */
import { createHash } from "node:crypto";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { makeTar } from "./archives.ts";
import type { TestMember } from "./archives.ts";

/** An image as it is packed. */
export interface TestImage {
  config: string;
  /** Unpacked layers, bottom first. */
  layers: Uint8Array[];
  tags: string[] | null;
}

export const hexOf = (bytes: Uint8Array | string): string =>
  createHash("sha256").update(bytes).digest("hex");

/** An image with one layer for each text. */
export function testImage(tags: string[] | null, texts: string[]): TestImage {
  const layers = texts.map((text) => makeTar([{ name: `${text}.txt`, content: text.repeat(400) }]));
  const config = JSON.stringify({
    architecture: "amd64",
    os: "linux",
    config: { Env: ["A=<b>"] },
    rootfs: { type: "layers", diff_ids: layers.map((layer) => `sha256:${hexOf(layer)}`) },
  });
  return { config, layers, tags };
}

const list = (items: object[]): TestMember => ({
  name: "manifest.json",
  content: JSON.stringify(items),
});

/** skopeo docker-archive: and podman save: layers once, and links to them for old readers. */
function skopeo(images: TestImage[]): TestMember[] {
  const members = new Map<string, TestMember>();
  const items = images.map(({ config, layers, tags }) => {
    const names = layers.map((layer, at) => {
      const name = `${hexOf(layer)}.tar`;
      members.set(name, { name, content: layer });
      const id = hexOf(`${config}${at}`);
      const link = `${id}/layer.tar`;
      members.set(link, { name: link, typeflag: "2", linkname: `../${name}` });
      return name;
    });
    const Config = `${hexOf(config)}.json`;
    members.set(Config, { name: Config, content: config });
    return { Config, RepoTags: tags, Layers: names };
  });
  return [...members.values(), list(items), { name: "repositories", content: "{}" }];
}

/** docker save before version 25: a folder for each layer; one that was met before is a link. */
function oldDocker(images: TestImage[]): TestMember[] {
  const members: TestMember[] = [];
  const known = new Map<string, string>();
  const items = images.map(({ config, layers, tags }, image) => {
    const names = layers.map((layer, at) => {
      const id = hexOf(`layer ${image} ${at}`);
      const name = `${id}/layer.tar`;
      const before = known.get(hexOf(layer));
      members.push({ name: `${id}/`, typeflag: "5" }, { name: `${id}/VERSION`, content: "1.0" });
      members.push(
        before ? { name, typeflag: "2", linkname: `../${before}` } : { name, content: layer },
      );
      if (!before) known.set(hexOf(layer), name);
      return name;
    });
    const Config = `${hexOf(config)}.json`;
    members.push({ name: Config, content: config });
    return { Config, RepoTags: tags, Layers: names };
  });
  return [...members, list(items), { name: "repositories", content: "{}" }];
}

/** crane pull, ko and kaniko: compressed layers under their own digests. */
function crane(images: TestImage[]): TestMember[] {
  const members = new Map<string, TestMember>();
  const items = images.map(({ config, layers, tags }) => {
    const Config = `sha256:${hexOf(config)}`;
    members.set(Config, { name: Config, content: config });
    const Layers = layers.map((layer) => {
      const packed = gzipSync(layer);
      const name = `${hexOf(packed)}.tar.gz`;
      members.set(name, { name, content: packed });
      return name;
    });
    return { Config, RepoTags: tags, Layers };
  });
  return [...members.values(), list(items)];
}

/** Nothing is as elsewhere: the list first, `./` before all, hard links, zstd, no tags. */
function odd(images: TestImage[]): TestMember[] {
  const members: TestMember[] = [{ name: "./", typeflag: "5" }];
  const known = new Map<string, string>();
  const items = images.map(({ config, layers, tags }, image) => {
    const Config = `image-${image}/config`;
    members.push({ name: `./${Config}`, content: config });
    const Layers = layers.map((layer, at) => {
      const name = `image-${image}/layer ${at}`;
      const before = known.get(hexOf(layer));
      members.push(
        before
          ? { name: `./${name}`, typeflag: "1", linkname: before }
          : { name: `./${name}`, content: at % 2 ? zstdCompressSync(layer) : layer },
      );
      known.set(hexOf(layer), before ?? `./${name}`);
      return name;
    });
    return { Config, ...(tags && { RepoTags: tags }), Layers };
  });
  return [list(items), ...members];
}

/** Each way to pack images. */
export const STYLES = { skopeo, oldDocker, crane, odd };
