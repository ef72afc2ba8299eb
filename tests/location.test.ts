import { describe, expect, test } from "bun:test";
import { parseDigest } from "../src/digest.ts";
import { CacheportError } from "../src/errors.ts";
import { parseLocation } from "../src/location.ts";
import type { Location, PathKind } from "../src/location.ts";
import { failure } from "./helpers/errors.ts";
import { random } from "./helpers/random.ts";

type Role = "source" | "target";

const DIGEST = parseDigest(`sha256:${"ab".repeat(32)}`);
const DIGEST_512 = parseDigest(`sha512:${"cd".repeat(64)}`);

/** A world of paths: those that end with / are directories. */
function world(paths: string): (path: string) => PathKind {
  const known = new Set(paths.split(" "));
  return (path) => (known.has(`${path}/`) ? "directory" : known.has(path) ? "file" : undefined);
}

const WORLD = world(
  "layout/ a:b/ with@sign/ odd@sha256:12/ Caps/ oci/ ./rel/ /abs/layout/ C:\\lay/ D:/lay/ out.d/ localhost/ cache.tar cache:x.tar plain /abs/c.tar.gz",
);
const NOTHING = world("");

const parse = (text: string, role: Role = "source", probe = WORLD): Location =>
  parseLocation(text, { role, probe });

/** A location in short: `kind path name digest`. */
function short(location: Location): string {
  if (location.kind === "registry") {
    const { domain, path, tag, digest } = location.reference;
    return `registry ${domain} ${path} ${tag} ${digest}`;
  }
  if (location.kind === "object")
    return `object ${location.text} ${location.name} ${location.digest}`;
  const path = location.kind === "stream" ? "-" : location.path;
  return `${location.kind} ${path} ${location.name} ${location.digest}`;
}

describe("what exists wins, for sources and targets alike", () => {
  test.each([
    ["layout", "directory layout undefined undefined"],
    ["layout:v1", "directory layout v1 undefined"],
    [`layout@${DIGEST}`, `directory layout undefined ${DIGEST}`],
    [`layout:v1@${DIGEST_512}`, `directory layout v1 ${DIGEST_512}`],
    ["layout:app:1.0", "directory layout app:1.0 undefined"],
    ["layout:reg.example/team/app:1.0", "directory layout reg.example/team/app:1.0 undefined"],
    ["layout:localhost:5000/app", "directory layout localhost:5000/app undefined"],
    [`layout:reg.example/app:1@${DIGEST}`, `directory layout reg.example/app:1 ${DIGEST}`],
    ["./rel:v1", "directory ./rel v1 undefined"],
    ["/abs/layout:v1", "directory /abs/layout v1 undefined"],
    // The longest part that exists is the path.
    ["a:b", "directory a:b undefined undefined"],
    ["a:b:c", "directory a:b c undefined"],
    ["with@sign:v1", "directory with@sign v1 undefined"],
    ["odd@sha256:12", "directory odd@sha256:12 undefined undefined"],
    ["odd@sha256:12:v1", "directory odd@sha256:12 v1 undefined"],
    ["Caps:v1", "directory Caps v1 undefined"],
    // A file is an archive, whatever its name.
    ["cache.tar", "archive cache.tar undefined undefined"],
    ["cache.tar:v1", "archive cache.tar v1 undefined"],
    ["cache:x.tar", "archive cache:x.tar undefined undefined"],
    ["plain:v1", "archive plain v1 undefined"],
    [`/abs/c.tar.gz@${DIGEST}`, `archive /abs/c.tar.gz undefined ${DIGEST}`],
    // Windows drives are paths.
    ["C:\\lay", "directory C:\\lay undefined undefined"],
    ["C:\\lay:v1", "directory C:\\lay v1 undefined"],
    ["D:/lay:v1", "directory D:/lay v1 undefined"],
    // The kind may be written before it.
    ["oci:layout:v1", "directory layout v1 undefined"],
    ["oci:layout:reg.example/app:1", "directory layout reg.example/app:1 undefined"],
    ["oci:C:\\lay:v1", "directory C:\\lay v1 undefined"],
    ["oci-layout://layout:v1", "directory layout v1 undefined"],
    [`oci-layout:///abs/layout@${DIGEST}`, `directory /abs/layout undefined ${DIGEST}`],
    ["ocidir://a:b:c", "directory a:b c undefined"],
    ["oci-archive:cache.tar:v1", "archive cache.tar v1 undefined"],
    ["oci-archive:plain", "archive plain undefined undefined"],
    ["oci:oci:v1", "directory oci v1 undefined"],
  ])("%p", (text, expected) => {
    for (const role of ["source", "target"] as const) {
      const location = parse(text, role);
      expect(short(location)).toBe(expected);
      expect(location.text).toBe(text);
      expect(location.attributes).toBeUndefined();
    }
  });
});

