// A model in a session: what training, scoring and generation share.
import { DataError } from "../errors.ts";
import { weightReads, type OpenedModel } from "../io/model_folder.ts";
import type { DType } from "../ir/types.ts";
import { inMemory, parameters, type Parameter } from "../models/config.ts";
import "../ops/index.ts";
import { tableHash } from "../program/encode.ts";
import { defaultDtype } from "../runtime/host.ts";
import { Session, type DeviceName } from "../runtime/session.ts";
import { openModel } from "./background.ts";
import type { ModelSpec } from "./programs.ts";

export interface EngineOptions {
  readonly device: DeviceName;
  /** Null: bfloat16 on cuda, else float32. */
  readonly dtype: Extract<DType, "float32" | "bfloat16"> | null;
  readonly threads?: number;
  /** As in SessionOptions: for a profiler that is to see each instruction's launches. */
  readonly named?: boolean;
}

/** A model in a session: what training, scoring and generation share. */
export interface LoadedModel {
  readonly session: Session;
  readonly model: OpenedModel;
  /** In the order of the forward pass, which files have. */
  readonly parameters: readonly Parameter[];
  readonly spec: ModelSpec;
}

/** Open a session and describe the model in it; weights are read once a program has named them. */
export async function loadModel(dir: string, o: EngineOptions): Promise<LoadedModel> {
  const model = await openModel(dir);
  const session = Session.create({ device: o.device, hugePages: true, tableHash: tableHash(), ...(o.threads && { threads: o.threads }), named: o.named ?? false });
  const list = parameters(model.config);
  const spec = { config: model.config, parameters: inMemory(list), dtype: o.dtype ?? defaultDtype(session.device) };
  return { session, model, parameters: list, spec };
}

/** Fill weights/* from the model folder. Throws DataError where one is NaN or infinite: nothing good can come of it. */
export async function readWeights({ session, model, parameters }: LoadedModel): Promise<void> {
  await session.readFiles(weightReads(model, parameters));
  for (const { name, parts } of parameters) {
    const wrong = await session.countNonfinite(`weights/${name}`);
    if (wrong === 0) continue;
    const tensors = parts.map((p) => p.tensor).join(" and ");
    throw new DataError(`${model.dir}: ${tensors} must hold finite numbers, got ${wrong} that are NaN or infinite (is the file damaged, or the run that wrote it?)`);
  }
}

/** Master weights start as the checkpoint's own values, not as their rounded copies. */
export async function readMasters(m: LoadedModel): Promise<void> {
  await m.session.readFiles(weightReads(m.model, m.parameters, "optimizer/master/"));
}
