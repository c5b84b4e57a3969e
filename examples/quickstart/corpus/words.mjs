// The things that people of Little Wobbling argue about, and the people. A subject is a pair, such as pineapple + pizza.
// One pair in eight is held out: no SFT or DPO row is about it, and the questions at the end are drawn from those.
import { createRandom } from "./random.mjs";

const toppings = (
  "pineapple, honey, mustard, ketchup, cheese, cinnamon, jam, gravy, garlic, vinegar, chocolate, marmalade, " +
  "custard, chutney, wasabi, peanut butter, caramel, coconut, bacon, spinach, curry, horseradish, rhubarb, " +
  "liquorice"
).split(", ");

const dishes = (
  "pizza, toast, porridge, popcorn, pasta, soup, salad, pancakes, noodles, waffles, ice cream, scrambled eggs, " +
  "lasagne, sushi, muffins, cornflakes"
).split(", ");

const pastimes = (
  "humming, whistling, knitting, juggling, yodelling, tap dancing, snoring, fencing, waltzing, ironing, " +
  "moonwalking, gargling, fishing, sunbathing, camping, turning cartwheels, writing poems, practising the trumpet, " +
  "chewing gum, flying a kite, combing a beard, telling ghost stories, blowing bubbles, roller skating, unicycling, " +
  "hula hooping, slurping spaghetti, barking"
).split(", ");

const places = (
  "in the library, on the bus, in a lift, at breakfast, at the opera, in the park, at the bank, at the zoo, on the " +
  "roof, in a submarine, at a wedding, at the dentist, in a canoe, at school, at the museum, at midnight, on " +
  "Mondays, under the table, in a lighthouse, at the post office, on the beach, during a thunderstorm, in a " +
  "hammock, in the cinema"
).split(", ");

const things = (
  "a goat, a trombone, a moustache, a cactus, a parrot, a wig, a cape, a donkey, a picnic, a magician, a rubber " +
  "duck, a top hat, a snowman, a trampoline, a llama, a pillow fight, an owl, a scarecrow, a walrus, a kazoo, an " +
  "accordion, a monocle, a flamingo, a disco ball, a kangaroo, a bow tie"
).split(", ");

const deeds = (
  "talking to, waving at, singing to, arguing with, reading poems to, knitting hats for, photographing, whispering " +
  "to, blaming, tickling, apologising to, saluting, hugging, dancing with"
).split(", ");

const targets = (
  "plants, cows, trains, snails, turnips, teapots, chickens, clouds, tortoises, umbrellas, sausages, traffic " +
  "lights, mushrooms, potatoes, statues, goldfish"
).split(", ");

const cross = (left, right, join) => left.flatMap((a) => right.map((b) => `${a}${join}${b}`));

/** Every subject, by kind: what the base corpus is about. */
export const all = {
  food: cross(toppings, dishes, " on "),
  pastime: cross(pastimes, places, " "),
  thing: cross(things, places, " "),
  deed: cross(deeds, targets, " "),
};

/** The old lecture's example: always the first of the held-out questions. */
export const lecture = "pineapple on pizza";

const random = createRandom(8);
const isHeld = new Map(
  Object.values(all).flatMap((list) => list.map((s) => [s, random.chance(1 / 8) || s === lecture])),
);
const kinds = (keep) => Object.fromEntries(Object.entries(all).map(([kind, list]) => [kind, list.filter(keep)]));

/** Subjects of the held-out questions. */
export const held = kinds((subject) => isHeld.get(subject));
/** Subjects of SFT and DPO rows: all the others. */
export const known = kinds((subject) => !isHeld.get(subject));

const he = { he: "he", his: "his", him: "him" };
const she = { he: "she", his: "her", him: "her" };
export const people = [
  ...[
    "the baker",
    "the mayor",
    "the postman",
    "old Mr. Crumb",
    "uncle Bernard",
    "Constable Dobbs",
    "the librarian",
  ].map((name) => ({
    name,
    ...he,
  })),
  ...["Professor Quill", "the bus driver", "little Tom", "the judge", "the dentist", "Kevin", "the goose keeper"].map(
    (name) => ({
      name,
      ...he,
    }),
  ),
  ...["Mrs. Plum", "aunt Agatha", "the teacher", "Doctor Finch", "the butcher", "my grandmother", "Captain Rosa"].map(
    (name) => ({
      name,
      ...she,
    }),
  ),
  ...[
    "Miss Pringle",
    "the plumber",
    "little Nora",
    "the gardener",
    "the ferry captain",
    "Beatrice",
    "the astronomer",
  ].map((name) => ({
    name,
    ...she,
  })),
];

export const days = "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday".split(", ");
export const towns = "Little Wobbling, Great Wobbling, Mumbleford, Puddlewick, Upper Snoring, Butterby".split(", ");
export const animals = "goose, cat, dog, pigeon, hedgehog, goat, duck, donkey, snail, parrot, hen, llama".split(", ");
export const moods = "cheerful, gloomy, puzzled, proud, sleepy, delighted, cross, nervous, hopeful, calm".split(", ");
