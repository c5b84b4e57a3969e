// What a run records of its configuration (config.yaml), and which keys may not differ when it is resumed.

import type { RunConfig, Task } from "./config.ts";
import { shapeOf } from "./config.ts";
import { metaOf, snake } from "./config_schema.ts";

/** What stands in config.yaml for rows that are no file. */
const OBJECTS = "(rows given as objects)";

/** What a run decides for itself each time; never written to config.yaml. */
const PER_CALL: ReadonlySet<string> = new Set(["resume", "overwrite_output_dir"]);

/** The resolved configuration as YAML that any YAML reader takes alike: what a run writes to config.yaml. */
export function formatConfig(config: RunConfig): string {
  const lines: string[] = [];
  for (const [name, value] of Object.entries(config)) {
    const key = snake(name);
    if (!PER_CALL.has(key)) lines.push(`${key}: ${scalar(value)}`);
  }
  return `${lines.join("\n")}\n`;
}

function scalar(value: unknown): string {
  if (typeof value === "number" && Number.isFinite(value)) {
    // YAML 1.1 readers (Python's) take 1e-6 for a text; 1.0e-6 is a number to all.
    return String(value).replace(/^(-?\d+)e/, "$1.0e");
  }
  if (typeof value === "string") {
    const plain =
      /^[A-Za-z_./][A-Za-z0-9_./-]*$/.test(value) && !/^(y|n|yes|no|on|off|true|false|null|\.(nan|inf))$/i.test(value);
    return plain ? value : JSON.stringify(value);
  }
  if (value === null || typeof value === "boolean") return String(value);
  return JSON.stringify(OBJECTS);
}

/**
 * Keys whose value differs between a started run and the one that would go on with it, in a way that alters the
 * mathematics. The length of a run is such a key only where the schedule depends on it.
 */
export function changedKeys(task: Task, started: RunConfig, now: RunConfig): string[] {
  const shape = shapeOf(task) as Record<string, Parameters<typeof metaOf>[0]>;
  const before = started as unknown as Record<string, unknown>;
  const after = now as unknown as Record<string, unknown>;
  const open = scheduleIgnoresLength(now);
  return Object.keys(before)
    .filter((name) => {
      const key = snake(name);
      const schema = shape[key];
      if (schema === undefined || metaOf(schema).neutral) return false;
      if (open && (key === "max_steps" || key === "num_train_epochs")) return false;
      return !Object.is(recorded(before[name]), recorded(after[name]));
    })
    .map(snake);
}

/** Rows given as objects are all the same here: their checkpoint knows them. */
const recorded = (value: unknown): unknown => (typeof value === "object" && value !== null ? OBJECTS : value);

function scheduleIgnoresLength(config: RunConfig): boolean {
  if (config.lrSchedulerType === "constant") return true;
  const whole = config.warmupSteps === 0 || config.warmupSteps >= 1;
  return config.lrSchedulerType === "constant_with_warmup" && whole;
}
