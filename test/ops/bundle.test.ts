// Writes the cases of bundle.ts to build-check/ops.bundle.
import { mkdirSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { bundle } from "./bundle.ts";

test("the bundle of conformance cases is written", () => {
  const folder = new URL("../../build-check/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  const file = bundle();
  writeFileSync(new URL("ops.bundle", folder), file);
  expect(file.length).toBeGreaterThan(1e6);
});