describe("of what does not exist, the looks decide", () => {
  test.each([
    ["new", "directory new undefined undefined"],
    ["new:v1", "directory new v1 undefined"],
    [`new@${DIGEST}`, `directory new undefined ${DIGEST}`],
    [`new:v1@${DIGEST}`, `directory new v1 ${DIGEST}`],
    ["new/sub:v1", "directory new/sub v1 undefined"],
    ["./new:v1", "directory ./new v1 undefined"],
    ["../new", "directory ../new undefined undefined"],
    ["/new:v1", "directory /new v1 undefined"],
    ["~/new:v1", "directory ~/new v1 undefined"],
    [".:v1", "directory . v1 undefined"],
    ["..", "directory .. undefined undefined"],
    ["./reg.example/app:1", "directory ./reg.example/app 1 undefined"],
    ["My/Folder:v1", "directory My/Folder v1 undefined"],
    ["my_dir.d/new:v1", "directory my_dir.d/new v1 undefined"],
    ["C:\\new:v1", "directory C:\\new v1 undefined"],
    ["C:/new", "directory C:/new undefined undefined"],
    ["a:1.3", "directory a 1.3 undefined"],
    // What follows the first colon is the name, as skopeo reads it.
    ["new:x/y", "directory new x/y undefined"],
    ["new:busybox:1.0", "directory new busybox:1.0 undefined"],
    ["new:reg.example/team/app:1.0", "directory new reg.example/team/app:1.0 undefined"],
    ["./new:localhost:5000/app:1.0", "directory ./new localhost:5000/app:1.0 undefined"],
    ["new.tar:busybox:latest", "archive new.tar busybox:latest undefined"],
    ["new.tar:team/app:1.0", "archive new.tar team/app:1.0 undefined"],
    ["new.tgz:team/app", "archive new.tgz team/app undefined"],
    ["oci-archive:new.tar:busybox:latest", "archive new.tar busybox:latest undefined"],
    ["oci-archive:new:team/app:1.0", "archive new team/app:1.0 undefined"],
    ["oci:new:team/app:1.0", "directory new team/app:1.0 undefined"],
    ["ocidir://new:busybox:1", "directory new busybox:1 undefined"],
    [`new:busybox:1@${DIGEST}`, `directory new busybox:1 ${DIGEST}`],
    ["C:\\new:busybox:1", "directory C:\\new busybox:1 undefined"],
    ["layout:team/app:1.0", "directory layout team/app:1.0 undefined"],
    // A folder that exists keeps its colons.
    ["a:b/new:v1", "directory a:b/new v1 undefined"],
    ["a:b/sub/new:team/app:1", "directory a:b/sub/new team/app:1 undefined"],
    // These are no hosts and no files of another kind.
    ["my.cache", "directory my.cache undefined undefined"],
    ["my.cache:main", "directory my.cache main undefined"],
    ["layout-1.0", "directory layout-1.0 undefined undefined"],
    ["cache:5000", "directory cache 5000 undefined"],
    ["1.0", "directory 1.0 undefined undefined"],
    ["./ghcr.io", "directory ./ghcr.io undefined undefined"],
    ["oci:localhost:5055", "directory localhost 5055 undefined"],
    ["oci:notes.txt", "directory notes.txt undefined undefined"],
    ["oci-archive:notes.txt:v1", "archive notes.txt v1 undefined"],
    ["@scope/new:v1", "directory @scope/new v1 undefined"],
    ["user@host/new:v1", "directory user@host/new v1 undefined"],
    ["user@host:v1", "directory user@host v1 undefined"],
    ["new.tar", "archive new.tar undefined undefined"],
    ["new.tar:v1", "archive new.tar v1 undefined"],
    [
      "sub/new.tar:reg.example/team/app:1.0",
      "archive sub/new.tar reg.example/team/app:1.0 undefined",
    ],
    ["/dev/stdout", "stream - undefined undefined"],
    ["/dev/stdout:v1", "stream - v1 undefined"],
    ["sub/new.TAR.GZ", "archive sub/new.TAR.GZ undefined undefined"],
    ["new.tgz:v1", "archive new.tgz v1 undefined"],
    ["new.tar.zst", "archive new.tar.zst undefined undefined"],
    ["new.tar.zstd", "archive new.tar.zstd undefined undefined"],
    ["oci:new.tar.bz2", "directory new.tar.bz2 undefined undefined"],
    ["oci:new.tar", "directory new.tar undefined undefined"],
    ["oci-archive:new:v1", "archive new v1 undefined"],
    ["oci-layout:///a:b/c", "directory /a b/c undefined"],
    ["oci-layout://C:\\new", "directory C:\\new undefined undefined"],
  ])("target %p", (text, expected) => {
    expect(short(parse(text, "target"))).toBe(expected);
  });

  test.each([
    ["reg.example/app", "registry reg.example app null null"],
    ["reg.example/team/app:1.0", "registry reg.example team/app 1.0 null"],
    ["reg:5000/app", "registry reg:5000 app null null"],
    ["localhost:5000/app:1", "registry localhost:5000 app 1 null"],
    ["[::1]:5000/app", "registry [::1]:5000 app null null"],
    ["10.0.0.1/app", "registry 10.0.0.1 app null null"],
    ["docker.io/alpine", "registry docker.io library/alpine null null"],
    ["index.docker.io/team/app", "registry docker.io team/app null null"],
    [`reg.example/app:1@${DIGEST}`, `registry reg.example app 1 ${DIGEST}`],
    ["docker://alpine", "registry docker.io library/alpine null null"],
    ["docker://team/app:1", "registry docker.io team/app 1 null"],
    ["docker://localhost/app", "registry localhost app null null"],
    ["docker://layout:v1", "registry docker.io library/layout v1 null"],
  ])("registry %p", (text, expected) => {
    for (const role of ["source", "target"] as const)
      expect(short(parse(text, role))).toBe(expected);
  });

  test("localhost is a registry where no folder has that name", () => {
    expect(short(parse("localhost/app", "source", NOTHING))).toBe(
      "registry localhost app null null",
    );
  });

  test.each([
    ["-", "stream - undefined undefined"],
    ["-:v1", "stream - v1 undefined"],
    ["-:reg.example/app:1", "stream - reg.example/app:1 undefined"],
    [`-@${DIGEST}`, `stream - undefined ${DIGEST}`],
    [`-:v1@${DIGEST}`, `stream - v1 ${DIGEST}`],
  ])("stream %p", (text, expected) => {
    for (const role of ["source", "target"] as const)
      expect(short(parse(text, role, world("-/")))).toBe(expected);
  });
});

