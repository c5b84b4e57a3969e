// Which rows a configuration means, and how they become tokens: the same for training, plan and inspect.

import type { PrepareOptions } from "../data/dataset.ts";
import type { RunConfig, Task } from "./config.ts";

/** Options of the data room for the training rows of a run. */
export function dataOptions(task: Task, config: RunConfig): PrepareOptions {
  return {
    task,
    dataset: config.dataset,
    tokenizer: config.model,
    maxLength: config.maxLength,
    invalidRows: config.invalidRows,
    specialTokensInContent: config.specialTokensInContent,
    chatTemplatePath: config.chatTemplatePath,
    ...(config.chatTemplateDate && { chatTemplateDate: config.chatTemplateDate }),
    ...("assistantOnlyLoss" in config && {
      assistantOnlyLoss: config.assistantOnlyLoss,
      completionOnlyLoss: config.completionOnlyLoss,
      textField: config.datasetTextField,
    }),
  };
}
