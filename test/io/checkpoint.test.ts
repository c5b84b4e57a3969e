// Checkpoints: whole or absent, whatever happens while they are written; a damaged one is passed over with its reason.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { WriteError } from "#lib/errors.js";
import { removeDeadTemporaries, temporaryName, writeFolder, writeInto } from "#lib/io/atomic_folder.js";
import { bufferReads, createBufferFile } from "#lib/io/buffer_file.js";
import {
  checkpointSteps,
  newestCheckpoint,
  pruneCheckpoints,
  saveCheckpoint,
  type CheckpointState,
} from "#lib/io/checkpoint.js";
import { createShards } from "#lib/io/save_model.js";
import { layoutSafetensors } from "#lib/io/safetensors.js";
import { ensureWritableFolder } from "#lib/io/write.js";
import { random, temporaryFolder } from "./tools.ts";

function stateAt(step: number): CheckpointState {
  return {
    step,
    epoch: step / 4,
    cursor: { epoch: 1, example: 12 },
    configHash: "abc",
    seeds: { data: 42 },
    extra: { best: [1, null] },
  };
}

async function save(out: string, step: number): Promise<void> {
  await saveCheckpoint(out, stateAt(step), async (dir) => {
    await writeFile(join(dir, "model.safetensors"), Buffer.alloc(1000, step));
    await writeFile(join(dir, "config.json"), "{}");
  });
}

describe("a saved checkpoint", () => {
  it("comes back with its state", async () => {
    const out = temporaryFolder();
    await save(out, 3);
    await save(out, 20);
    const { checkpoint, skipped } = await newestCheckpoint(out);
    expect(checkpoint).toEqual({ dir: join(out, "checkpoint-20"), step: 20, state: stateAt(20) });
    expect(skipped).toEqual([]);
    expect(readdirSync(out).sort()).toEqual(["checkpoint-20", "checkpoint-3"]);
  });

  it("replaces one of the same step", async () => {
    const out = temporaryFolder();
    await save(out, 3);
    writeFileSync(join(out, "checkpoint-3", "model.safetensors"), "damaged");
    await save(out, 3);
    expect((await newestCheckpoint(out)).checkpoint?.step).toBe(3);
    expect(readdirSync(out)).toEqual(["checkpoint-3"]);
  });

  it("is missing in a folder without any, and in a missing folder", async () => {
    const out = temporaryFolder();
    mkdirSync(join(out, "checkpoint-best"));
    mkdirSync(join(out, "checkpoint-007"));
    expect(await newestCheckpoint(out)).toEqual({ checkpoint: null, skipped: [] });
    expect(await newestCheckpoint(join(out, "none"))).toEqual({ checkpoint: null, skipped: [] });
  });
});

describe("a damaged checkpoint is passed over", () => {
  const damages: [string, (dir: string) => void, RegExp][] = [
    ["a missing manifest", (d) => rmSync(join(d, "state.json")), /state.json.*no such file/],
    ["half a manifest", (d) => writeFileSync(join(d, "state.json"), readFileSync(join(d, "state.json")).subarray(0, 90)), /must be JSON/],
    ["another format", (d) => writeFileSync(join(d, "state.json"), `{"format": 2}`), /format must be 1, got 2/],
    ["another step", (d) => writeFileSync(join(d, "state.json"), readFileSync(join(d, "state.json"), "utf8").replace('"step": 9', '"step": 8')), /must hold step 9/],
    ["a file name that leads out", (d) => writeFileSync(join(d, "state.json"), readFileSync(join(d, "state.json"), "utf8").replace('"config.json"', '"../config.json"')), /files must list/],
    ["a missing file", (d) => rmSync(join(d, "model.safetensors")), /model.safetensors.*no such file/],
    ["a file cut short", (d) => writeFileSync(join(d, "model.safetensors"), Buffer.alloc(999, 9)), /must be 1000 bytes by state.json, got 999/],
    ["one flipped bit", (d) => writeFileSync(join(d, "model.safetensors"), Buffer.alloc(1000, 9).fill(8, 500, 501)), /content must match/],
  ]; // prettier-ignore
  it.each(damages)("%s", async (_what, damage, reason) => {
    const out = temporaryFolder();
    await save(out, 5);
    await save(out, 9);
    damage(join(out, "checkpoint-9"));
    const { checkpoint, skipped } = await newestCheckpoint(out);
    expect(checkpoint?.step).toBe(5);
    expect(skipped).toHaveLength(1);
    expect(skipped[0]!.reason).toMatch(reason);
  });
});