describe("a text that reads in two ways shows both readings", () => {
  test.each([
    ["team/app:v1", "team/app", "docker.io/team/app:v1"],
    ["alpine", "alpine", "docker.io/library/alpine:latest"],
    ["alpine:3", "alpine", "docker.io/library/alpine:3"],
    ["Team/app", "Team/app", "Team/app:latest"],
    [`app@${DIGEST}`, "app", `docker.io/library/app@${DIGEST}`],
  ])("source %p", async (text, path, image) => {
    const error = await failure(() => parse(text));
    expect(error.code).toBe("LOCATION_NOT_FOUND");
    expect(error.message).toContain(`as the path "${path}"`);
    expect(error.message).toContain(`as the image "${image}"`);
    expect(error.hint).toContain(`./${text} `);
    expect(error.hint).toContain(`docker://${text} `);
    // Written as the hint says, it reads in one way.
    expect(parse(`docker://${text}`).kind).toBe("registry");
    expect(short(parse(`./${text}`, "target"))).toStartWith(`directory ./${path} `);
  });

  test.each(["reg.example/cache.tar", "out.d/layout:v1", "localhost/app"])(
    "%p, with the looks of a path and of a registry",
    async (text) => {
      const source = await failure(() => parse(text));
      expect(source.code).toBe("LOCATION_NOT_FOUND");
      const target = await failure(() => parse(text, "target"));
      expect(target.code).toBe("USAGE");
      expect(target.hint).toContain(`docker://${text} `);
    },
  );

  test("a folder that cannot be a repository is one way", () => {
    expect(short(parse("out.d/Layout:v1", "target"))).toBe("directory out.d/Layout v1 undefined");
  });

  test("an archive with a port or a name after it", async () => {
    for (const text of ["new.tar:5000/app", "new.tgz:5000/team/app:1.0"]) {
      const error = await failure(() => parse(text, "target"));
      expect(error.code).toBe("USAGE");
      expect(error.hint).toContain(`docker://${text} `);
      expect(short(parse(`./${text}`, "target"))).toStartWith(
        `archive ./${text.split(":")[0]} 5000/`,
      );
    }
  });
});

