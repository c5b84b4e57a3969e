// From a command line to an exit code.

import { Command as Parser, CommanderError, Help } from "commander";
import { ConfigError, WriteError } from "../errors.ts";
import { closest } from "../train/config_hints.ts";
import { COMMANDS } from "./commands.ts";
import type { Command } from "./command.ts";
import { errorLines, EXIT, exitCodeOf } from "./exit.ts";
import { normaliseFlags, optionsOf, refuse } from "./flags.ts";
import { flush, openIo, watchStdout } from "./io.ts";
import { watchSignals } from "./signals.ts";
import { version } from "../version.ts";

/** Runs a command line (without node and the script) and returns its exit code. Never throws. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  try {
    return await dispatch(argv);
  } catch (error) {
    return failed(error);
  } finally {
    await flush();
  }
}

/** Says what went wrong on stderr and returns the exit code for it. */
export function failed(error: unknown): number {
  const debug = (process.env["ATTUNE_DEBUG"] ?? "0") !== "0";
  for (const line of errorLines(error, debug)) process.stderr.write(`${line}\n`);
  return exitCodeOf(error);
}

async function dispatch(argv: readonly string[]): Promise<number> {
  const rest = argv[0] === "help" ? [...argv.slice(1, 2), "--help"] : argv;
  const name = rest[0];
  if (name === undefined) {
    process.stderr.write(overview());
    return EXIT.config;
  }
  if (name === "--version" || name === "-V" || name === "-v") return print(`${version()}\n`);
  if (name === "--help" || name === "-h") return print(overview());
  const entry = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!entry) {
    const meant = closest(name, Object.keys(COMMANDS));
    const noun = name.startsWith("-") ? "flag" : "command";
    const mend = meant === undefined ? "`attune --help` lists them" : `did you mean ${meant}?`;
    throw new ConfigError(`${name}: no such ${noun} (${mend})`);
  }
  const { command } = await entry.load();
  return execute(name, command, rest.slice(1));
}

function print(text: string): number {
  process.stdout.write(text);
  return EXIT.done;
}

async function execute(name: string, command: Command, argv: readonly string[]): Promise<number> {
  const parser = parserOf(name, command);
  const { words, problems } = normaliseFlags(argv, command.shape);
  const help = words.includes("--help") || words.includes("-h");
  if (!help) refuse(problems);
  try {
    parser.parse(help ? ["--help"] : [...words], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return EXIT.done;
    throw new ConfigError(error.message.replace(/^error: /, "").replaceAll("\n", " "));
  }
  const { json, ...flags } = parser.opts<Record<string, unknown>>();
  let say = (line: string): void => void process.stderr.write(`${line}\n`);
  const stop = watchSignals(command.stopsBySignal === true, (line) => say(line));
  const io = await openIo(json === true, stop.signal);
  say = io.note;
  let brokenOutput: Error | undefined;
  // Without a reader there is nothing left to do for a command whose result is what it prints.
  watchStdout(
    () => (command.stopsBySignal ? undefined : process.exit(EXIT.done)),
    (error) => (brokenOutput = error),
  );
  try {
    await command.run({ argument: parser.args[0], flags }, io);
  } catch (error) {
    // A run that was told to stop may say so by the abort itself.
    const aborted = stop.signal.aborted && (error === stop.signal.reason || (error as Error)?.name === "AbortError");
    if (!aborted) throw error;
  } finally {
    io.progress.close();
    stop.release();
  }
  if (brokenOutput) throw new WriteError(`stdout: must be writable, got ${brokenOutput.message}`, { cause: brokenOutput });
  return stop.code() ?? EXIT.done;
}

function parserOf(name: string, command: Command): Parser {
  const parser = new Parser(`attune ${name}`)
    .summary(command.summary)
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ outputError: () => {}, getOutHelpWidth: () => process.stdout.columns || 120 })
    .configureHelp({ formatHelp: (cmd, helper) => formatHelp(command, cmd, helper), showGlobalOptions: false })
    .helpOption("-h, --help", "Show this.");
  if (command.argument !== null) parser.argument(command.argument.name, command.argument.description);
  for (const option of optionsOf(command.shape)) parser.addOption(option);
  parser.option("--json", "Print one JSON value a line on stdout, and everything else on stderr.");
  return parser;
}

/** Examples first, then commander's own help. */
function formatHelp(command: Command, parser: Parser, helper: Help): string {
  const head = [`${command.summary}.`, ...(command.details ? ["", command.details] : [])].join("\n");
  const examples = command.examples.map((line) => `  ${line}`).join("\n");
  const body = Help.prototype.formatHelp.call(helper, parser, helper);
  return `${head}\n\nExamples:\n${examples}\n\n${body}`;
}

/** `attune --help`. */
function overview(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const list = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
  return `Align language models on your own machine: from a base model to one that answers, to one that prefers good answers.

Examples:
  attune sft --model ./base --dataset answers.jsonl --output_dir ./sft
  attune dpo --model ./sft --dataset pairs.jsonl --output_dir ./dpo
  attune chat ./dpo

Commands:
${list.join("\n")}

\`attune <command> --help\` shows a command's flags. sft, dpo, plan, inspect and profile also read them from a YAML file:
\`attune dpo run.yaml --learning_rate 1e-6\`. With --json, stdout has one JSON value a line.

Exit codes: 0 done, 2 configuration, 3 data or model files, 4 memory, 5 device, 6 non-finite numbers, 7 writing failed,
130 and 143 interrupted, 1 a bug of attune (ATTUNE_DEBUG=1 shows its stack).
`;
}