describe("failing while a checkpoint is written", () => {
  it.runIf(existsSync("/dev/full"))("on a full disk is a WriteError and leaves the last checkpoint alone", async () => {
    const out = temporaryFolder();
    await save(out, 1);
    const layout = layoutSafetensors([{ name: "w", dtype: "F32", shape: [4] }]);
    const failing = saveCheckpoint(out, stateAt(2), async (dir) => {
      symlinkSync("/dev/full", join(dir, "model.safetensors"));
      await createShards(dir, layout.shards);
    });
    await expect(failing).rejects.toThrow(WriteError);
    await expect(failing).rejects.toThrow(/the disk is full/);
    expect(readdirSync(out)).toEqual(["checkpoint-1"]);
    expect((await newestCheckpoint(out)).checkpoint?.step).toBe(1);
  });

  it("for any other reason leaves nothing behind and passes the reason on", async () => {
    const out = temporaryFolder();
    const reason = new Error("the session is lost");
    await expect(saveCheckpoint(out, stateAt(2), () => Promise.reject(reason))).rejects.toBe(reason);
    expect(readdirSync(out)).toEqual([]);
  });

  it("because the output folder cannot be made is a WriteError", async () => {
    const out = temporaryFolder();
    writeFileSync(join(out, "file"), "");
    await expect(save(join(out, "file"), 1)).rejects.toThrow(WriteError);
    await expect(ensureWritableFolder(join(out, "file", "run"))).rejects.toThrow(/output_dir: must be a folder/);
  });
});

describe("save_total_limit", () => {
  it("keeps the newest complete ones and removes all that is older", async () => {
    const out = temporaryFolder();
    for (const step of [1, 2, 3, 10]) await save(out, step);
    rmSync(join(out, "checkpoint-3", "config.json"));
    expect(await pruneCheckpoints(out, 2)).toEqual([join(out, "checkpoint-1")]);
    expect(await checkpointSteps(out)).toEqual([2, 3, 10]);
    await save(out, 11);
    await pruneCheckpoints(out, 2);
    expect(await checkpointSteps(out)).toEqual([10, 11]);
    expect(readdirSync(out)).toHaveLength(2);
  });
});

describe("temporaries", () => {
  const child = fileURLToPath(new URL("checkpoint_child.mjs", import.meta.url));

  it("survive while their process lives, and are removed once it is gone", async () => {
    const out = temporaryFolder();
    const other = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60000)"]);
    const mine = temporaryName(join(out, "checkpoint-1"));
    const theirs = mine.replace(`tmp-${process.pid}-`, `tmp-${other.pid}-`);
    const earlier = mine.replace(/-(\d+)-([0-9a-f]+)$/, (_all, start, token) => `-${Number(start) - 1000}-${token}`);
    for (const dir of [mine, theirs, earlier]) mkdirSync(dir);
    writeFileSync(join(theirs, "half"), "x");
    expect(await removeDeadTemporaries(out)).toEqual([earlier.slice(out.length + 1)]); // our process id in an earlier life
    other.kill("SIGKILL");
    await new Promise((resolve) => other.on("exit", resolve));
    expect(await removeDeadTemporaries(out)).toEqual([theirs.slice(out.length + 1)]);
    expect(existsSync(mine)).toBe(true);
  });

  it("are all that a kill at any moment leaves, besides whole checkpoints", async () => {
    const out = temporaryFolder();
    const next = random(11);
    let done = 0;
    for (let kill = 0; kill < 12; kill++) {
      const run = spawn(process.execPath, [child, out, String(done + 1)], { stdio: ["ignore", "pipe", "inherit"] });
      const exited = new Promise((resolve) => run.on("exit", resolve));
      let said = done;
      run.stdout.on("data", (data: Buffer) => (said = Number(data.toString().trim().split("\n").at(-1))));
      while (said < done + 1 + (kill % 2)) await new Promise((resolve) => run.stdout.once("data", resolve));
      await new Promise((resolve) => setTimeout(resolve, next() * 60));
      run.kill("SIGKILL");
      await exited;
      await removeDeadTemporaries(out);
      const { checkpoint, skipped } = await newestCheckpoint(out);
      expect(skipped).toEqual([]);
      expect(checkpoint!.step).toBeGreaterThanOrEqual(said);
      expect(readFileSync(join(checkpoint!.dir, "model.safetensors")).every((b) => b === checkpoint!.step % 256)).toBe(
        true,
      );
      expect(readdirSync(out).every((name) => /^checkpoint-\d+$/.test(name))).toBe(true);
      done = checkpoint!.step;
    }
  }, 30_000);
});