describe("a new target that nobody can have meant", () => {
  test.each([
    "127.0.0.1:5055",
    "127.0.0.1",
    "localhost",
    "localhost:5055",
    "localhost:5055:latest",
    "[::1]:5055",
    "[::1]",
    "ghcr.io",
    "ghcr.io:1",
    "registry.example",
    "registry.example:main",
    "registry:5000",
    "my-registry:443",
    "REGISTRY.EXAMPLE.COM:5000",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    "reg.internal:5000",
    "harbor.firm.de",
  ])("%p looks like a host and is shown both ways", async (text) => {
    const error = await failure(() => parse(text, "target", NOTHING));
    expect(error.code).toBe("USAGE");
    expect(error.message).toContain("looks like a registry");
    expect(error.hint).toContain(`docker://${text}/REPOSITORY:TAG`);
    expect(error.hint).toContain(`oci:${text} `);
    const source = await failure(() => parse(text, "source", NOTHING));
    expect(source.exitCode).toBe(2);
    expect(source.hint).toContain(`docker://${text}/REPOSITORY:TAG`);
  });

  test.each([
    "docker://localhost:5055",
    "docker://ghcr.io",
    "docker://[::1]:5055",
    "type=registry,ref=127.0.0.1:5055",
  ])("%p is a registry without a repository", async (text) => {
    for (const role of ["source", "target"] as const) {
      const error = await failure(() => parse(text, role));
      expect(error.code).toBe("USAGE");
      expect(error.message).toContain("the repository is missing");
      expect(error.message + error.hint).not.toContain("docker.io");
    }
  });

  test.each([
    ["new.tar.xz", ".xz"],
    ["new.tar.bz2:v1", ".bz2"],
    ["./new.zip", ".zip"],
    ["new.gz", ".gz"],
    ["oci-archive:new.tar.xz", ".xz"],
    ["notes.txt", ".txt"],
    ["package.json", ".json"],
    ["sub/ci.yml:v1", ".yml"],
    ["/abs/page.HTML", ".HTML"],
    ["README.md", ".md"],
    ["main.go", ".go"],
  ])("%p is a file of another kind", async (text, ending) => {
    const error = await failure(() => parse(text, "target", NOTHING));
    expect(error.code).toBe("USAGE");
    expect(error.message).toContain(ending);
    expect(error.hint).toContain(".tar for an archive or oci:");
  });

  test.each([
    "oci:new:@0",
    "new:@0",
    "new.tar:@1",
    "new:a b",
    "new:Team/App",
    "new:a:b:c",
    "new:-x",
  ])("%p ends with no name and makes nothing of that name", async (text) => {
    const error = await failure(() => parse(text, "target", NOTHING));
    expect(error.code).toBe("REFERENCE_INVALID");
    expect(error.message).toContain("is neither a tag nor an image name");
  });
});

