// Proof that conformance catches a wrong kernel: a copy of the native sources whose executor spoils what every kernel wrote, one kind of
// fault a run. Each op with a kernel must fail under each fault that can touch it. By hand, about 4 minutes: npm run test:planted
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import "#lib/ops/index.js";
import { kernelOps } from "#lib/ir/op.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const call = "device_->kernels[code.opcode](args, context);";
const spoil = `
    if (const char* fault = std::getenv("ATTUNE_PLANT")) {
      const OpInfo& info = kOps[code.opcode];
      const Tensor& y = tensors[info.inputs + info.optionals];
      const std::string kind = fault;
      auto* raw = static_cast<uint8_t*>(y.data);
      bool shared = false, wide = threads() == 3;
      for (int i = 0; i < info.inputs + info.optionals; ++i) shared |= y.data != nullptr && tensors[i].data == y.data;
      const int64_t last = (y.size() - 1) * width(y.dtype);
      if (y.data != nullptr && y.size() > 0) {
        if (kind == "element" && y.dtype == DType::f32) y.as<float>()[y.size() - 1] = 1.5f * y.as<float>()[y.size() - 1] + 0.5f;
        else if (kind == "element") raw[last + 1] ^= 0x40;
        if (kind == "byte past its output") raw[y.bytes()] ^= 1;
        if (kind == "byte before its output") raw[-1] ^= 1;
        if ((kind == "other bits in place" && shared) || (kind == "other bits with three threads" && wide)) raw[last] ^= 1;
      }
    }`;
const inPlace = (def) => Object.keys({ ...def.inplace, ...def.accumulate })[0] === def.outputs[0];
/** Each fault: which tests see it, and which ops it can touch. */
const faults = [
  ["element", "^(?!.*NaN).*float32", () => true],
  ["byte past its output", "^(?!.*NaN).*float32", () => true],
  ["byte before its output", "^(?!.*NaN).*float32", () => true],
  ["other bits with three threads", "^(?!.*NaN).*float32", () => true],
  ["other bits in place", "^(?!.*NaN).*float32", inPlace],
];

const copy = mkdtempSync(join(tmpdir(), "attune-planted-"));
try {
  for (const f of ["native", "scripts", "binding.gyp", "package.json"]) cpSync(join(root, f), join(copy, f), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  const file = join(copy, "native/runtime/session.cc");
  const source = readFileSync(file, "utf8");
  if (source.split(call).length !== 2) throw new Error(`planted: native/runtime/session.cc must call a kernel in one place, as "${call}"`);
  writeFileSync(file, `#include <cstdlib>\n${source.replace(call, call + spoil)}`);
  execFileSync(process.execPath, ["scripts/install.mjs"], { cwd: copy, stdio: "inherit" });

  for (const [fault, tests, touches] of faults) {
    const out = join(copy, "results.json");
    const args = ["node_modules/vitest/vitest.mjs", "run", "test/ops/conformance.test.ts", "-t", tests, "--reporter=json", `--outputFile=${out}`];
    const env = { ...process.env, ATTUNE_ADDON: join(copy, "build/Release/attune.node"), ATTUNE_PLANT: fault };
    spawnSync(process.execPath, args, { cwd: root, env, stdio: "ignore" });
    const results = JSON.parse(readFileSync(out, "utf8")).testResults.flatMap((r) => r.assertionResults).filter((r) => r.status !== "skipped" && r.status !== "pending");
    const missed = [];
    const by = new Map();
    for (const def of kernelOps().filter(touches)) {
      const own = results.filter((r) => r.title.replaceAll("'", "").startsWith(`${def.name} #`));
      const failed = own.filter((r) => r.status === "failed");
      if (failed.length === 0) missed.push(def.name);
      for (const r of failed) {
        const said = r.failureMessages[0].split("\n")[0].replace(/^\w*Error: /, "").replace(/-?\d[\d.e+-]*/g, "n").slice(0, 60);
        by.set(said, (by.get(said) ?? 0) + 1);
      }
    }
    console.log(`${fault}: ${missed.length === 0 ? "every op it can touch fails" : `MISSED in ${missed.join(", ")}`} (${results.filter((r) => r.status === "failed").length} of ${results.length} cases)`);
    for (const [said, n] of [...by].sort((a, b) => b[1] - a[1]).slice(0, 3)) console.log(`    ${n} x ${said}`);
    if (missed.length > 0) process.exitCode = 1;
  }
} finally {
  rmSync(copy, { recursive: true, force: true });
}