describe("writing into a folder that holds other things", () => {
  it("replaces the old set of files, with the marked one last", async () => {
    const out = temporaryFolder();
    const stale = /^model.*\.safetensors$/;
    for (const name of ["metrics.jsonl", "config.json", "model-00001-of-00002.safetensors"])
      writeFileSync(join(out, name), "old");
    const put = (names: string[]) => (dir: string) =>
      Promise.all(names.map((n) => writeFile(join(dir, n), "new"))).then(() => undefined);
    await writeInto(out, put(["model.safetensors", "config.json"]), { last: "config.json", stale });
    expect(readdirSync(out).sort()).toEqual(["config.json", "metrics.jsonl", "model.safetensors"]);
    expect(readFileSync(join(out, "config.json"), "utf8")).toBe("new");
    await expect(writeInto(out, () => Promise.reject(new Error("no")), { last: "config.json", stale })).rejects.toThrow(
      "no",
    );
    expect(readdirSync(out).sort()).toEqual(["config.json", "metrics.jsonl", "model.safetensors"]);
  });

  it("creates a folder whose parent is missing", async () => {
    const dir = join(temporaryFolder(), "a", "b");
    await writeFolder(dir, (draft) => writeFile(join(draft, "x"), "1"));
    expect(readdirSync(dir)).toEqual(["x"]);
  });
});

describe("buffers", () => {
  const buffers = [
    { name: "optimizer/m/model.norm.weight", shape: [6], dtype: "float32" },
    { name: "optimizer/v/lm_head.weight", shape: [5, 6], dtype: "float32" },
  ] as const;

  it.each([5e9, 30])("are read where they were written, with shards of at most %d bytes", async (maxShardBytes) => {
    const dir = temporaryFolder();
    const writes = await createBufferFile(dir, "optimizer", buffers, { maxShardBytes });
    expect(writes.map((w) => [w.buffer, w.rows])).toEqual([[buffers[0].name, 6], [buffers[1].name, 5]]); // prettier-ignore
    expect(await bufferReads(dir, "optimizer", buffers)).toEqual(writes);
  });

  it("must be there, with their shape and dtype", async () => {
    const dir = temporaryFolder();
    await createBufferFile(dir, "optimizer", buffers);
    await expect(bufferReads(dir, "optimizer", [{ ...buffers[0], name: "other" }])).rejects.toThrow(/must hold other/);
    await expect(bufferReads(dir, "optimizer", [{ ...buffers[0], shape: [7] }])).rejects.toThrow(
      /must be float32 \[7\], got F32 \[6\]/,
    );
    await expect(bufferReads(dir, "optimizer", [{ ...buffers[0], dtype: "bfloat16" }])).rejects.toThrow(
      /must be bfloat16/,
    );
    await expect(bufferReads(dir, "missing", buffers)).rejects.toThrow(/missing.safetensors.index.json/);
  });
});
