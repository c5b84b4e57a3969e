// What the data worker and its owner say to each other.

import type { InspectRecord } from "./inspect.ts";
import type { DataReport } from "./report.ts";
import type { TreeArrays } from "./tree_table.ts";

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
