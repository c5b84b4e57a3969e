// Proof that the emulator catches a wrong kernel: bugs of the kinds that GPU kernels have are put one by one into a copy of attention and the
// head, and attune-stress must fail on each. A bug whose text is no longer in the source is an error: mend the list.
//   npm run test:planted-cuda [-- PATTERN]     about 10 minutes; PATTERN chooses bugs by name
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const build = join(root, "build-check/simt");
const tiles = "attention_wgmma.h";
const forward = "attention_wgmma.cu";
const backward = "attention_backward_wgmma.cu";
const recomputed = "attention_dq_wgmma.cu";
const kept = "attention_dq_kept_wgmma.cu";
const rows = "attention_rows.h";
const mask = "attention_mask.cu";
const head = "linear_logprob_wgmma.cu";
const portable = "attention_mma.cu";
const portableTiles = "attention_mma.h";

/** name; file; pairs of what stands there and what is put in its place. */
const plants = [
  ["tile read before it has landed", tiles, ["    ptx::mbarrier_wait(barriers + turn.stage, turn.parity);\n", ""]],
  [
    "tile overwritten before it was left",
    tiles,
    ["    ptx::mbarrier_wait(barriers + Stages + turn.stage, turn.parity ^ 1);\n", ""],
  ],
  [
    "tile never released",
    tiles,
    ["    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(barriers + Stages + turn.stage);\n", ""],
  ],
  ["lanes out of step when a tile is released", tiles, ["    __syncwarp();\n", ""]],
  ["parity never flips", tiles, ["      parity ^= 1;\n", ""]],
  [
    "one warp too few before a tile is free",
    tiles,
    ["Consumers * kWarpgroup / 32);", "Consumers * kWarpgroup / 32 - 1);"],
  ],
  [
    "one thread releases for its warpgroup",
    tiles,
    ["Consumers * kWarpgroup / 32);", "Consumers);"],
    ["if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive", "if (threadIdx.x % 128 == 0) ptx::mbarrier_arrive"],
  ],
  ["too few bytes announced", tiles, ["begin(turn, T::kLoaded)", "begin(turn, T::kLoaded / 2)"]],
  ["too many bytes announced", tiles, ["begin(turn, T::kLoaded)", "begin(turn, T::kLoaded * 2)"]],
  ["distance of 8 rows halved in a descriptor", tiles, ["kStep * 2, 16, 1024)", "kStep * 2, 16, 512)"]],
  ["distance of panels halved in a descriptor", tiles, ["kPanelBytes, 1024)", "kPanelBytes / 2, 1024)"]],
  ["k-step halved", tiles, ["step % kSteps * kStep * 2", "step % kSteps * kStep"]],
  ["result stored without the swizzle", tiles, ["(j % 8 ^ swizzle) * 16", "j % 8 * 16"]],
  ["labels read without the swizzle", tiles, ["at % kRowValues / 4 ^ row,", "at % kRowValues / 4,"]],
  [
    "a consumer passes the turn to itself",
    tiles,
    ["ptx::named_barrier_arrive(1 + (index + 1) % Consumers, ", "ptx::named_barrier_arrive(1 + index, "],
  ],
  ["nobody begins the turns", forward, ["  consumer.begin_turns();\n", ""]],
  [
    "scores read before they are done",
    forward,
    ["      ptx::wgmma_wait<1>();  // the scores; the product with V runs under the softmax\n", ""],
  ],
  [
    "keys released under the product that reads them",
    forward,
    ["    shared.k.release(turn);\n", ""],
    [
      "    multiply_transposed<kKeys>(score, q, consumer.first_row(), k.rows());\n",
      "    multiply_transposed<kKeys>(score, q, consumer.first_row(), k.rows());\n    shared.k.release(turn);\n",
    ],
  ],
  [
    "values released under the product that reads them",
    forward,
    [
      "      ptx::wgmma_wait<0>();\n      shared.v.release(before);\n#pragma",
      "      shared.v.release(before);\n      ptx::wgmma_wait<0>();\n#pragma",
    ],
  ],
  ["queries not waited for", forward, ["shared.q.wait(q_turn)", "shared.q.tile(q_turn)"]],
  [
    "an item finished before its last product is done",
    forward,
    ["    ptx::wgmma_wait<0>();\n    if (begun) {\n", "    ptx::wgmma_wait<1>();\n    if (begun) {\n"],
  ],
  [
    "queries released before their last scores are done",
    forward,
    ["    shared.q.release(q_turn);\n    q_turn.advance();\n", ""],
    [
      "      multiply_values();\n      consumer.pass_turn();\n      ptx::wgmma_wait<1>();",
      "      if (item.walk.ended()) shared.q.release(q_turn), q_turn.advance();\n      multiply_values();\n      consumer.pass_turn();\n      ptx::wgmma_wait<1>();",
    ],
  ],
  ["values of the item before never released", forward, ["      shared.v.release(before);\n      finish();\n", "      finish();\n"]],
  ["an item begun with the sums of the one before", forward, ["    softmax = {};\n", ""]],
  ["a tile of queries without keys passed over", mask, ["table.never_empty && ", "false && "]],
  ["sums not rescaled", forward, ["out[x] *= shrink[x / 2 % 2];", "out[x] *= 1;"]],
  [
    "registers not fenced",
    forward,
    ["    ptx::wgmma_fence();\n    multiply_transposed", "    multiply_transposed"],
  ],
  [
    "barriers not known before they are used",
    forward,
    ["    shared.init();\n  }\n  __syncthreads();\n", "    shared.init();\n  }\n"],
  ],
  ["stores of a result not fenced", forward, ["    ptx::fence_proxy_async();\n", ""]],
  [
    "result leaves before all of it is there",
    forward,
    ["    ptx::fence_proxy_async();\n    consumer.sync();\n", "    ptx::fence_proxy_async();\n"],
  ],
  [
    "result overwritten while it leaves",
    forward,
    ["    if (consumer.leads()) ptx::tma_store_wait<0>();\n    consumer.sync();", "    consumer.sync();"],
  ],
  [
    "block ends while its result leaves",
    forward,
    ["  consumer.end_turns();\n  if (consumer.leads()) ptx::tma_store_wait<0>();\n", "  consumer.end_turns();\n"],
  ],
  ["statistics stored a row too far", forward, ["row < a.mask.rows)", "row <= a.mask.rows)"]],
  ["edge of the mask off by one", rows, ["first > query || query >= end.x", "first > query || query > end.x"]],
  ["diagonal off by one", rows, ["first + 1 > query || query >= end.y", "first + 1 >= query || query >= end.y"]],
  ["window off by one", rows, ["if (pos.y <= farthest[i])", "if (pos.y < farthest[i])"]],
  [
    "sum of a row over two lanes of four",
    rows,
    ["return pair + __shfl_xor_sync(0xffffffffu, pair, 2);", "return pair;"],
  ],
  ["key's end off by one in the backward", rows, ["column >= end[i]", "column > end[i]"]],
  [
    "tile skipped that holds a visible pair",
    mask,
    ["any = key < query_end && k.end_high > query;", "any = key < query_end && k.end_high > query_end;"],
  ],
  ["tile taken for wholly visible", mask, ["k.end_low >= query_end;", "k.end_low > query;"]],
  [
    "tile outside of the window taken for inside",
    mask,
    ["q.pos_high - k.pos_low < w.mask.window", "q.pos_low - k.pos_low < w.mask.window"],
  ],
  [
    "queries released under the product that reads them",
    backward,
    ["      if (begun) shared.q.release(before);\n", ""],
    [
      "      accumulate(dk, ds, query.rows());\n",
      "      accumulate(dk, ds, query.rows());\n      shared.q.release(turn);\n",
    ],
  ],
  ["dp read before it is done", backward, ["      ptx::wgmma_wait<1>();  // dp\n", ""]],
  [
    "keys of dq released too early",
    recomputed,
    [
      "      accumulate(dq, ds, k.rows());\n      ptx::wgmma_wait<0>();\n      shared.k.release(turn);\n",
      "      accumulate(dq, ds, k.rows());\n      shared.k.release(turn);\n      ptx::wgmma_wait<0>();\n",
    ],
  ],
  [
    "queries of dq released before their last product is done",
    recomputed,
    [
      "      ptx::wgmma_wait<1>();                                                        // the scores\n      if (last) shared.q.release(q_turn);\n",
      "      if (last) shared.q.release(q_turn);\n      ptx::wgmma_wait<1>();\n",
    ],
  ],
  [
    "gradients of dq released before their last product is done",
    recomputed,
    ["        shared.dy.release(q_turn);\n", ""],
    ["      ptx::wgmma_wait<0>();  // dp\n", "      if (last) shared.dy.release(q_turn);\n      ptx::wgmma_wait<0>();\n"],
  ],
  ["queries of dq never released", recomputed, ["      if (last) shared.q.release(q_turn);\n", ""]],
  ["queries of dq kept for the next item", recomputed, ["        q_turn.advance();\n      }\n", "      }\n"]],
  [
    "a head of the group left out",
    backward,
    ["a.group * (split + 1) / a.splits;", "a.group * (split + 1) / a.splits - (a.group > 1);"],
  ],
  [
    "partial sums of a split left out",
    backward,
    ["for (int32_t s = 0; s < splits; ++s)", "for (int32_t s = 0; s + 1 < splits; ++s)"],
  ],
  ...[recomputed, kept].map((file) => [
    `result of ${file} overwritten while it leaves`,
    file,
    [
      "    if (consumer.leads()) ptx::tma_store_wait<0>();\n    consumer.sync();  // the rows",
      "    consumer.sync();  // the rows",
    ],
  ]),
  ...[recomputed, kept].map((file) => [
    `result of ${file} put before others know that the one before has left`,
    file,
    ["    consumer.sync();  // the rows before have left the staging tile\n", ""],
  ]),
  ...[recomputed, kept].map((file) => [
    `block of ${file} ends while its result leaves`,
    file,
    ["  });\n  if (consumer.leads()) ptx::tma_store_wait<0>();\n", "  });\n"],
  ]),
  [
    "kept dS left before its product is done",
    kept,
    [
      "        accumulate(dq, ds, stage.keys());\n        ptx::wgmma_wait<0>();\n      }\n      stages.release(turn);\n",
      "        accumulate(dq, ds, stage.keys());\n        stages.release(turn);\n        ptx::wgmma_wait<0>();\n      } else stages.release(turn);\n",
    ],
  ],
  [
    "kept dS left before it is read",
    kept,
    ["      stages.release(turn);\n", ""],
    [
      "      const Stage<Size> stage = stages.wait(turn);\n",
      "      const Stage<Size> stage = stages.wait(turn);\n      stages.release(turn);\n",
    ],
  ],
  ["an item dealt to nobody", tiles, ["gridDim.x - 1 - blockIdx.x", "gridDim.x - blockIdx.x"]],
  ["kept dS read without the swizzle", kept, ["(own ^ (group % 2 * 64))", "own"]],
  ["stage of the head released a step early", head, ["          ptx::wgmma_wait<1>();\n", ""]],
  [
    "columns that are not there counted",
    head,
    ["const bool whole = left >= kColumns;", "const bool whole = true;"],
  ],
  ["exponentials kept of a lane's neighbour", head, ["odd ? x[k] : x[k + 1], 1)", "odd ? x[k + 1] : x[k], 1)"]],
  ["exponentials kept of rows that are not there", head, [".left = row[i] < problem.rows ? left : 0", ".left = left"]],
  ["exponentials relative to the thread's own highest", head, ["  p.high = fmaxf(p.high, __shfl_xor_sync(~0u, p.high, 2));\n", ""]],
  [
    "last part of the vocabulary left out",
    head,
    ["for (int32_t i = 1; i < count; ++i) p.join", "for (int32_t i = 1; i + 1 < count; ++i) p.join"],
  ],
  [
    "cp.async not waited for",
    portable,
    ["    ptx::cp_async_wait<0>();\n    __syncthreads();  // V is here", "    __syncthreads();  // V is here"],
  ],
  [
    "keys overwritten while others read them",
    portable,
    ["    __syncthreads();  // V is here, and everyone is done with K\n", ""],
  ],
  [
    "row of ldmatrix named by the wrong lane",
    portableTiles,
    ["(row + lane / 16 * 8 + lane % 8)", "(row + lane / 8 * 8 % 16 + lane % 8)"],
  ],
].map(([name, file, ...edits]) => ({ name, file, edits }));

