/**
 * The common door for every JSON document that comes from outside: a size limit,
 * a schema, and one clear sentence when either is broken.
 */
import * as v from "valibot";
import { CacheportError } from "./errors.ts";
import { goFieldFinder, isJsonObject } from "./go-json.ts";
import type { JsonObject } from "./go-json.ts";

/** The largest document and the deepest nesting that are accepted. */
export interface DocumentLimits {
  /** Bytes of a manifest or an index. */
  manifest: number;
  /** Bytes of a cache config or an image config. */
  config: number;
  /** Levels of indexes within indexes. */
  depth: number;
}

/** 4 MiB is what registries accept; BuildKit writes cache configs of several MiB. */
export const DEFAULT_LIMITS: DocumentLimits = {
  manifest: 4 * 1024 * 1024,
  config: 64 * 1024 * 1024,
  depth: 8,
};

/**
 * Checks a parsed document against its schema.
 *
 * @param what What the document is, for the message: `manifest "sha256:..."`.
 * @throws {CacheportError} DOCUMENT_INVALID, with the path of the first wrong field
 */
export function checkSchema<T extends v.GenericSchema>(
  schema: T,
  value: unknown,
  what: string,
): v.InferOutput<T> {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  const path = v.getDotPath(issue);
  throw new CacheportError(
    "DOCUMENT_INVALID",
    `Cannot read ${what}: ${path ? `field ${path}: ` : ""}${issue.message}`,
  );
}

/**
 * Refuses a document that is over its limit, before it is read.
 *
 * @param size Bytes.
 * @param limit Bytes.
 * @throws {CacheportError} DOCUMENT_TOO_LARGE
 */
export function checkDocumentSize(size: number, limit: number, what: string): void {
  if (size <= limit) return;
  throw new CacheportError(
    "DOCUMENT_TOO_LARGE",
    `Cannot read ${what}: it has ${size} bytes and the limit is ${limit}`,
    {
      hint: { do: "raise-document-limit" },
    },
  );
}

/** A JSON object; valibot's own object schemas take an array for one. */
export const jsonObject = v.custom<JsonObject>(
  isJsonObject,
  (issue) => `Invalid type: Expected Object but received ${issue.received}`,
);

/**
 * An object schema that finds its fields as Go does, whatever their case: BuildKit
 * reads `createdat` as `createdAt`. Fields that are not named are left out.
 */
export const goStruct = <T extends v.ObjectEntries>(entries: T) =>
  v.pipe(jsonObject, v.transform(goFieldFinder(Object.keys(entries))), v.object(entries));

/**
 * A map of texts with whatever keys: valibot's own record drops those that JavaScript has
 * a meaning for, such as `constructor`.
 */
export const stringMap = v.pipe(
  v.custom<Record<string, string>>(
    isJsonObject,
    (issue) => `Invalid type: Expected Object but received ${issue.received}`,
  ),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    for (const [key, value] of Object.entries(dataset.value as JsonObject)) {
      if (typeof value === "string") continue;
      const path = { type: "object", origin: "value", input: dataset.value, key, value } as const;
      addIssue({
        message: `Invalid type: Expected string but received ${typeof value}`,
        path: [path],
      });
    }
  }),
);

/** A field that Go leaves at its zero value when the JSON says null or nothing. */
export const optional = <T extends v.GenericSchema>(schema: T) =>
  v.pipe(
    v.nullish(schema),
    v.transform((value) => value ?? undefined),
  );
