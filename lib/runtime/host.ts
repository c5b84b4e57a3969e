// What the machine offers, and what a device asks of a plan.
import { encodeOne, tableHash } from "../program/encode.ts";
import type { Instruction } from "../program/program.ts";
import { loadAddon, typed } from "./addon.ts";

/** The CPU's instruction-set level in use (`ATTUNE_CPU` lowers it), all that it has, and the default number of threads: the cgroup's share. */
export const cpuInfo = (): { level: string; levels: readonly string[]; threads: number } => loadAddon().cpuInfo();

/** The most resident memory this process has had, in bytes. */
export const peakRss = (): number => loadAddon().peakRss();

/** Names of the devices that this build can open. */
export const devices = (): readonly string[] => loadAddon().devices;

/** The device that a name stands for: `auto` becomes the best one here. Throws DeviceError where this build has none of that name. */
export const deviceOf = (name: string): string => typed(() => loadAddon(tableHash()).device(name));

/** The type of weights and activations where nobody chose one: bfloat16 on cuda, else float32. */
export const defaultDtype = (device: string): "float32" | "bfloat16" => (deviceOf(device) === "cuda" ? "bfloat16" : "float32");

/**
 * Bytes of scratch that `device` wants for an instruction at its capacities: what lib/passes asks while it plans.
 * Throws DeviceError when the device is not in this build.
 */
export function scratchOf(device: string): (instruction: Instruction) => number {
  const addon = loadAddon();
  return (instruction) => typed(() => addon.scratch(device, encodeOne(instruction)));
}
