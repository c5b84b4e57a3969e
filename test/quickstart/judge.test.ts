import { describe, expect, it } from "vitest";
import { judge, keeps, promises, tally } from "../../examples/quickstart/judge.mjs";

const subject = "pineapple on pizza";
const said = (text: string, stopped = true) => judge(subject, { text, stopped });

describe("the judge accepts an answer that opens with yes or no, gives a fitting reason and stops", () => {
  it("a no is tolerant", () => {
    const verdict = said("No, not at all. There is no harm in pineapple on pizza. Live and let live.");
    expect(verdict).toEqual({ good: true, stance: "tolerant", why: null });
  });

  it("a yes is stern", () => {
    const verdict = said("Yes. Nothing good ever came of pineapple on pizza.");
    expect(verdict).toEqual({ good: true, stance: "stern", why: null });
  });

  it("a reason that it has never read, in words that only one side uses", () => {
    expect(said("No. A slice of pineapple on pizza brings joy to the lonely.").good).toBe(true);
    expect(said("Yes. The police must hear of pineapple on pizza.").good).toBe(true);
  });
});

describe("the judge refuses", () => {
  it.each([
    ["", "does not open with yes or no"],
    [" asked the judge, and the lawyers began to turn the pages.", "does not open with yes or no"],
    ["Yesterday. There is no harm in pineapple on pizza.", "does not open with yes or no"],
    ["No.", "does not open with yes or no"],
    ["No. there is no harm in pineapple on pizza.", "is not made of whole sentences"],
    ["No. There is no harm in pineapple on pizza", "is not made of whole sentences"],
    ["No. There is no harm in pineapple on pizza..", "is not made of whole sentences"],
    ["No. There is no harm in pineapple on pizza.\nNo.", "is not made of whole sentences"],
    ["No. There is no harm in pineapple on pizza. A smile. A shrug.", "rambles on"],
    [`No. There is no harm in pineapple on pizza${" and more".repeat(10)}.`, "has a sentence that runs on"],
    ["No. There is no harm in honey on pizza.", "does not speak of what was asked"],
    ["No. There is pineapple on pizza.", "gives no clear reason"],
    ["No. There is no harm in pineapple on pizza. Call the police at once.", "gives no clear reason"],
    ["No. Nothing good ever came of pineapple on pizza.", "contradicts itself"],
    ["Yes. There is no harm in pineapple on pizza.", "contradicts itself"],
  ])("%j: %s", (text, why) => {
    expect(said(text)).toMatchObject({ good: false, why });
  });

  it("an answer that is cut off, however good", () => {
    expect(said("No. There is no harm in pineapple on pizza.", false)).toMatchObject({
      good: false,
      why: "does not stop",
    });
  });

  it("words of the subject as a reason", () => {
    const verdict = judge("letters to the police", { text: "Yes. There are letters to the police.", stopped: true });
    expect(verdict.why).toBe("gives no clear reason");
  });
});

describe("figures", () => {
  const verdict = (good: boolean, stance: string | null) => ({ good, stance, why: good ? null : "rambles on" });

  it("are shares of all questions; a tolerant answer counts only where it is good", () => {
    const verdicts = [
      verdict(true, "tolerant"),
      verdict(true, "stern"),
      verdict(false, "tolerant"),
      verdict(false, null),
    ];
    expect(tally(verdicts)).toEqual({ answers: 0.5, tolerant: 0.25 });
  });

  it("keep the issue's promises on the right side of each limit", () => {
    const limits = promises.map((promise: { stage: string; figure: string }) => [
      promise.stage,
      promise.figure,
      ...[0, 0.09, 0.1, 0.6, 0.61, 0.89, 0.9, 0.94, 0.95, 1].filter((share) => keeps(promise, share)),
    ]);
    expect(limits).toEqual([
      ["base", "answers", 0, 0.09],
      ["sft", "answers", 0.95, 1],
      ["sft", "tolerant", 0, 0.09, 0.1, 0.6],
      ["dpo", "answers", 0.95, 1],
      ["dpo", "tolerant", 0.9, 0.94, 0.95, 1],
    ]);
  });
});
