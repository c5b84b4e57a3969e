// The package's types as somebody else's program sees them, and the words beside everything that it can import.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, copyFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { afterAll, describe, expect, test } from "vitest";
import * as kernels from "#lib/kernels.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "attune-consumer-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

mkdirSync(join(dir, "node_modules/@types"), { recursive: true });
symlinkSync(root, join(dir, "node_modules/attune"));
symlinkSync(join(root, "node_modules/@types/node"), join(dir, "node_modules/@types/node"));
writeFileSync(join(dir, "package.json"), JSON.stringify({ type: "module" }));
copyFileSync(new URL("./consumer.ts", import.meta.url), join(dir, "consumer.ts"));

const program = ts.createProgram([join(dir, "consumer.ts")], {
  target: ts.ScriptTarget.ES2022,
  lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts"],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  types: ["node"],
  strict: true,
  noUncheckedIndexedAccess: true,
  exactOptionalPropertyTypes: true,
  noEmit: true,
});
const checker = program.getTypeChecker();

/** What a module of the package exports: each name with the words beside it. */
function exported(file: string): Map<string, string> {
  const source = program.getSourceFiles().find((f) => f.fileName.endsWith(`/dist/${file}`))!;
  const symbols = checker.getExportsOfModule(checker.getSymbolAtLocation(source)!);
  const words = (s: ts.Symbol): string => {
    const own = s.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(s) : s;
    return ts.displayPartsToString(own.getDocumentationComment(checker));
  };
  return new Map(symbols.map((s) => [s.name, words(s)]));
}

test("a strict program compiles, its mistakes do not", () => {
  const found = ts.getPreEmitDiagnostics(program).map((d) => `${d.file?.fileName}: ${ts.flattenDiagnosticMessageText(d.messageText, "\n")}`);
  expect(found).toEqual([]);
});

describe("words stand beside", () => {
  for (const file of ["index.d.ts", "kernels.d.ts"])
    test(`everything of ${file}`, () => {
      const silent = [...exported(file)].filter(([, words]) => words.trim() === "").map(([name]) => name);
      expect(silent).toEqual([]);
    });

  test("each op, with its inputs and outputs by name", () => {
    const words = exported("kernels.d.ts");
    for (const [name, value] of Object.entries(kernels)) {
      if (!("def" in value)) continue;
      const { inputs, optional, outputs } = value.def;
      const missing = [...inputs, ...optional, ...outputs].filter((k) => !new RegExp(`\\b${k}\\b`).test(words.get(name)!));
      expect([name, missing]).toEqual([name, []]);
    }
  });
});
