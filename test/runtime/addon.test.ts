// The native boundary itself: what reaches it from elsewhere than Session is refused, and a missing build says how to mend it.
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { tableHash } from "#lib/program/encode.js";
import { loadAddon, type Handle } from "#lib/runtime/addon.js";
import { kernelOps } from "#lib/ir/op.js";
import { root, short, temporaryFolder } from "./tools.ts";

describe("the addon", () => {
  const addon = loadAddon();
  it("knows the ops of the registry, in its order", () => {
    expect(addon.tableHash).toBe(tableHash());
    expect(addon.ops).toEqual(kernelOps().map((d) => d.name));
  });
  it("takes nothing but its own handles", async () => {
    const open = (): Handle => addon.open({ device: "null", threads: 1, hugePages: false });
    const h = open();
    const strangers = [undefined, null, 1, "x", {}, [], Object.create(h), new Proxy(h, {}), new Map(), () => 0];
    for (const stranger of strangers as Handle[]) {
      for (const call of [addon.sizes, addon.load, addon.run, addon.read, addon.cancel, addon.close] as ((
        h: Handle,
      ) => unknown)[]) {
        expect(() => call(stranger)).toThrow("this is not a session handle");
      }
    }
    await addon.close(h);
    expect(() => addon.close(h)).toThrow("must be open, got a closed one");
    addon.cancel(h, 1);
  });
  it("survives wrong arguments of every kind", async () => {
    const h = addon.open({ device: "null", threads: 1, hugePages: false });
    const { id } = await addon.load(h, short);
    const values = [
      undefined,
      null,
      NaN,
      -1,
      1e300,
      0.5,
      "",
      "x",
      {},
      [],
      [1],
      [{}],
      Symbol("s"),
      1n,
      new Float32Array(2),
      h,
    ];
    const functions = Object.values(addon).filter((f) => typeof f === "function") as ((...a: unknown[]) => unknown)[];
    const safe = functions.filter((f) => f !== addon.close);
    let thrown = 0;
    for (const f of safe) {
      for (const a of values) {
        for (const b of values) {
          try {
            await f(h, a, b, a, b, b, a, a, b, a);
          } catch (error) {
            expect(error).toBeInstanceOf(Error);
            thrown += 1;
          }
        }
      }
    }
    expect(thrown).toBeGreaterThan(1000);
    await addon.run(h, 1, id, [], [], [], [], [], "", 0);
    await addon.close(h);
  });
});

describe("a package", () => {
  /** A copy of the package with its compiled TypeScript and no native build. */
  function copy(): string {
    const folder = temporaryFolder();
    for (const part of ["package.json", "dist"]) cpSync(join(root, part), join(folder, part), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    return folder;
  }
  const env = { ...process.env, ATTUNE_ADDON: "" };
  const create = (folder: string): string => {
    const script =
      'import("#lib/runtime/session.js").then(({ Session }) => Session.create()).catch((e) => console.log(`${e.code} ${e.message}`))';
    writeFileSync(join(folder, "try.mjs"), `await ${script}`);
    return spawnSync(process.execPath, [join(folder, "try.mjs")], { encoding: "utf8", env }).stdout;
  };
  it("without a build says in one sentence how to get one", () => {
    const folder = copy();
    expect(create(folder)).toBe(
      "ERR_DEVICE native addon: must be built, found none (`npm rebuild attune` builds it)\n",
    );
    writeFileSync(join(folder, "tsconfig.json"), "{}");
    expect(create(folder)).toBe("ERR_DEVICE native addon: must be built, found none (`npm run build` builds it)\n");
  });
  it("with a broken build says the same", () => {
    const folder = copy();
    mkdirSync(join(folder, "build/Release"), { recursive: true });
    writeFileSync(join(folder, "build/Release/attune.node"), "not an addon");
    expect(create(folder)).toMatch(
      /^ERR_DEVICE native addon: .* must load, got an error: .*`npm rebuild attune` builds it anew\)\n$/,
    );
  });
});