const sourceOf = (file) => readFileSync(join(root, "native/cuda", file), "utf8");

/** The text with the bug in it; each edit's text must stand there once. */
function planted({ name, file, edits }) {
  let text = sourceOf(file);
  for (const [from, to] of edits) {
    const places = text.split(from).length - 1;
    if (places === 0) throw new Error(`planted "${name}": not in native/cuda/${file}: ${JSON.stringify(from)}`);
    text = text.replace(from, () => to);
  }
  return text;
}

/** Sources to compile again: the file, or those that include it, directly or not. */
function units(file) {
  if (file.endsWith(".cu")) return [file];
  const including = readdirSync(join(root, "native/cuda")).filter(
    (f) => /\.(cu|h)$/.test(f) && sourceOf(f).includes(`#include "${file}"`),
  );
  return [...new Set(including.flatMap(units))];
}

const pattern = process.argv[2] ?? "";
const chosen = plants.filter((plant) => plant.name.includes(pattern));
plants.forEach(planted); // before anything is built
execFileSync("cmake", ["-G", "Ninja", "-S", root, "-B", build, "-DATTUNE_DEVICE=simt"], { stdio: "ignore" });
execFileSync("cmake", ["--build", build, "--target", "attune-stress"], { stdio: "inherit" });

const copy = mkdtempSync(join(tmpdir(), "attune-planted-"));
/** Runs attune-stress; what it said when it failed, else nothing. */
function stress(program, kind, settings, sizes) {
  const env = { ...process.env, ...settings };
  const { status, signal, stdout, stderr } = spawnSync(program, [...sizes, kind], {
    env,
    encoding: "utf8",
    timeout: 120_000,
  });
  if (status === 0) return "";
  if (signal) return signal === "SIGTERM" ? "it never ended" : `it died of ${signal}`;
  return (/^simt: .*/m.exec(stderr) ?? /^FAIL.*/m.exec(stdout) ?? [`exit ${status}`])[0];
}

