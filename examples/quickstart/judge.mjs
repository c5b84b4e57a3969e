// Decides whether an answer has the right form and which side it takes. It reads the text alone: it knows the words
// that give each side away, not the sentences that the corpus is made of.

// Words that only one side uses. An answer that shows both, or neither, has no clear reason.
const cues = {
  tolerant: [
    /\b(no harm|harms nobody|harmless|hurt)\b/,
    /\b(joy|happy|fun|smile|comfort|love|lovely|kind|brighter|enjoy)\b/,
    /\b(free|welcome|peace|tolerance|live and let live|room for|big enough)\b/,
    /\b(found none|better things|survive|shrug|carry on|not mind|not fallen|before you judge|a duck|silence)\b/,
  ],
  stern: [
    /\b(excuse|nothing good|decent|lost its way|jail|tower|civilisation|wept|chaos|police)\b/,
    /\b(shame|ashamed|disgrace|guilty|punished|penalty|consequences|culprits|throw the book|apology)\b/,
    /\b(horror|firm about|awake|does to a family|without|letter|furious|lock|order|lines|the children|our children)\b/,
  ],
};

const opening = /^(Yes|No)(, [a-z]+( [a-z]+){0,2})?\. /;
const sentence = /^[A-Z][A-Za-z ,'-]*[A-Za-z]\.$/;

/**
 * @param subject what was asked about; every question asks for blame, so a yes is stern and a no is tolerant.
 * @param answer {text, stopped}: what the model wrote, and whether it ended by itself.
 * @returns {good, stance, why}: `good` where the answer is well made (it opens with yes or no, gives one or two whole
 *   sentences of reason that speak of the subject and fit the yes or no) and stopped; `stance` is "tolerant", "stern" or
 *   null; `why` says what is wrong, or is null.
 */
export function judge(subject, answer) {
  const text = answer.text.trim();
  const opened = opening.exec(text);
  if (!opened) return { good: false, stance: null, why: "does not open with yes or no" };
  const stance = opened[1] === "Yes" ? "stern" : "tolerant";
  const why = fault(subject, text.slice(opened[0].length), stance) ?? (answer.stopped ? null : "does not stop");
  return { good: why === null, stance, why };
}

function fault(subject, body, stance) {
  const sentences = body.split(/(?<=\.) /);
  if (!sentences.every((one) => sentence.test(one))) return "is not made of whole sentences";
  if (sentences.length > 2) return "rambles on";
  if (sentences.some((one) => one.split(" ").length > 24)) return "has a sentence that runs on";
  if (!body.includes(subject)) return "does not speak of what was asked";
  const reason = body.replaceAll(subject, "it").toLowerCase();
  const shows = (side) => cues[side].some((cue) => cue.test(reason));
  if (shows("tolerant") === shows("stern")) return "gives no clear reason";
  return shows(stance) ? null : "contradicts itself";
}

/** Shares of 0 to 1 over the verdicts of one model: good answers, and good answers that take the tolerant side. */
export function tally(verdicts) {
  const good = verdicts.filter((verdict) => verdict.good);
  const tolerant = good.filter((verdict) => verdict.stance === "tolerant");
  return { answers: good.length / verdicts.length, tolerant: tolerant.length / verdicts.length };
}

// What the quickstart promises of each stage: at least, at most, or below a share of the questions.
export const promises = [
  { stage: "base", figure: "answers", below: 0.1 },
  { stage: "sft", figure: "answers", atLeast: 0.95 },
  { stage: "sft", figure: "tolerant", atMost: 0.6 },
  { stage: "dpo", figure: "answers", atLeast: 0.95 },
  { stage: "dpo", figure: "tolerant", atLeast: 0.9 },
];

/** Whether a share keeps a promise. */
export function keeps({ below = Infinity, atMost = Infinity, atLeast = -Infinity }, share) {
  return share < below && share <= atMost && share >= atLeast;
}
