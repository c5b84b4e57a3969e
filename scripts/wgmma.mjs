// Writes native/cuda/common/wgmma.h: one wrapper for each width of wgmma, its accumulators spelled out as inline assembly needs them.
// `node scripts/wgmma.mjs` writes it, `--check` fails when it differs.
import { readFileSync, writeFileSync } from "node:fs";

const widths = [64, 96, 128, 192, 256];
const file = new URL("../native/cuda/common/wgmma.h", import.meta.url);

const range = (from, count) => Array.from({ length: count }, (_, i) => from + i);
// Items joined by ", ", a line break and an indent after every `perLine`.
function lines(items, perLine, indent, quote) {
  const out = [];
  for (let i = 0; i < items.length; i += perLine) {
    const text = items.slice(i, i + perLine).join(", ") + (i + perLine < items.length ? "," : "");
    out.push(indent + (quote ? `"${text}${i + perLine < items.length ? " " : ""}"` : text));
  }
  return out.join("\n");
}

// fromRegisters: A's 16 columns are four packed registers of each thread, else a descriptor.
function wrapper(n, fromRegisters) {
  const count = n / 2;
  const a = fromRegisters
    ? `{${range(count, 4)
        .map((i) => `%${i}`)
        .join(", ")}}`
    : `%${count}`;
  const b = count + (fromRegisters ? 4 : 1);
  const transposes = fromRegisters ? `%${b + 2}` : `%${b + 2}, %${b + 3}`;
  const inputs = fromRegisters
    ? `"r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), "n"(TransposeB)`
    : `"l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(TransposeA), "n"(TransposeB)`;
  const head = fromRegisters
    ? `template <int TransposeB>
__device__ __forceinline__ void wgmma_registers(float (&d)[${count}], const uint32_t (&a)[4], uint64_t b, bool accumulate) {`
    : `template <int TransposeA, int TransposeB>
__device__ __forceinline__ void wgmma_shared(float (&d)[${count}], uint64_t a, uint64_t b, bool accumulate) {`;
  return `${head}
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %${b + 1}, 0;\\n"
      "wgmma.mma_async.sync.aligned.m64n${n}k16.f32.bf16.bf16 {"
${lines(
  range(0, count).map((i) => `%${i}`),
  16,
  "      ",
  true,
)}
      "}, ${a}, %${b}, p, 1, 1, ${transposes}; }"
      :
${lines(
  range(0, count).map((i) => `"+f"(d[${i}])`),
  8,
  "      ",
  false,
)}
      : ${inputs});
}
`;
}

const text = `// Written by scripts/wgmma.mjs; do not edit. wgmma m64nNk16, bf16 inputs, fp32 accumulators; ptx.h says what they mean.
#pragma once
#include <cstdint>

namespace attune::cuda::ptx::detail {

${widths.flatMap((n) => [wrapper(n, false), wrapper(n, true)]).join("\n")}
}  // namespace attune::cuda::ptx::detail
`;

if (!process.argv.includes("--check")) writeFileSync(file, text);
else if (readFileSync(file, "utf8") !== text) {
  console.error("native/cuda/common/wgmma.h: not what scripts/wgmma.mjs writes; run node scripts/wgmma.mjs");
  process.exitCode = 1;
}
