// Tests run against the built package (`#lib/*` is dist/*), as a user gets it.
import { defineConfig } from "vitest/config";

export default defineConfig({ test: { include: ["test/**/*.test.ts"], testTimeout: 120_000, maxWorkers: 2, env: { ATTUNE_NICE: "10" } } });
