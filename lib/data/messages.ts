// What the data worker and its owner say to each other beside calls and answers (../thread.ts).

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

/** What the owner tells the worker while a job with pushed rows runs. */
export type Told = { readonly type: "rows"; readonly rows: readonly unknown[] } | { readonly type: "end" };

/** What the worker notes while a job runs. */
export type Note =
  /** There is room for another batch of pushed rows. */
  | { readonly type: "need" }
  | { readonly type: "progress"; readonly rows: number; readonly bytes: number; readonly totalBytes: number }
  | { readonly type: "records"; readonly records: readonly InspectRecord[] };

/** What a job comes to. */
export interface Done {
  /** Null for inspect. */
  readonly arrays: TreeArrays | null;
  readonly report: DataReport;
  readonly hash: string;
  readonly cached: boolean;
}