describe("registries that cannot be", () => {
  test.each([
    ["localhost:999999/x", /no port 999999/],
    ["reg.example:0/x", /no port 0/],
    ["[1::2::3]/x", /no IPv6 address/],
    ["[fe80::1]:5000/x", /link-local/],
    ["127.256.0.1/x", /no IPv4 address/],
    ["10.0.0.1.2:80/x", /no IPv4 address/],
    ["reg.7/x", /no IPv4 address/],
    [`${"a".repeat(64)}.example/x`, /longer/],
    ["docker://reg.example:65536/x", /no port 65536/],
    ["type=registry,ref=localhost:99999/x", /no port 99999/],
  ])("%p is wrong usage", async (text, reason) => {
    for (const role of ["source", "target"] as const) {
      const error = await failure(() => parse(text, role, NOTHING));
      expect(error.exitCode).toBe(2);
      expect(error.message).toMatch(reason);
    }
  });
});

describe("what is refused", () => {
  test.each([
    ["./new", "./new"],
    ["./new:v1", "./new"],
    ["/new/x:v1", "/new/x"],
    ["new.tar:v1", "new.tar"],
    ["a:b/c", "a:b/c"],
    ["user@host/x", "user@host/x"],
    ["C:\\nope:v1", "C:\\nope"],
    ["oci:new:v1", "new"],
    ["oci-layout:///new", "/new"],
    ["oci-archive:new", "new"],
    ["type=local,src=new", "new"],
    ["type=oci,src=new.tar", "new.tar"],
  ])("source %p, which does not exist", async (text, path) => {
    const error = await failure(() => parse(text));
    expect(error.code).toBe("LOCATION_NOT_FOUND");
    expect(error.exitCode).toBe(3);
    expect(error.message).toStartWith("Cannot find source ");
    expect(error.message).toEndWith(JSON.stringify(path));
  });

  test("a name with a slash in a layout that exists is an image name, or shown how to be written", async () => {
    expect(short(parse("layout:feature/x"))).toBe("directory layout feature/x undefined");
    const error = await failure(() => parse("layout:Feature/X"));
    expect(error.hint).toContain("type=local,src=layout,tag=Feature/X");
    expect(short(parse("type=local,src=layout,tag=Feature/X"))).toBe(
      "directory layout Feature/X undefined",
    );
  });

  test("docker-archive: is a tar, for docker load where it is written", () => {
    expect(parse("docker-archive:plain:team/app:1")).toMatchObject({
      kind: "archive",
      name: "team/app:1",
    });
    for (const text of ["docker-archive:new:team/app:1", "docker-archive:plain:team/app:1"])
      expect(parse(text, "target")).toMatchObject({
        kind: "archive",
        name: "team/app:1",
        attributes: { dockerArchive: true },
      });
  });

  test("a folder named oci is told from the scheme", async () => {
    const error = await failure(() => parse("oci:v1"));
    expect(error.hint).toContain("./oci:v1");
  });

  test.each([
    ["", "USAGE", /it is empty/],
    ["a\0b", "USAGE", /NUL/],
    [":v1", "USAGE", /the path is missing/],
    [`@${DIGEST}`, "USAGE", /the path is missing/],
    ["oci:", "USAGE", /nothing follows oci:/],
    ["docker://", "USAGE", /nothing follows docker:/],
    ["oci://reg.example/app", "USAGE", /oci:\/\/ means/],
    ["https://reg.example/app", "USAGE", /without a scheme/],
    ["gs://bucket/x", "NOT_SUPPORTED", /gs:\/\/ are not supported/],
    ["oci-layout+blob://x", "NOT_SUPPORTED", /not supported/],
    ["oci-layout:/x", "NOT_SUPPORTED", /not supported/],
    ["docker-daemon:app:1", "NOT_SUPPORTED", /docker-daemon: are not supported/],
    ["docker-archive:layout", "USAGE", /docker-archive: is for a file and "layout" is a directory/],
    ["dir:/some/folder", "NOT_SUPPORTED", /dir: is a folder in the way of skopeo/],
    ["dir:layout", "NOT_SUPPORTED", /dir: is a folder in the way of skopeo/],
    ["layout:", "REFERENCE_INVALID", /name after the last colon is empty/],
    ["new:", "REFERENCE_INVALID", /name after the last colon is empty/],
    ["-:", "REFERENCE_INVALID", /name after the last colon is empty/],
    [`layout:@${DIGEST}`, "REFERENCE_INVALID", /name after the last colon is empty/],
    ["reg.example/app:", "REFERENCE_INVALID", /name after the last colon is empty/],
    ["layout@", "REFERENCE_INVALID", /"" is no digest/],
    ["layout@sha256:12", "REFERENCE_INVALID", /"sha256:12" is no digest/],
    ["layout@v1", "REFERENCE_INVALID", /"v1" is no digest/],
    [`layout@${DIGEST.toUpperCase()}`, "REFERENCE_INVALID", /is no digest/],
    [`layout@${DIGEST}0`, "REFERENCE_INVALID", /is no digest/],
    [`layout@md5:${"0".repeat(32)}`, "REFERENCE_INVALID", /is no digest/],
    ["new@sha256:12", "REFERENCE_INVALID", /"sha256:12" is no digest/],
    ["reg.example/app@sha256:12", "REFERENCE_INVALID", /"sha256:12" is no digest/],
    ["layout:-x", "REFERENCE_INVALID", /"-x" is neither a tag nor an image name/],
    ["layout:a b", "REFERENCE_INVALID", /"a b" is neither/],
    ["layout:reg.example/App:1", "REFERENCE_INVALID", /is neither/],
    ["reg.example/App", "REFERENCE_INVALID", /must be lower case/],
    ["reg.example:5000/", "REFERENCE_INVALID", /empty/],
    ["docker://my_reg.example/app", "REFERENCE_INVALID", /no host name/],
    ["oci:cache.tar", "USAGE", /"cache.tar" is a file/],
    ["oci-layout://plain:v1", "USAGE", /"plain" is a file/],
    ["oci-archive:layout", "USAGE", /"layout" is a directory/],
  ] as const)("%p", async (text, code, reason) => {
    for (const role of ["source", "target"] as const) {
      const error = await failure(() => parse(text, role));
      expect(error.code).toBe(code);
      expect(error.message).toMatch(reason);
      expect(error.message).not.toEndWith(".");
    }
  });
});

