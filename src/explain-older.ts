/**
 * The digest that BuildKit up to 0.16 gave a step: its JSON wrote the numbers of a
 * mount's input and output even where they are 0.
 *
 * Source: BuildKit solver/pb before and after the change of the protobuf generator
 * (0.17).
 */
import { digestOf } from "./digest.ts";
import type { Digest } from "./digest.ts";
import type { BuildStep } from "./explain-build.ts";
import { execDefinition, numberIn, objectsIn, platformFields } from "./explain-digest.ts";
import { encodeGoJson } from "./go-json.ts";
import type { JsonObject } from "./go-json.ts";

/** The older digest of an exec step with more than the root mount; undefined for any other step. */
export function olderForm(step: BuildStep): Digest | undefined {
  if (step.kind !== "exec") return undefined;
  const definition = execDefinition(step.op);
  const mounts = objectsIn(definition["mounts"]);
  if (mounts.length === 0) return undefined;
  const written = mounts.map((mount): JsonObject => {
    const { input, selector, dest, output, ...rest } = mount;
    return {
      input: numberIn(input),
      ...(selector === undefined ? {} : { selector }),
      dest,
      output: numberIn(output),
      ...rest,
    };
  });
  return digestOf(
    encodeGoJson({
      Type: "buildkit.exec.v0",
      Exec: { ...definition, mounts: written },
      ...platformFields(step.platform),
    }),
  );
}
