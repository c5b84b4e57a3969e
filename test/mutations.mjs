// Would the tests notice? Breaks one line at a time in a copy of the repository, compiles it, and runs the named test files (all of them
// part of `npm test`): each must fail. `node test/mutations.mjs` runs all and prints a table; numbers after it choose some.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";

/** [what breaks, file, the line's part, what it becomes, tests under test/] */
const MUTATIONS = [
  ["cotangents that meet are not added", "lib/ir/vjp.ts", "old ? addValues(old, d) : d", "d", "ops/gradients"],
  ["the gradient of 1/sqrt", "lib/ops/primitives/elementwise.ts", "mul(mul(mul(y, y), y), -0.5)", "mul(mul(y, y), -0.5)", "ops/gradients"],
  ["a mean of squares without eps", "lib/ops/rms_norm.ts", "1 / last(x.type)), eps)", "1 / last(x.type)), 0)", "ops/conformance"],
  ["dx + w.dy overwrites what it reads", "lib/passes/plan.ts", "return readers.length === 1 ? p : undefined;", "return p;", "passes/plan"],
  ["a sum is folded though somebody else reads it", "lib/passes/fold.ts", "|| others.length ||", "||", "passes/fold"],
  ["the branch after a shared prompt begins at position 0", "lib/data/pack.ts", "put(b.ids, trunk.length, at", "put(b.ids, 0, at", "data/pack"],
  ["a branch sees one key too many", "lib/data/pack.ts", "put(b.ids, trunk.length, at + b.ids.length)", "put(b.ids, trunk.length, at + b.ids.length + 1)", "data/pack"],
  ["a micro-batch takes one token too many", "lib/data/pack.ts", "bin.tokens + size <= tokensPerBatch", "bin.tokens + size <= tokensPerBatch + 1", "data/pack"],
  ["the first token gets a loss", "lib/data/encode.ts", "trained: clip(trained, 1, ids.length)", "trained: clip(trained, 0, ids.length)", "data/encode data/trl"],
  ["a turn ends with EOS, whatever the template says", "lib/data/stop.ts", "stop: stop ?? eos", "stop: eos", "data/encode data/oracle"],
  ["every epoch has one order", "lib/data/order.ts", "options.epoch >>> 0", "0", "data/pack"],
  ["label smoothing has the wrong sign", "lib/ops/dpo_loss.ts", "logSigmoid(neg(d)), labelSmoothing", "logSigmoid(d), labelSmoothing", "losses"],
  ["IPO's margin is twice its size", "lib/losses/preference.ts", "-1 / (2 * a.beta)", "-1 / a.beta", "losses"],
  ["warm-up begins at the second value", "lib/optim/schedules.ts", "return step / Math.max(1, warmupSteps)", "return (step + 1) / Math.max(1, warmupSteps)", "train/trl_steps"],
  ["a small gradient is scaled up to the limit", "lib/optim/adamw.ts", "Math.min(1, maxNorm / (norm + 1e-6))", "maxNorm / (norm + 1e-6)", "train/trl_steps"],
  ["biases and norms decay, too", "lib/optim/adamw.ts", "first.decay ? a.weightDecay : 0", "a.weightDecay", "train/trl_steps"],
  ["llama3's rope scaling turns the other way", "lib/models/config_rope.ts", "f32(1 - smooth) * f) / factor) + f32(smooth * f)", "f32(smooth) * f) / factor) + f32(f32(1 - smooth) * f)", "models"],
  ["a resumed run has forgotten the second moment", "lib/train/save.ts", "  await session.readFiles(reads);", '  await session.readFiles(reads.filter((r) => !r.buffer.startsWith("optimizer/v/")));', "train/run train/kill"],
  ["a resumed run counts its tokens anew", "lib/train/save.ts", 't.numTokens = Number(state.extra["numTokens"] ?? 0);', "t.numTokens = 0;", "train/run train/kill"],
  ["a resumed run may have another seed", "lib/train/config_fields.ts", 'group: BATCH,\n      description: "Seed of the order of rows."', 'group: BATCH,\n      neutral: true,\n      description: "Seed of the order of rows."', "train/config_file"],
  ["metrics lose the checkpoint's own line", "lib/io/jsonl_writer.ts", 'value["step"] <= step', 'value["step"] < step', "io/jsonl_writer"],
  ["bytes after the last tensor are let pass", "lib/io/safetensors.ts", "if (end !== fileSize)", "if (end > fileSize)", "io/safetensors"],
  ["a shard may lie in another folder", "lib/io/safetensors.ts", "/^[^/\\\\\\0]+\\.safetensors$/", "/^.+\\.safetensors$/", "io/safetensors io/model_folder cli/bad_model"],
  ["a damaged checkpoint is resumed from", "lib/io/checkpoint.ts", "if (hashes[i]!.sha256 !== file.sha256)", "if (hashes[i]!.sha256.length !== file.sha256.length)", "io/checkpoint"],
  ["top_k keeps one too many", "lib/generate/sample.ts", "order.slice(0, o.topK)", "order.slice(0, o.topK + 1)", "generate"],
  ["a completion is scored from its prompt's last token", "lib/evaluate/worker.ts", "tree(whole, Math.max(1, same))", "tree(whole, Math.max(1, same - 1))", "cli/run evaluate"],
  ["numbers that overflow end with the code of a bug", "lib/cli/exit.ts", "[NumericError, EXIT.numeric]", "[NumericError, EXIT.bug]", "cli/run"],
  ["the second Ctrl-C waits as the first does", "lib/cli/signals.ts", "if (!graceful || code !== undefined)", "if (!graceful)", "cli/bad_machine"],
  ["two letters that change places are two mistakes", "lib/train/config_hints.ts", "a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]", "false", "train/config"],
  ["a file's text may turn the terminal's direction", "lib/cli/text.ts", "\\u202a-\\u202e", "\\u202a-\\u202d", "cli/flags"],
  ["packed weights are left out of the memory needed", "lib/engine/memory.ts", "dry.bufferBytes + dry.derivedBytes + dry.arenaBytes", "dry.bufferBytes + dry.arenaBytes", "train/run train/plan"],
  ["a packed weight does not see that all were written at once", "native/runtime/session.h", "root().writes", "writes", "runtime/session"],
  ["biases and norms are updated with what decays", "lib/optim/adamw.ts", "p.decay === parameters[i - 1]?.decay", "i > 0", "optim"],
  ["kernel: rms_norm without eps", "native/cpu/rms_norm.cc", "static_cast<double>(width) + a.eps)", "static_cast<double>(width))", "ops/conformance"],
  ["kernel: the window is one key too wide", "native/cpu/attention_part.inl", "less(set(pos[i]) - load(pos + j), set(window))", "less(set(pos[i]) - load(pos + j), set(window + 1))", "ops/conformance"],
  ["kernel: AdamW's eps stands inside the root", "native/cpu/adamw.cc", "mean / fma(sqrt(square), root, eps)", "mean / (sqrt(square + eps) * root)", "ops/conformance"],
  ["queued runs share their pinned memory", "native/runtime/session_machine.cc", "p.runs++ % 2", "p.runs++ % 1", "cuda/queue"],
  ["a queued run's outputs are read before they are there", "native/runtime/session_machine.cc", "if (Status s = turn.ended->wait(); !s.ok()) return s;", "", "cuda/queue"],
  ["what a timed op changed is not put back", "native/cuda/device.cc", "for (size_t i = 0; i < spans_.size(); ++i)", "for (size_t i = spans_.size(); i < spans_.size(); ++i)", "cuda/profile"],
  ["a step's second micro-batch writes over the first", "lib/train/trainer.ts", 'i === 0 ? GRADIENTS : ""', "GRADIENTS", "train/overwrite"],
  ["a step adds onto the gradients of the one before", "lib/train/trainer.ts", 'i === 0 ? GRADIENTS : ""', '""', "train/overwrite"],
  ["rows whose number comes with a run count as written", "native/runtime/session_ways.cc", "if (!counted(s.type)) written.add(r);", "written.add(r);", "runtime/overwrite"],
  ["a recording adds onto what it should write over", "native/runtime/session_machine.cc", " || way.leaves_out(index, i)", "", "cuda/overwrite"],
  ["no micro-batch stands behind the one that computes", "lib/train/trainer.ts", "const AHEAD = 3;", "const AHEAD = 1;", "cuda/queue"],
];

