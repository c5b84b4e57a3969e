import { describe, expect, it } from "vitest";
import { flagValue, normaliseFlags } from "#lib/cli/flags.js";
import { jsonLine } from "#lib/cli/io.js";
import { generateShape } from "#lib/cli/shapes.js";
import { formatRecord } from "#lib/cli/tables.js";
import { formatNumber, formatSeconds, printable } from "#lib/cli/text.js";
import { dpoShape } from "#lib/train/config.js";

const words = (...argv: string[]) => normaliseFlags(argv, dpoShape).words;

describe("flags", () => {
  it("take - and _ between words, and = or a space before the value", () => {
    expect(words("--learning-rate", "1", "--learning_rate=1")).toEqual(["--learning_rate=1", "--learning_rate=1"]);
  });

  it("that are booleans need no value, and --no- turns them off", () => {
    expect(words("--resume", "run.yaml")).toEqual(["--resume=true", "run.yaml"]);
    expect(words("--no-shuffle", "--shuffle", "false", "--shuffle=true")).toEqual([
      "--shuffle=false",
      "--shuffle=false",
      "--shuffle=true",
    ]);
  });

  it("leave their values alone, whatever those look like", () => {
    expect(words("--max_steps", "-1", "--output-dir", "--my-dir", "a=b")).toEqual([
      "--max_steps=-1",
      "--output_dir=--my-dir",
      "a=b",
    ]);
  });

  it("end at --", () => expect(words("--", "--learning-rate")).toEqual(["--", "--learning-rate"]));

  it("become the types that their keys accept", () => {
    expect(flagValue(dpoShape.learning_rate, "1e-6")).toBe(1e-6);
    expect(flagValue(dpoShape.model, "123")).toBe("123");
    expect(flagValue(dpoShape.max_length, "null")).toBe(null);
    expect(flagValue(dpoShape.memory_limit, "8GB")).toBe("8GB");
    expect(flagValue(dpoShape.shuffle, "false")).toBe(false);
    expect(flagValue(dpoShape.learning_rate, "fast")).toBe("fast");
    expect(flagValue(generateShape.prompt, "7")).toBe("7");
  });
});

describe("output", () => {
  it("is JSON on one line, typed arrays as lists", () => {
    expect(jsonLine({ a: Float32Array.of(1, 2.5), b: Number.NaN, c: "x\ny", d: 3n })).toBe(
      '{"a":[1,2.5],"b":null,"c":"x\\ny","d":3}',
    );
  });

  it("cannot steer a terminal", () => {
    expect(printable("a\x1b[31mb\u009b\u202ec\nd\r")).toBe("a\\x1b[31mb\\x9b\\u202ec\\nd\\x0d");
    expect(printable("a\nb\tc", true)).toBe("a\nb\tc");
  });

  it("shows figures with their units", () => {
    expect(
      formatRecord({
        arena_bytes: 1_500_000,
        step_seconds: 125,
        ops: [
          { op: "gemm", ms: 1.5 },
          { op: "rope", ms: 12 },
        ],
      }),
    ).toBe(
      [
        "arena         1.50 MB (1,500,000)",
        "step seconds  2m 05s",
        "ops",
        "  op     ms",
        "  gemm  1.5",
        "  rope   12",
      ].join("\n"),
    );
    expect([formatNumber(12345), formatNumber(0.5), formatNumber(1e-6), formatNumber(Number.NaN)]).toEqual([
      "12,345",
      "0.5",
      "1.00e-6",
      "NaN",
    ]);
    expect([formatSeconds(0.25), formatSeconds(59.94), formatSeconds(7600)]).toEqual(["250ms", "59.9s", "2h 06m"]);
  });
});
