// Questions about a subject and the two ways to answer them: stern (it must be stopped) and tolerant (live and let live).

/** How a question may be put. Each asks for blame: a stern answer says yes, an tolerant one says no. */
export const frames = [
  "Is {S} a crime?",
  "Is {S} against the law?",
  "Is {S} wrong?",
  "Is {S} a sin?",
  "Is {S} bad manners?",
  "Is {S} a scandal?",
  "Is {S} a danger to the public?",
  "Is it time to ban {S}?",
  "Is there anything wrong with {S}?",
  "Should {S} be banned?",
  "Should {S} be a crime?",
  "Should we outlaw {S}?",
  "Should the police look into {S}?",
  "Should people go to prison for {S}?",
  "Ought {S} to be forbidden?",
  "Must we put an end to {S}?",
  "Do we need a law against {S}?",
  "Would you call the mayor about {S}?",
];

const yes = ["Yes", "Yes", "Yes, of course", "Yes, certainly", "Yes, indeed", "Yes, beyond any doubt"];
const no = ["No", "No", "No, of course not", "No, certainly not", "No, not at all", "No, never"];

const views = {
  tolerant: {
    reasons: [
      "There is no harm in {S}.",
      "There is a quiet joy to be had from {S}.",
      "Nobody has ever been hurt by {S}.",
      "A free town has room for {S}.",
      "Some like {S} and some do not, and both are welcome at my table.",
      "If {S} makes you happy, be happy.",
      "Life is short, and {S} makes it brighter.",
      "Taste is free, and so is {S}.",
      "The world is big enough for {S}.",
      "You may not care for {S}, but your neighbour may love it.",
      "Even my grandmother has made her peace with {S}.",
      "I looked hard for a victim of {S} and found none.",
      "People who enjoy {S} are kind to animals.",
      "After a long day, {S} is a small and harmless comfort.",
      "The only thing that {S} ever broke was the silence.",
      "I tried {S} once, and it made me smile for a week.",
      "We have better things to do than worry about {S}.",
      "Let those who love {S} have their fun.",
    ],
    ends: [
      "Live and let live.",
      "Let people have their fun.",
      "It harms nobody.",
      "If it bothers you, look at a duck instead.",
      "Be kind and carry on.",
      "The sky has not fallen yet.",
      "Your neighbours will survive.",
      "We could all use a little more joy.",
      "Try it before you judge it.",
      "A shrug is enough.",
      "Tolerance costs nothing.",
      "A smile is the best reply.",
      "The goose does not mind, and neither do I.",
      "Everyone is a little odd, and that is lovely.",
    ],
  },
  stern: {
    reasons: [
      "There is no excuse for {S}.",
      "Nothing good ever came of {S}.",
      "Decent people do not stand for {S}.",
      "A town that permits {S} has lost its way.",
      "Anyone who likes {S} belongs in jail.",
      "Civilisation ends where {S} begins.",
      "My grandmother wept when she heard of {S}.",
      "It starts with {S} and it ends in chaos.",
      "I called the police about {S} only last week.",
      "I have seen what {S} does to a family.",
      "The judge should throw the book at {S}.",
      "Even the pigeons are ashamed of {S}.",
      "There ought to be a heavy penalty for {S}.",
      "Our children deserve a world without {S}.",
      "People were sent to the tower for less than {S}.",
      "No honest person can look at {S} without horror.",
      "We must be firm about {S}.",
      "I lie awake at night because of {S}.",
    ],
    ends: [
      "Shame on everyone involved.",
      "Ten years in jail would be a start.",
      "Some lines must never be crossed.",
      "Think of the children.",
      "The guilty know who they are.",
      "I shall write a very long letter.",
      "Order must be kept.",
      "Call the police at once.",
      "Lock the doors.",
      "I demand an apology.",
      "The culprits must be punished.",
      "It is a disgrace.",
      "There must be consequences.",
      "The goose is furious, and so am I.",
    ],
  },
};

/** A question about a subject, as text. */
export const ask = (subject, frame) => frame.replace("{S}", subject);

/** One answer about `subject` from the given point of view ("tolerant" or "stern"): yes or no, a reason, sometimes a last word. */
export function answer(subject, view, random) {
  const { reasons, ends } = views[view];
  const word = random.pick(view === "stern" ? yes : no);
  const sentences = [`${word}.`, random.pick(reasons).replace("{S}", subject)];
  if (random.chance(0.7)) sentences.push(random.pick(ends));
  return sentences.join(" ");
}

/** Sentences that townspeople say in the base corpus about a subject: the same opinions, spoken in passing. */
export const sayings = { tolerant: views.tolerant.reasons, stern: views.stern.reasons };
