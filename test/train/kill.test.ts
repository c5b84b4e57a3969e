// A small `npm run test:kill`: three kills of SFT and DPO runs at random moments, resumed; fifty are a command of their own.
import { expect, test } from "vitest";
import { killRuns } from "./kill.mjs";

test("killed with SIGKILL and resumed equals never killed, to the last bit", async () => {
  const seed = (Date.now() % 1e6) + 1;
  const struck = await killRuns({ kills: 3, seed }).catch((error: Error) => Promise.reject(new Error(`seed ${seed}: ${error.message}`)));
  expect(Object.values(struck).reduce((a, b) => a + b, 0)).toBe(3);
}, 120_000);
