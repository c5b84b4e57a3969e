// What `attune doctor` finds: the machine, this build, the GPUs, and what mends what is missing. Never throws: what fails is a line.
import { accessSync, constants, readFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { delimiter, join } from "node:path";
import { findAddon, loadAddon, type Gpus } from "../runtime/addon.ts";
import { version } from "../version.ts";

export interface Finding {
  readonly what: string;
  readonly is: string;
  /** What to do about it; null where nothing is to be done. */
  readonly mend: string | null;
}

export interface Examination {
  readonly version: string;
  readonly node: string;
  readonly addon: string | null;
  /** What built the addon. */
  readonly compiler: string | null;
  readonly devices: readonly string[];
  /** The device that `auto` stands for. */
  readonly auto: string | null;
  readonly cpu: { readonly model: string; readonly level: string; readonly levels: readonly string[]; readonly threads: number } | null;
  readonly memory: number;
  /** Null where the build has no CUDA side. */
  readonly gpus: Gpus | null;
  /** Of NVIDIA's kernel driver, which needs no CUDA build to be seen. */
  readonly kernelDriver: string | null;
  readonly nvcc: string | null;
  readonly cmake: string | null;
  readonly lines: readonly Finding[];
}

/** Looks at everything; takes under a second. */
export function examine(): Examination {
  const lines: Finding[] = [];
  const say = (what: string, is: string, mend: string | null = null): void => void lines.push({ what, is, mend });
  const nvcc = onPath("nvcc", "/usr/local/cuda/bin");
  const cmake = onPath("cmake");
  const kernelDriver = driverOfKernel();
  const base = { version: version(), node: process.version, memory: totalmem(), nvcc, cmake, kernelDriver };
  say("attune", `${base.version}, Node ${base.node}, ${process.platform} ${process.arch}`);
  say("memory", gib(base.memory));
  let addon;
  try {
    addon = loadAddon();
  } catch (error) {
    say("addon", (error as Error).message, "the command in the message builds it");
    return { ...base, addon: null, compiler: null, devices: [], auto: null, cpu: null, gpus: null, lines };
  }
  const file = findAddon();
  say("addon", `${file}, by ${addon.compiler()}, for ${addon.devices.filter((d) => d !== "null").join(" and ")}`);
  const cpu = { model: cpus()[0]?.model ?? "unknown", ...addon.cpuInfo() };
  say("cpu", `${cpu.model}, ${cpu.threads} threads, ${cpu.level}`, cpu.level === cpu.levels.at(-1) ? null : "ATTUNE_CPU lowers the level; unset, the best is used");
  const gpus = addon.gpus() ?? null;
  const tools = [`nvcc ${nvcc ?? "not found"}`, `cmake ${cmake ?? "not found"}`].join(", ");
  if (gpus === null) {
    const mend = kernelDriver === null ? "nothing to do without an NVIDIA GPU" : "`attune build --cuda` builds it (it needs CUDA 13's nvcc and cmake)";
    say("cuda", `this build has no CUDA backend; driver ${kernelDriver ?? "not found"}; ${tools}`, mend);
  } else sayGpus(gpus, kernelDriver, say);
  const auto = addon.device("auto");
  say("auto", `runs go to ${auto}`);
  return { ...base, addon: file, compiler: addon.compiler(), devices: addon.devices, auto, cpu, gpus, lines };
}

function sayGpus(gpus: Gpus, kernelDriver: string | null, say: (what: string, is: string, mend?: string | null) => void): void {
  const dotted = (v: number): string => `${Math.floor(v / 1000)}.${Math.floor((v % 1000) / 10)}`;
  const driver = gpus.driver === 0 ? "no driver" : `a driver for CUDA ${dotted(gpus.driver)}`;
  const mend = kernelDriver === null ? "install NVIDIA's driver, 580 or newer, or leave device at cpu" : "bring NVIDIA's driver to 580 or newer";
  say("cuda", `built for CUDA ${dotted(gpus.runtime)}; ${driver}${kernelDriver === null ? "" : ` (${kernelDriver})`}`, gpus.driver >= 13000 ? null : mend);
  for (const [i, g] of gpus.found.entries()) {
    const free = g.free > 0 ? `, ${gib(g.free)} of it free` : "";
    say(`gpu ${i}`, `${g.name}, compute capability ${g.capability}, ${gib(g.memory)}${free}`, g.why === "" ? null : g.why);
  }
  if (gpus.found.length === 0) say("gpu", `none to use: ${gpus.why}`);
  say("cublaslt", gpus.products, gpus.products.startsWith("none") ? "attune's own products are used until then; they are slower" : null);
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

/** The file of a command, where PATH or `also` has it. */
function onPath(command: string, ...also: readonly string[]): string | null {
  for (const dir of [...(process.env["PATH"] ?? "").split(delimiter), ...also]) {
    if (dir === "") continue;
    try {
      accessSync(join(dir, command), constants.X_OK);
      return join(dir, command);
    } catch {
      // the next place
    }
  }
  return null;
}

function driverOfKernel(): string | null {
  try {
    return /Module\s+(\d[\d.]*)/.exec(readFileSync("/proc/driver/nvidia/version", "utf8"))?.[1] ?? null;
  } catch {
    return null;
  }
}