describe("option texts", () => {
  test.each([
    ["source", "type=local,src=layout", "directory layout undefined undefined"],
    ["source", "type=local,src=layout,tag=v1", "directory layout v1 undefined"],
    ["source", `type=local,src=layout,tag=v1,digest=${DIGEST}`, `directory layout v1 ${DIGEST}`],
    [
      "source",
      `type=local,src=layout,tag=,digest=${DIGEST}`,
      `directory layout undefined ${DIGEST}`,
    ],
    ["source", "src=a:b,TYPE=local", "directory a:b undefined undefined"],
    ["target", "type=local,dest=new:x,tag=v1", "directory new:x v1 undefined"],
    ["target", 'type=local,"dest=a,b"', "directory a,b undefined undefined"],
    ["target", "type=local,dest=~/x,mode=max", "directory ~/x undefined undefined"],
    ["source", "type=registry,ref=alpine", "registry docker.io library/alpine null null"],
    ["target", "type=registry,ref=reg.example/app:1,mode=max", "registry reg.example app 1 null"],
    [
      "source",
      `type=registry,ref=reg.example/app@${DIGEST}`,
      `registry reg.example app null ${DIGEST}`,
    ],
    ["target", "type=oci,dest=new", "archive new undefined undefined"],
    ["target", "type=oci,dest=new,tar=", "archive new undefined undefined"],
    ["target", "type=oci,dest=layout,tar=false", "directory layout undefined undefined"],
    [
      "target",
      "type=oci,dest=new,tar=false,name=app",
      "directory new docker.io/library/app:latest undefined",
    ],
    ["target", "type=oci,dest=-", "stream - undefined undefined"],
    [
      "target",
      "type=docker,dest=new.tar,name=reg.example/app:1",
      "archive new.tar reg.example/app:1 undefined",
    ],
    ["source", "type=oci,src=layout", "directory layout undefined undefined"],
    ["source", "type=oci,src=cache.tar", "archive cache.tar undefined undefined"],
    ["source", `type=oci,src=cache.tar,digest=${DIGEST}`, `archive cache.tar undefined ${DIGEST}`],
    ["source", "type=docker,src=-", "stream - undefined undefined"],
  ] as const)("%s %p", (role, text, expected) => {
    const location = parse(text, role);
    expect(short(location)).toBe(expected);
    expect(location.text).toBe(text);
    expect(location.attributes?.notes).toHaveLength(text.includes("mode=") ? 1 : 0);
  });

  test("carry their attributes", () => {
    expect(
      parse("type=local,dest=new,oci-mediatypes=false,compression=zstd", "target").attributes,
    ).toMatchObject({
      imageManifest: false,
      ociMediaTypes: false,
      compression: "zstd",
    });
    expect(parse("type=registry,ref=reg:5000/app,registry.insecure=1").attributes?.insecure).toBe(
      true,
    );
  });

  test("only a tar that is written as type=docker is one for docker load", () => {
    const marked = (text: string, role: Role) => parse(text, role).attributes?.dockerArchive;
    expect(marked("type=docker,dest=new.tar", "target")).toBe(true);
    expect(marked("type=docker,dest=-", "target")).toBe(true);
    expect(marked("type=docker,dest=new,tar=false", "target")).toBeUndefined();
    expect(marked("type=oci,dest=new.tar", "target")).toBeUndefined();
    expect(marked("type=docker,src=cache.tar", "source")).toBeUndefined();
  });

  test.each([
    ["source", "type=local", "USAGE", /local cache importer requires src/],
    ["source", "type=local,src=", "USAGE", /local cache importer requires src/],
    ["target", "type=local", "USAGE", /local cache exporter requires dest/],
    ["source", "type=local,dest=layout", "USAGE", /dest= is for a target/],
    ["target", "type=local,src=layout", "USAGE", /src= is for a source/],
    ["source", "type=local,src=layout,dest=x", "USAGE", /dest= is for a target/],
    ["source", "type=local,src=layout,tag=", "USAGE", /requires either explicit digest/],
    ["source", "type=local,src=layout,digest=sha256:1", "REFERENCE_INVALID", /is no digest/],
    ["source", "type=local,src=cache.tar", "USAGE", /"cache.tar" is a file/],
    ["target", "type=local,dest=cache.tar", "USAGE", /"cache.tar" is a file/],
    ["target", "type=oci,dest=layout", "USAGE", /"layout" is a directory/],
    ["source", "type=oci,src=cache.tar,tar=false", "USAGE", /"cache.tar" is a file/],
    ["target", "type=oci", "USAGE", /type=oci requires dest/],
    ["target", "type=oci,dest=-,tar=false", "USAGE", /dest cannot be stdout for oci exporter/],
    ["target", "type=oci,dest=x,tar=yes", "USAGE", /non-bool value specified for tar/],
    ["target", 'type=oci,dest=x,"name=a,b"', "NOT_SUPPORTED", /several names/],
    ["target", "type=oci,dest=x,name=App", "REFERENCE_INVALID", /lower case/],
    ["source", "type=registry", "USAGE", /registry cache importer requires ref/],
    ["target", "type=registry,ref=", "USAGE", /registry cache exporter requires ref/],
    ["target", "type=registry,ref=App", "REFERENCE_INVALID", /lower case/],
    ["target", "type=,dest=x", "USAGE", /type required for/],
    ["target", "type=local,dest", "USAGE", /invalid value dest/],
    ["target", 'type=local,dest="x"', "USAGE", /bare "/],
    ["target", "type=local,dest=x,foo=bar", "USAGE", /no attribute "foo"/],
    [
      "target",
      "type=local,dest=x,image-manifest=true,oci-mediatypes=false",
      "USAGE",
      /OCI mediatypes are required for image-manifest cache format/,
    ],
    ["target", "type=gcs,bucket=b", "NOT_SUPPORTED", /type=gcs/],
    ["target", "type=inline", "NOT_SUPPORTED", /type=inline/],
    ["target", "type=Local,dest=x", "NOT_SUPPORTED", /type=Local/],
  ] as const)("%s %p is refused", async (role, text, code, reason) => {
    const error = await failure(() => parse(text, role));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(reason);
  });

  test("secrets of other kinds of cache are not repeated", async () => {
    for (const text of ["type=gcs,bucket=b,secret_access_key=hush", "type=oss,token=hush"]) {
      const error = await failure(() => parse(text, "target"));
      expect(error.message + error.hint).not.toContain("hush");
    }
  });
});

test("relative paths are resolved against the working directory, for the probe too", () => {
  const asked: string[] = [];
  const options = {
    cwd: "/srv",
    probe: (path: string): PathKind => {
      asked.push(path);
      return path === "/srv/layout" ? "directory" : undefined;
    },
  };
  expect(parseLocation("layout:v1", { role: "source", ...options })).toMatchObject({
    path: "/srv/layout",
    name: "v1",
    text: "layout:v1",
  });
  expect(asked).toEqual(["/srv/layout:v1", "/srv/layout"]);
  expect(parseLocation("type=local,dest=../new", { role: "target", ...options })).toMatchObject({
    path: "/new",
  });
  expect(parseLocation("/else/new", { role: "target", ...options })).toMatchObject({
    path: "/else/new",
  });
});

test("random texts give a location or a coded error, and targets keep every character", () => {
  const { pick, many, below } = random(6);
  const kinds = new Set<string>();
  for (let round = 0; round < 5000; round++) {
    const text = many(1, 7, () =>
      pick([
        "layout",
        "new",
        "reg.example",
        "localhost",
        "team",
        "App",
        "v1",
        "C",
        ":",
        ":",
        "@",
        "/",
        "\\",
        ".",
        "-",
        "~",
        " ",
        "oci:",
        "oci-archive:",
        "docker://",
        "type=",
        "local",
        "src=",
        ",",
        '"',
        ".tar",
        DIGEST,
        "sha256:",
        "é",
        "[::1]",
      ]),
    );
    const role = below(2) ? "source" : "target";
    try {
      const location = parse(text, role);
      kinds.add(location.kind);
      expect(location.text).toBe(text);
      if (!("path" in location)) continue;
      if (location.attributes) continue;
      const tail = [
        location.path,
        location.name === undefined ? "" : `:${location.name}`,
        location.digest === undefined ? "" : `@${location.digest}`,
      ].join("");
      expect(text.endsWith(tail)).toBe(true);
    } catch (error) {
      if (!(error instanceof CacheportError)) throw error;
      expect([2, 3]).toContain(error.exitCode);
      expect(error.message.length).toBeLessThan(1500);
    }
  }
  expect([...kinds].toSorted()).toEqual(["archive", "directory", "registry", "stream"]);
});

test("hostile texts come to an end, and ask the probe a bounded number of questions", () => {
  for (const piece of [
    ":",
    "@",
    "a:",
    "a@",
    "a.b/:",
    "a.b/c:",
    "f",
    '"',
    "C:/",
    "[::1]:",
    "sha256:",
    "\\",
  ])
    for (const prefix of [
      "",
      "x:",
      "a@",
      "reg.example/",
      "oci:",
      "type=local,",
      'type=local,src="',
    ])
      for (const length of [4_000, 16_000, 1_000_000]) {
        const text = prefix + piece.repeat(length / piece.length) + "!";
        for (const role of ["source", "target"] as const) {
          let asked = 0;
          const probe = () => {
            asked++;
            return undefined;
          };
          try {
            parseLocation(text, { role, probe });
          } catch (error) {
            if (!(error instanceof CacheportError)) throw error;
          }
          expect(asked).toBeLessThan(50_000);
        }
      }
});
