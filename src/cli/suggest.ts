import { COMMAND_WORDS, COMMANDS, type CommandSpec, findCommand, findOption } from './commands.js';
import { UsageError } from './failure.js';
import { formatList } from './format-text.js';

/** `expotr` is two edits from `export`; more would refuse names of images. */
const COMMAND_EDITS = 2;
/** `--paltfrom` is four edits from `--platform`, but beyond three most guesses are wrong. */
const OPTION_EDITS = 3;
/** Longer words are no misspelled names, and need no table of distances. */
const MAX_LENGTH = 40;

/**
 * Refuses a first word that is nearly the name of a command, lest it be pulled as an image. yargs
 * suggests no command where there is a default one.
 * @throws UsageError
 */
export function refuseMisspelledCommand(word: string | undefined): void {
  // A reference that says more than a short name is meant as one.
  if (word === undefined || /[/:@.]/.test(word)) return;
  const command = nearest(word.toLowerCase(), COMMAND_WORDS, COMMAND_EDITS);
  if (command === undefined) return;
  const insist = `to pull an image of that name: zpull pull ${word}`;
  if (command !== word) {
    throw new UsageError(`"${word}" is no command; did you mean "${command}"?`, insist);
  }
  if (findCommand(word) !== undefined) {
    throw new UsageError(`the command "${word}" comes after --`, `write --, if at all, after it; ${insist}`);
  }
  throw new UsageError(`this version has no command "${word}"`, `zpull --help lists the commands; ${insist}`);
}

/**
 * The refusal of an option that the command does not have: names the commands that have it, or the
 * nearest option.
 */
export function unknownOption(typed: string, command: CommandSpec): UsageError {
  const message = `zpull ${command.name} has no option ${typed}`;
  const spec = findOption(typed);
  if (spec !== undefined) {
    const owners = COMMANDS.filter(({ options }) => options.includes(spec)).map(
      ({ name }) => `zpull ${name}`,
    );
    return new UsageError(message, `it is an option of ${formatList(owners)}`);
  }
  const names = command.options.map(({ name }) => name);
  const word = typed.replace(/^-+/, '');
  const guess =
    (word.length > 1 ? names.find((name) => name.startsWith(word)) : undefined) ??
    nearest(word, names, Math.min(OPTION_EDITS, Math.floor(word.length / 2)));
  const list = `zpull ${command.name} --help lists them`;
  return new UsageError(message, guess === undefined ? list : `did you mean --${guess}? ${list}`);
}

/**
 * The candidate nearest to `word` by Levenshtein distance, of equals the first; undefined when all
 * are more than `limit` edits away.
 */
export function nearest(word: string, candidates: Iterable<string>, limit: number): string | undefined {
  let best: string | undefined;
  let bestDistance = limit + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function editDistance(from: string, to: string): number {
  if (from.length > MAX_LENGTH || to.length > MAX_LENGTH) return Number.POSITIVE_INFINITY;
  let row = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (const [above, letter] of [...from].entries()) {
    const next = [above + 1];
    for (let column = 0; column < to.length; column++) {
      const replaced = row[column]! + (letter === to[column] ? 0 : 1);
      next.push(Math.min(replaced, row[column + 1]! + 1, next[column]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}
