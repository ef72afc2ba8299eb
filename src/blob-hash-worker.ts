/**
 * The thread that hashes for blob-hash.ts. It is an entry point of its own: a
 * compiled program finds it only if the build lists it.
 */
import { createHasher } from "./digest.ts";
import type { Hasher } from "./digest.ts";
import type { HashReply, HashRequest } from "./blob-hash.ts";

declare const self: Worker;

const hashers = new Map<number, Hasher>();
let memory: Uint8Array = new Uint8Array();

const reply = (message: HashReply): void => self.postMessage(message);

self.onmessage = ({ data }: MessageEvent<HashRequest>) => {
  switch (data.kind) {
    case "memory":
      memory = new Uint8Array(data.memory);
      return;
    case "start":
      hashers.set(data.id, createHasher(data.algorithm));
      return;
    case "update": {
      const { id, slot, start, length } = data;
      hashers.get(id)?.update(memory.subarray(start, start + length));
      reply({ kind: "hashed", slot });
      return;
    }
    case "end": {
      const digest = hashers.get(data.id)?.digest();
      hashers.delete(data.id);
      if (digest) reply({ kind: "digest", id: data.id, digest });
    }
  }
};
