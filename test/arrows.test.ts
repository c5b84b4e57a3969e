// The arrows between rooms: a forbidden import is reported, wherever it is planted; the tree as it stands has none.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { ARROWS, forbidden, reach } from "../scripts/check.mjs";

const dir = mkdtempSync(join(tmpdir(), "attune-arrows-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
let trees = 0;

/** What is reported of a tree that holds these files alone. */
function report(files: Record<string, string>): string[] {
  const tree = join(dir, String(trees++));
  for (const folder of ["lib", "native"]) mkdirSync(join(tree, folder), { recursive: true });
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(join(tree, file, ".."), { recursive: true });
    writeFileSync(join(tree, file), text);
  }
  return forbidden(join(tree, "lib"), join(tree, "native")).map((line: string) => line.replace(/^.*?(?=lib\/|native\/)/, ""));
}

const rooms = Object.keys(ARROWS);

test("the tree has no forbidden import", () => expect(forbidden()).toEqual([]));

test("from every room to every other: reported exactly where no arrow leads", () => {
  let caught = 0;
  for (const from of rooms)
    for (const to of rooms) {
      const lines = report({ [`lib/${from}/planted.ts`]: `import { x } from "../${to}/x.ts";\n` });
      const allowed = reach(from).has(to);
      expect(lines, `${from} -> ${to}`).toEqual(allowed ? [] : [`lib/${from}/planted.ts: ${from} may not import ${to} (../${to}/x.ts)`]);
      if (!allowed) caught++;
    }
  expect(caught).toBeGreaterThan(rooms.length);
});

test.each([
  ["a type", `import type { X } from "../train/x.ts";`],
  ["a re-export", `export * from "../train/x.ts";`],
  ["an import() at run time", `const x = await import("../train/x.ts");`],
])("%s is an import too", (_, line) => {
  expect(report({ "lib/ir/deep/planted.ts": line.replace("../", "../../") })).toHaveLength(1);
});

test("a folder that is no room, the addon outside runtime, napi.h outside native/addon", () => {
  expect(report({ "lib/utils/x.ts": "" })).toEqual(["lib/utils/x.ts: utils is no room"]);
  expect(report({ "lib/train/x.ts": `import a from "../../build/Release/attune.node";` })).toEqual(["lib/train/x.ts: only runtime imports the addon"]);
  expect(report({ "native/cpu/x.cc": "#include <napi.h>\n" })).toEqual(["native/cpu/x.cc: napi.h belongs to native/addon"]);
});
