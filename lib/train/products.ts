// Which algorithms multiplied a run's matrices, in its checkpoints: on a GPU a library chooses them, and two of them sum in two orders. A resumed run
// goes on with them, or says that it cannot.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { LoadedModel } from "../engine/model.ts";
import { writeText } from "../io/write.ts";
import type { Session } from "../runtime/session.ts";

const FILE = "products.txt";

export async function saveProducts(session: Session, dir: string): Promise<void> {
  const choices = await session.choices();
  if (choices !== "") await writeText(join(dir, FILE), choices);
}

/** Those of a checkpoint; empty where the CPU made it. */
export const savedProducts = (dir: string): Promise<string> => readFile(join(dir, FILE), "utf8").catch(() => ""); // a damaged checkpoint was refused before

/** Makes the sessions of a resumed run multiply as its checkpoint says. Before their first products: those that score the reference are the first. */
export async function goOnWith(products: string, sessions: readonly Session[], log: (message: string) => void): Promise<void> {
  for (const [i, session] of sessions.entries()) {
    if ((await session.adopt(products)) || i > 0) continue;
    const [before, now] = [products, await session.choices()].map(makerOf);
    const same = before === now ? " (what the checkpoint says of them can't be read)" : "";
    log(`resume: the run's matrices were multiplied by ${before}, and are now by ${now}${same}: from now on its bits may differ from those of the run never stopped`);
  }
}

/** What made these choices: a device, and the library that it has. */
export const makerOf = (choices: string): string => choices.split("\n")[0] || "the CPU";

/** A reference of its own has multiplied first: the policy goes on with its choices, so that a checkpoint, which is the policy's, has both. */
export async function handOver(reference: LoadedModel, policy: LoadedModel): Promise<void> {
  await policy.session.adopt(await reference.session.choices());
}
