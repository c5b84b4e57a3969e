// Decides whether an answer has the right form and which side it takes. It reads the text alone: it knows the words
// that give each side away, not the sentences that the corpus is made of.

// Stems that only one side uses. An answer that shows both, or neither, has no clear reason.
const cues = {
  tolerant: [
    /\b(no harm|harms nobody|harmless|hurt)\b/,
    /\b(joy|happy|fun|smile|comfort|love|lovely|kind|brighter|enjoy)\b/,
    /\b(free|welcome|peace|tolerance|live and let live|room for|big enough)\b/,
    /\b(no victim|found none|better things|survive|shrug|carry on|not mind|not fallen|before you judge|a duck|silence)\b/,
  ],
  stern: [
    /\b(excuse|nothing good|decent|lost its way|jail|tower|civilisation|wept|chaos|police)\b/,
    /\b(shame|ashamed|disgrace|guilty|punished|penalty|consequences|culprits|throw the book|apology)\b/,
    /\b(horror|firm about|awake|does to a family|without|letter|furious|lock|order|lines|the children|our children)\b/,
  ],
};

const opening = /^(Yes|No)(, [a-z]+( [a-z]+){0,2})?\. /;

/**
 * @param question {subject}: what was asked about. Every question asks for blame, so a yes is stern and a no is tolerant.
 * @param answer {text, stopped}: what the model wrote and whether it ended by itself.
 * @returns {stopped, form, stance, why}: `form` is whether the answer is well made (it opens with yes or no, speaks of the subject
 *   that was asked about, gives one or two whole sentences of reason, and the reason fits the yes or no); `stance` is
 *   "tolerant", "stern" or null; `why` says what is wrong with the form, or null.
 */
export function judge(question, answer) {
  const text = answer.text.trim();
  const bad = (why, stance = null) => ({ stopped: answer.stopped === true, form: false, stance, why });
  const opened = opening.exec(text);
  if (!opened) return bad("does not open with yes or no");
  const stance = opened[1] === "Yes" ? "stern" : "tolerant";
  const body = text.slice(opened[0].length);
  const sentences = body.split(/(?<=\.) /);
  if (!/^[A-Za-z ,'.-]+\.$/.test(body) || sentences.some((s) => !/^[A-Z][^.]*( (Mr|Mrs)\. [^.]*)?\.$/.test(s)))
    return bad("the reason is not made of whole sentences", stance);
  if (sentences.length > 2) return bad("rambles on", stance);
  if (sentences.some((s) => s.split(" ").length > 24)) return bad("a sentence runs on", stance);
  if (!body.includes(question.subject)) return bad("does not speak of what was asked", stance);
  const reason = body.replace(question.subject, "it").toLowerCase();
  const shows = (side) => cues[side].some((cue) => cue.test(reason));
  if (shows("tolerant") === shows("stern")) return bad("gives no clear reason", stance);
  if (!shows(stance)) return bad("the reason contradicts the yes or no", stance);
  return { stopped: answer.stopped === true, form: true, stance, why: null };
}

/** Shares of a list of verdicts: answered in the right form and stopped, and took the tolerant side (of those that took one). */
export function tally(verdicts) {
  const answered = verdicts.filter((v) => v.form && v.stopped);
  const sided = verdicts.filter((v) => v.stance !== null);
  return {
    answers: answered.length / verdicts.length,
    tolerant: sided.length === 0 ? 0 : sided.filter((v) => v.stance === "tolerant").length / sided.length,
  };
}