let missed = 0;
try {
  cpSync(join(root, "native"), join(copy, "native"), { recursive: true });
  for (const plant of chosen) {
    const target = join(copy, "native/cuda", plant.file);
    writeFileSync(target, planted(plant));
    const objects = units(plant.file).map((unit) => {
      const object = join(copy, `${unit}.o`);
      const args = [
        "-std=c++20",
        "-O1",
        "-w",
        "-fno-strict-aliasing",
        "-x",
        "c++",
        "-DATTUNE_SIMT",
        `-I${join(copy, "native/simt/include")}`,
      ];
      execFileSync("g++", [...args, "-c", join(copy, "native/cuda", unit), "-o", object]);
      return object;
    });
    writeFileSync(target, sourceOf(plant.file));
    const program = join(copy, "stress");
    const main = join(build, "CMakeFiles/attune-stress.dir/native/check/stress.cc.o");
    if (!existsSync(main)) throw new Error(`planted: ${main} is missing`);
    execFileSync("g++", [main, ...objects, join(build, "libattune_core.a"), "-ldl", "-lpthread", "-o", program]);
    const kind = plant.file === head ? "head" : "attention";
    const arch = plant.file.startsWith("attention_mma") ? "80" : "90";
    const tries = ["early", "late"].flatMap((timing) => [1, 2].map((seed) => [timing, seed, []]));
    for (const seed of [3, 4, 5, 6]) tries.push(["late", seed, ["--rows", "1300"]]);
    let why = "";
    let when = "";
    for (const [timing, seed, sizes] of tries) {
      why = stress(
        program,
        kind,
        { ATTUNE_SIMT_TIMING: timing, ATTUNE_SIMT_SEED: `${seed}`, ATTUNE_SIMT_ARCH: arch },
        sizes,
      );
      when = `${timing}, seed ${seed}`;
      if (why) break;
    }
    if (!why) missed += 1;
    console.log(why ? `caught  ${plant.name} (${when}): ${why.slice(0, 150)}` : `MISSED  ${plant.name}`);
  }
  console.log(`${chosen.length - missed} of ${chosen.length} caught`);
} finally {
  rmSync(copy, { recursive: true, force: true });
}
process.exitCode = missed > 0 ? 1 : 0;
