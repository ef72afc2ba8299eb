/** Writes schemas of valibot as JSON Schema, as far as the contract of `--json` uses them. */
import type { GenericSchema } from "valibot";

/** A JSON Schema, draft 2020-12. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/** What this reads of a schema; valibot's own types say no more of one that is given as generic. */
interface Parts {
  readonly type: string;
  readonly entries?: Readonly<Record<string, Parts>>;
  readonly item?: Parts;
  readonly value?: Parts;
  readonly wrapped?: Parts;
  readonly literal?: unknown;
  readonly options?: readonly unknown[];
}

/**
 * Writes a schema.
 *
 * @throws {Error} for a kind of schema that no contract has
 */
export function toJsonSchema(schema: GenericSchema): JsonSchema {
  return write(schema as unknown as Parts);
}

function write(schema: Parts): JsonSchema {
  switch (schema.type) {
    case "string":
    case "boolean":
    case "number":
      return { type: schema.type };
    case "literal":
      return { const: schema.literal };
    case "picklist":
      return { enum: schema.options };
    case "nullable":
    case "nullish":
      return { anyOf: [write(schema.wrapped as Parts), { type: "null" }] };
    case "optional":
      return write(schema.wrapped as Parts);
    case "lazy":
      // What lists itself is any value of the same form.
      return { type: "object" };
    case "array":
      return { type: "array", items: write(schema.item as Parts) };
    case "record":
      return { type: "object", additionalProperties: write(schema.value as Parts) };
    case "union":
      return { anyOf: (schema.options as readonly Parts[]).map(write) };
    case "object":
    case "loose_object": {
      const entries = Object.entries(schema.entries ?? {});
      return {
        type: "object",
        properties: Object.fromEntries(entries.map(([key, entry]) => [key, write(entry)])),
        required: entries
          .filter(([, { type }]) => type !== "optional" && type !== "nullish")
          .map(([key]) => key),
      };
    }
    default:
      throw new Error(`no JSON Schema is known for ${schema.type}`);
  }
}
