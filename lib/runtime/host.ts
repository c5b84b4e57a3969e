// What the machine offers, and what a device asks of a plan.
import { encodeOne } from "../program/encode.ts";
import type { Instruction } from "../program/program.ts";
import { loadAddon, typed } from "./addon.ts";

/** The CPU's instruction-set level in use (`ATTUNE_CPU` lowers it), all that it has, and the default number of threads: the cgroup's share. */
export const cpuInfo = (): { level: string; levels: readonly string[]; threads: number } => loadAddon().cpuInfo();

/** The most resident memory this process has had, in bytes. */
export const peakRss = (): number => loadAddon().peakRss();

/** Names of the devices that this build can open. */
export const devices = (): readonly string[] => loadAddon().devices;

/**
 * Bytes of scratch that `device` wants for an instruction at its capacities: what lib/passes asks while it plans.
 * Throws DeviceError when the device is not in this build.
 */
export function scratchOf(device: string): (instruction: Instruction) => number {
  const addon = loadAddon();
  return (instruction) => typed(() => addon.scratch(device, encodeOne(instruction)));
}
