import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { attune } from "./attune.ts";
import { tempDir } from "./tiny_model.ts";

const COMMANDS = ["sft", "dpo", "init", "chat", "generate", "score", "plan", "inspect", "profile"];

/** Help with its wrapped lines joined again. */
const unwrapped = (help: string): string => help.replace(/\n {9,}/g, " ");

describe("attune --help", () => {
  it("begins with an example and has one line for each command", async () => {
    const { code, stdout, stderr } = await attune(["--help"]);
    expect(code).toBe(0);
    expect(stderr).toBe("");
    expect(stdout.indexOf("attune sft --model")).toBeLessThan(stdout.indexOf("Commands:"));
    for (const name of COMMANDS) expect(stdout).toMatch(new RegExp(`^  ${name} +\\S.*$`, "m"));
  });

  it("stands on stderr, with exit code 2, where no command is given", async () => {
    const { code, stdout, stderr } = await attune([]);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain("Commands:");
  });
});

it("attune --version prints the package's version", async () => {
  const { version } = JSON.parse(await readFile(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  expect(await attune(["--version"])).toEqual({ code: 0, stdout: `${version}\n`, stderr: "" });
});

describe("attune <command> --help", () => {
  it.each(COMMANDS)("of %s has examples, --json and a default or 'required' for every flag", async (name) => {
    const { code, stdout, stderr } = await attune([name, "--help"]);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout.indexOf("Examples:")).toBeLessThan(stdout.indexOf("Usage:"));
    expect(stdout).toContain("--json");
    const flags = stdout
      .replace(/\n {9,}/g, " ")
      .split("\n")
      .filter((line) => /^ {2}--\w/.test(line) && !line.includes("--json"));
    expect(flags.length).toBeGreaterThan(4);
    for (const line of flags) expect(line).toMatch(/\((default: .+|required)\)$/);
  });

  it("groups the flags of a run", async () => {
    const { stdout } = await attune(["help", "dpo"]);
    const groups = [...stdout.matchAll(/^([A-Z][\w ,]+):$/gm)].map((match) => match[1]);
    expect(groups).toEqual([
      "Examples",
      "Arguments",
      "Model, data and output",
      "Loss",
      "How long and how fast",
      "Batches",
      "Optimiser",
      "Rows and tokens",
      "Evaluation",
      "Logging and saving",
      "Machine",
      "Options",
    ]);
    expect(unwrapped(stdout)).toMatch(/--beta <number>.*default: 0\.1/);
    expect(unwrapped(stdout)).toMatch(/--learning_rate <number>.*default: 1e-6/);
  });
});

describe("a command line that is wrong", () => {
  const cases: [string, string[], string[]][] = [
    ["an unknown command", ["stf"], ["stf: no such command (did you mean sft?)"]],
    ["an unknown command without a likeness", ["qqqq"], ["qqqq: no such command (`attune --help` lists them)"]],
    [
      "unknown flags, all of them",
      ["dpo", "--lerning-rate", "1", "--bf16"],
      ["--lerning-rate: no such flag (did you mean --learning_rate?)", "--bf16: no such flag (write dtype: bfloat16)"],
    ],
    ["a flag of the other task", ["sft", "--beta", "1"], ["--beta: no such flag (see --help)"]],
    ["a flag without its value", ["sft", "--seed"], ["--seed: must be followed by a value, got nothing"]],
    ["no- before a flag that is no boolean", ["sft", "--no-seed"], ["--no-seed: no such flag (--seed takes a value)"]],
    ["a value for --json", ["sft", "--json=yes"], ['--json: must stand alone, got "yes"']],
    ["two files", ["sft", "a.yaml", "b.yaml"], ["too many arguments. Expected 1 argument but got 2."]],
    [
      "a file that is not there",
      ["sft", "nosuch.yaml"],
      ["nosuch.yaml: must be a YAML file that can be read, got no such file"],
    ],
    [
      "nothing to train",
      ["dpo"],
      [
        "--model: must be given: folder of the model to start from, in Hugging Face's layout",
        "--dataset: must be given: file of training rows: .jsonl or .json",
      ],
    ],
    [
      "wrong values, all of them",
      ["dpo", "--model", "m", "--dataset", "d", "--learning_rate", "fast", "--loss_type", "sigmod", "--max_steps", "0"],
      [
        '--loss_type: must be one of sigmoid, ipo, hinge, got "sigmod" (did you mean sigmoid?)',
        '--learning_rate: must be a number >= 0, got "fast"',
        "--max_steps: must be a whole number >= 1, or -1, got 0",
      ],
    ],
    [
      "another task",
      ["sft", "--model", "m", "--dataset", "d", "--task", "dpo"],
      ["--task: must be sft for `attune sft`, got dpo (run `attune dpo`)"],
    ],
    [
      "no such task",
      ["plan", "--model", "m", "--dataset", "d", "--task", "dpoo"],
      ['--task: must be one of sft, dpo, got "dpoo" (did you mean dpo?)'],
    ],
    ["nothing to generate from", ["generate", "--model", "m"], ["--prompt: must be given, or --data: got neither"]],
  ];
  it.each(cases)("%s: exit code 2 and one line a problem", async (_, args, problems) => {
    const { code, stdout, stderr } = await attune(args);
    expect(stderr).toBe(problems.map((line) => `attune: error: ${line}\n`).join(""));
    expect([code, stdout]).toEqual([2, ""]);
  });

  it("shows a stack only where ATTUNE_DEBUG asks for it", async () => {
    const { stderr } = await attune(["sft", "nosuch.yaml"], { env: { ATTUNE_DEBUG: "1" } });
    expect(stderr).toMatch(/^attune: error: nosuch\.yaml.*\n\s*ConfigError: [\s\S]*\n {4}at /);
  });

  it("cannot steer the terminal", async () => {
    const { stderr } = await attune(["sft", "\x1b[2J\x07.yaml"]);
    expect(stderr).toContain("\\x1b[2J\\x07.yaml");
    // oxlint-disable-next-line no-control-regex -- none may be left
    expect(stderr).not.toMatch(/[\x00-\x09\x0b-\x1f]/);
  });
});

describe("a run file that is wrong", () => {
  it("is named with the line of the key, and flags with their own name", async () => {
    const dir = await tempDir();
    await writeFile(join(dir, "run.yaml"), "model: m\ndataset: d.jsonl\nbetta: 0.1\nshuffle: yes\n");
    const { code, stderr } = await attune(["dpo", "run.yaml", "--beta=-1", "--no-packing"], { cwd: dir });
    expect(stderr).toBe(
      [
        "attune: error: run.yaml:3: betta: no such key (did you mean beta?)",
        "attune: error: --beta: must be a number > 0, got -1",
        'attune: error: run.yaml:4: shuffle: must be true or false, got "yes" (write true)',
        "",
      ].join("\n"),
    );
    expect(code).toBe(2);
  });

  it("that is no YAML says where", async () => {
    const dir = await tempDir();
    await writeFile(join(dir, "run.yaml"), "model: m\ndataset: [d\n");
    const { code, stderr } = await attune(["sft", "run.yaml"], { cwd: dir });
    expect(code).toBe(2);
    expect(stderr).toMatch(/^attune: error: run\.yaml:\d+: must be YAML, got a text that is not \(.+\)\n$/);
  });
});

describe("files that are not there", () => {
  it("end with exit code 3 and are named", async () => {
    const rows = await attune(["plan", "--model", "m", "--dataset", "/no/such/rows.jsonl"]);
    expect(rows.code).toBe(3);
    expect(rows.stderr).toMatch(/^attune: error: .*rows\.jsonl.*\n$/);
    const out = join(await tempDir(), "out");
    const init = await attune(["init", "--config", "/no/such/config.json", "--output_dir", out, "--json"]);
    expect([init.code, init.stdout]).toEqual([3, ""]);
    expect(init.stderr).toMatch(
      /^attune: error: \/no\/such\/config\.json: must be a model's config\.json, got no such file.*\n$/,
    );
    expect(existsSync(out)).toBe(false);
  });
});

it("docs/config.md says what the schemas say", async () => {
  const script = fileURLToPath(new URL("../../scripts/docs_config.mjs", import.meta.url));
  const child = spawnSync(process.execPath, [script, "--check"], { encoding: "utf8" });
  expect(child.stderr).toBe("");
  expect(child.status).toBe(0);
});
