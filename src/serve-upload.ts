/**
 * The push part of a served repository: uploads in one piece, in several, and blobs that
 * are in another repository already.
 *
 * Source: OCI distribution-spec 1.1, "Pushing Blobs".
 */
import type { Digest } from "./digest.ts";
import { digestIn, Refusal } from "./serve-refusal.ts";
import type { PendingContent, Upload } from "./serve-pending.ts";
import type { ServedRepository } from "./serve-repository.ts";

/** POST: begins an upload, does it whole with `digest=`, or takes the blob of another repository with `mount=`. */
export async function beginUpload(
  request: Request,
  url: URL,
  repository: ServedRepository,
  repositories: readonly ServedRepository[],
): Promise<Response> {
  const mount = url.searchParams.get("mount");
  if (mount !== null) {
    const digest = digestIn(mount);
    const from = url.searchParams.get("from");
    const others = repositories.filter(({ name }) => from === null || name === from);
    for (const other of [repository, ...others])
      if (await takeFrom(other, repository, digest)) return created(repository, digest);
  }
  const pending = repository.pending as PendingContent;
  const upload = await pending.begin();
  const whole = url.searchParams.get("digest");
  if (whole === null) return accepted(repository, upload);
  return finish(request, repository, upload, digestIn(whole));
}

/** PATCH, PUT, GET and DELETE of an upload that was begun. */
export async function answerUpload(
  request: Request,
  url: URL,
  repository: ServedRepository,
  id: string,
): Promise<Response> {
  const pending = repository.pending as PendingContent;
  const upload = pending.upload(id);
  if (!upload) throw new Refusal(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload");
  if (upload.isBusy)
    throw new Refusal(409, "BLOB_UPLOAD_INVALID", "another request is writing to this upload");
  switch (request.method) {
    case "PATCH":
      checkOrder(request, repository, upload);
      if (request.body) await pending.append(upload, request.body);
      return accepted(repository, upload);
    case "PUT":
      checkOrder(request, repository, upload);
      return finish(request, repository, upload, digestIn(url.searchParams.get("digest")));
    case "GET":
    case "HEAD":
      return new Response(null, { status: 204, headers: state(repository, upload) });
    case "DELETE":
      await pending.cancel(upload);
      return new Response(null, { status: 204 });
    default:
      throw new Refusal(405, "UNSUPPORTED", "an upload does not do that");
  }
}

async function finish(
  request: Request,
  repository: ServedRepository,
  upload: Upload,
  digest: Digest,
): Promise<Response> {
  const pending = repository.pending as PendingContent;
  if (request.body) await pending.append(upload, request.body);
  await pending.finish(upload, digest);
  return created(repository, digest);
}

/** A piece that says where it goes must go where the last one ended. */
function checkOrder(request: Request, repository: ServedRepository, upload: Upload): void {
  const range = request.headers.get("content-range");
  if (range === null) return;
  const [, start, end] = /^(?:bytes )?(\d+)-(\d+)(?:\/.*)?$/.exec(range) ?? [];
  if (start === undefined || end === undefined)
    throw new Refusal(400, "BLOB_UPLOAD_INVALID", `${range} is no range`);
  if (Number(start) === upload.size) return;
  throw new Refusal(
    416,
    "BLOB_UPLOAD_INVALID",
    `the next byte is ${upload.size}`,
    state(repository, upload),
  );
}

/** Makes a blob of one repository one of another. */
async function takeFrom(
  source: ServedRepository,
  target: ServedRepository,
  digest: Digest,
): Promise<boolean> {
  if (source === target) return target.has(digest);
  const blob = await source.blob(digest);
  if (!blob) return false;
  const pending = target.pending as PendingContent;
  const upload = await pending.begin();
  await pending.append(upload, await blob.open());
  await pending.finish(upload, digest);
  return true;
}

function state(repository: ServedRepository, { id, size }: Upload): Record<string, string> {
  return {
    location: `/v2/${repository.name}/blobs/uploads/${id}`,
    range: `0-${Math.max(0, size - 1)}`,
    "docker-upload-uuid": id,
    "content-length": "0",
  };
}

function accepted(repository: ServedRepository, upload: Upload): Response {
  return new Response(null, { status: 202, headers: state(repository, upload) });
}

function created({ name }: ServedRepository, digest: Digest): Response {
  return new Response(null, {
    status: 201,
    headers: {
      location: `/v2/${name}/blobs/${digest}`,
      "docker-content-digest": digest,
      "content-length": "0",
    },
  });
}
