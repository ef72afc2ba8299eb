/** The completions of zsh, in a zsh that believes somebody types into it. */
import { beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { BINARY, cacheport } from "./helpers/binary.ts";
import { fixtureCopy, tempFolder } from "./helpers/temp.ts";

/** Read by the zsh that is typed into: notes down whatever is offered. */
const SETUP = `
PS1= RPS1=
autoload -Uz compinit && compinit -u -C -d $HOME/.zcompdump
source <(cacheport completion zsh)
compadd() {
  # These only ask what would match.
  if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then
    builtin compadd "$@"
    return
  fi
  local -a hits
  builtin compadd -A hits "$@"
  (( $#hits )) && print -rl -- $hits >> $OUT
  builtin compadd "$@"
}
note() { zle list-choices; : > $OUT.done }
zle -N note
bindkey '^I' note
: > $OUT.ready
`;

/** Types a line into a zsh of its own and waits for the answer. */
const DRIVER = `
zmodload zsh/zpty zsh/zselect
await() { local i; for i in {1..1000}; do [[ -e $1 ]] && return; zpty -r -t z skipped; zselect -t 2; done; exit 9 }
zpty -b z zsh -f -i
zpty -w z 'source $HOME/setup.zsh'
await $OUT.ready
zpty -w -n z $LINE$'\\t'
await $OUT.done
zpty -d z
`;

/** Milliseconds for one line; the first one makes zsh look through all its functions. */
const PATIENCE = 30_000;

let folder = "";
let home = "";
beforeAll(() => {
  home = tempFolder();
  folder = dirname(fixtureCopy("image-dir"));
  Bun.spawnSync(["mv", "image-dir", "layout"], { cwd: folder });
});

function complete(line: string): string[] {
  const out = join(tempFolder(), "out");
  writeFileSync(join(home, "setup.zsh"), SETUP);
  writeFileSync(join(home, "driver.zsh"), DRIVER);
  writeFileSync(out, "");
  const child = Bun.spawnSync(["zsh", "-f", join(home, "driver.zsh")], {
    cwd: folder,
    env: {
      PATH: `${dirname(BINARY)}:${process.env["PATH"]}`,
      HOME: home,
      OUT: out,
      LINE: line,
      TERM: "xterm",
    },
  });
  expect(child.exitCode).toBe(0);
  return readFileSync(out, "utf8").split("\n").filter(Boolean);
}

describe.skipIf(Bun.which("zsh") === null)("zsh completes", () => {
  test.each([
    ["cacheport comp", ["completion"], ["copy"]],
    ["cacheport --jobs 4 comp", ["completion"], []],
    ["cacheport completion ", ["bash", "zsh", "fish", "powershell"], ["layout"]],
    ["cacheport completion --pro", ["--progress"], ["--json"]],
    ["cacheport completion --progress=j", ["json"], ["auto", "plain"]],
    ["cacheport convert --to ", ["image-manifest", "oci-index"], []],
    ["cacheport self-check --d", ["--dir"], ["--json"]],
    ["cacheport help self", ["self-check"], ["completion"]],
    ["cacheport ls lay", ["layout"], ["bash"]],
  ])(
    "%p",
    (line, some, none) => {
      const words = complete(line).map((word) => word.replace(/[=/]$/, ""));
      for (const word of some) expect(words).toContain(word);
      for (const word of none) expect(words).not.toContain(word);
    },
    PATIENCE,
  );

  test.each(["ls", "inspect", "convert", "verify", "copy"])(
    "the names in a layout for %s",
    async (command) => {
      const { json } = await cacheport(["ls", "layout", "--json"], {
        cwd: folder,
      });
      const names = json<{ refName: string | null; imageName: string | null }[]>()
        .flatMap(({ imageName, refName }) => imageName ?? refName ?? [])
        .map((name) => `layout:${name}`);
      expect(names.length).toBeGreaterThan(0);
      const words = complete(`cacheport ${command} layout:`);
      for (const name of names) expect(words).toContain(name);
    },
    PATIENCE,
  );
});
