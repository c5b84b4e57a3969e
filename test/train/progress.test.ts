import { describe, expect, it } from "vitest";
import { formatStage, openProgress, Pace, silent } from "#lib/train/progress.js";

describe("pace", () => {
  it("is known after two marks, and says how long the rest takes", () => {
    const pace = new Pace();
    pace.add(0, 0);
    expect([pace.rate, pace.left(10)]).toEqual([undefined, undefined]);
    pace.add(2, 4);
    expect([pace.rate, pace.left(10)]).toEqual([2, 3]);
  });

  it("is that of the last seconds, not of the whole", () => {
    const pace = new Pace(10);
    for (let s = 0; s <= 10; s++) pace.add(s, s);
    for (let s = 11; s <= 40; s++) pace.add(s, 10 + (s - 10) * 5);
    expect(pace.rate).toBeCloseTo(5, 6);
  });

  it("counts from where a resumed run begins", () => {
    const pace = new Pace();
    pace.add(100, 500);
    pace.add(101, 510);
    expect([pace.rate, pace.left(600)]).toEqual([10, 9]);
  });
});

describe("the line", () => {
  const pace = new Pace();
  pace.add(0, 0);
  pace.add(4, 20);

  it("says name, share, counts, speed, time left and words", () => {
    const stage = { name: "training", done: 20, total: 400, unit: "steps", text: "loss 0.69" };
    const line = formatStage(stage, pace, 120);
    expect(line).toBe("training  [==----------------------------]    5%  20/400 steps  5/s  1:16 left  loss 0.69");
  });

  it("says seconds each where work is slow", () => {
    const slow = new Pace();
    slow.add(0, 0);
    slow.add(8, 2);
    expect(formatStage({ name: "training", done: 2, total: 1000, unit: "steps" }, slow, 120)).toContain(
      "4.00 s each  1:06:32 left",
    );
  });

  it("has no bar where the end is not known", () => {
    expect(formatStage({ name: "reading", done: 20, total: null, unit: "rows" }, pace, 120)).toBe(
      "reading  20 rows  5/s",
    );
  });

  it("never fills the terminal's width", () => {
    const stage = { name: "training", done: 20, total: 400, unit: "steps", text: "x".repeat(200) };
    for (const columns of [20, 40, 80]) expect(formatStage(stage, pace, columns).length).toBeLessThan(columns);
  });
});

it("there is no progress where there is no terminal", async () => {
  const stream = { isTTY: false } as NodeJS.WriteStream;
  expect(await openProgress(stream)).toBe(silent);
  let written = 0;
  silent.around(() => written++);
  expect(written).toBe(1);
});