const root = fileURLToPath(new URL("..", import.meta.url));
const copy = mkdtempSync(join(tmpdir(), "attune-mutations-"));
process.on("exit", () => rmSync(copy, { recursive: true, force: true }));
for (const part of ["package.json", "tsconfig.json", "vitest.config.ts", "binding.gyp", "README.md", "lib", "native", "scripts", "test", "docs", "examples", "build", "dist", "CMakeLists.txt"])
  cpSync(join(root, part), join(copy, part), { recursive: true, preserveTimestamps: true });
symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));

const node = (...args) => spawnSync(process.execPath, args, { cwd: copy, encoding: "utf8", env: { ...process.env, XDG_CACHE_HOME: join(copy, "cache") } });
const tsc = () => node("node_modules/typescript/bin/tsc", "-p", "tsconfig.json", "--noEmitOnError", "false");
const build = (file) => (file.startsWith("native/") ? node("scripts/install.mjs") : tsc());

/** Whether the tests of a mutation fail, and which of them first says so. */
function fate([, file, from, to, tests]) {
  const path = join(copy, file);
  const text = readFileSync(path, "utf8");
  if (text.split(from).length !== 2) return "must stand once in its file, got another count";
  writeFileSync(path, text.replace(from, () => to));
  const result = run(file, tests);
  writeFileSync(path, text);
  if (build(file).status !== 0) throw new Error(`the copy does not compile after ${file} was mended`);
  return result;
}

function run(file, tests) {
  const built = build(file);
  if (built.status !== 0) return `does not compile: ${(built.stdout + built.stderr).trim().split("\n")[0]}`;
  const ran = node("node_modules/vitest/vitest.mjs", "run", "--bail=1", ...tests.split(" ").map((t) => `test/${t}`));
  if (ran.status === 0) return "SURVIVED";
  const said = stripVTControlCharacters(ran.stdout + ran.stderr);
  return /FAIL\s+(.+)/.exec(said) ? `caught: ${/FAIL\s+(.+)/.exec(said)[1]}` : `did not run: ${said.trim().split("\n").at(-1)}`;
}

const chosen = process.argv.slice(2).map(Number);
let wrong = 0;
for (const [i, mutation] of MUTATIONS.entries()) {
  if (chosen.length > 0 && !chosen.includes(i + 1)) continue;
  const result = fate(mutation);
  if (!result.startsWith("caught")) wrong++;
  console.log(`${String(i + 1).padStart(2)}  ${mutation[0]} (${mutation[1]})\n    ${result}`);
}
console.log(wrong === 0 ? "every one was caught" : `${wrong} were not caught`);
process.exitCode = wrong === 0 ? 0 : 1;
