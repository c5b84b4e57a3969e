// What the data worker and its owner say to each other.

import type { InspectRecord } from "./inspect.ts";
import type { DataOptions } from "./pipeline.ts";
import type { DataReport } from "./report.ts";
import type { TreeArrays } from "./tree_table.ts";

/** What the worker is to do. */
export interface Job {
  readonly mode: "prepare" | "inspect";
  /** The file, or null: rows are pushed. */
  readonly path: string | null;
  readonly options: DataOptions;
  /** Folder of the cache; null: none. */
  readonly cache: string | null;
}

/** Shared with the owner: Int32 [0] the row whose template runs or -1, [1] batches of records not yet read; Float64 at byte 8 when the row began. */
export const WATCH_BYTES = 16;

/** What `onRow` is told while the template is read and tried on a short conversation. */
export const TRIAL = 0x7fffffff;

export type ToWorker = { readonly type: "rows"; readonly rows: readonly unknown[] } | { readonly type: "end" };

export type FromWorker =
  /** The worker has room for another batch of pushed rows. */
  | { readonly type: "need" }
  | { readonly type: "progress"; readonly rows: number; readonly bytes: number; readonly totalBytes: number }
  | { readonly type: "records"; readonly records: readonly InspectRecord[] }
  | {
      readonly type: "done";
      readonly arrays: TreeArrays | null;
      readonly report: DataReport;
      readonly hash: string;
      readonly cached: boolean;
    }
  | {
      readonly type: "error";
      readonly name: string;
      readonly code: string | null;
      readonly message: string;
      readonly stack: string;
    };
