// README.md of a saved model: front matter that the hub reads, then what the model is and how it was trained.
import { basename } from "node:path";
import { stringify } from "yaml";

export interface CardFacts {
  /** "sft", "dpo", ...: becomes a tag. "init" is a model that was not trained. */
  readonly task: string;
  /** Hub id or folder of the model that training began with; only a hub id becomes `base_model`. Null: none. */
  readonly baseModel: string | null;
  /** Data set ids or paths, for the text. */
  readonly datasets?: readonly string[];
  /** attune's version. */
  readonly version: string;
  /** Lines of the settings table. */
  readonly settings?: readonly (readonly [name: string, value: string])[];
}

const taskNames: { readonly [task: string]: string } = {
  sft: "supervised fine-tuning (SFT)",
  dpo: "direct preference optimisation (DPO)",
};

/** The text of the card. Paths of the machine are cut to their last part. */
export function modelCard(facts: CardFacts): string {
  const hubId =
    facts.baseModel !== null && /^[\w.-]+\/[\w.-]+$/.test(facts.baseModel) && !facts.baseModel.startsWith(".");
  const front = {
    ...(hubId ? { base_model: facts.baseModel } : {}),
    library_name: "transformers",
    pipeline_tag: "text-generation",
    tags: ["attune", facts.task],
  };
  const base = facts.baseModel === null ? null : hubId ? facts.baseModel : basename(facts.baseModel);
  const method = taskNames[facts.task] ?? facts.task;
  const trained = `Trained${base === null ? "" : ` from ${line(base)}`} by ${line(method)} with attune ${facts.version}.`;
  const text =
    facts.task === "init" ? `A randomly initialised model, not trained, made with attune ${facts.version}.` : trained;
  const datasets = (facts.datasets ?? []).map((d) => line(basename(d)));
  const rows = (facts.settings ?? []).map(([name, value]) => `| ${cell(name)} | ${cell(value)} |`);
  return [
    `---\n${stringify(front)}---\n`,
    `# ${base === null ? "Model" : line(base)} (${line(facts.task)})\n`,
    `${text}\n`,
    ...(datasets.length > 0 ? [`Data: ${datasets.join(", ")}.\n`] : []),
    ...(rows.length > 0 ? [`| setting | value |\n|---|---|\n${rows.join("\n")}\n`] : []),
  ].join("\n");
}

function line(text: string): string {
  return text.replace(/[\r\n<>]+/g, " ").trim();
}

function cell(text: string): string {
  return line(text).replaceAll("|", "\\|");
}
