// Child of checkpoint.test.ts: saves checkpoints without end until it is killed. Arguments: output folder, first step.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { saveCheckpoint, pruneCheckpoints } from "#lib/io/checkpoint.js";

const [outputDir, first] = process.argv.slice(2);
for (let step = Number(first); ; step++) {
  const state = {
    step,
    epoch: step / 10,
    cursor: { epoch: 0, example: step },
    configHash: "h",
    seeds: { data: 1 },
    extra: {},
  };
  await saveCheckpoint(outputDir, state, async (dir) => {
    for (const name of ["model.safetensors", "optimizer.safetensors"])
      await writeFile(join(dir, name), Buffer.alloc(3000, step));
  });
  await pruneCheckpoints(outputDir, 2);
  process.stdout.write(`${step}\n`);
}
