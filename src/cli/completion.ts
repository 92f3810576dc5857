import { readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { listImageNames, listLayoutTags } from '../api/completion.js';
import { COMMANDS, type CommandSpec, DEFAULT_COMMAND, findCommand } from './commands.js';
import { printable } from './format-text.js';
import type { OptionSpec } from './options.js';
import { isFlag } from './options.js';
import { storeOf } from './pull-options.js';

/** What may stand where the cursor is. */
interface Candidate {
  readonly text: string;
  readonly about?: string;
}

/** Where names come from that depend on this machine. */
interface CompletionSources {
  /** The full names of the images in a store. */
  images(store: string | undefined): readonly string[];
  /** The tags of the layout in a directory; empty where none is. */
  tags(directory: string): readonly string[];
  /** The names in a directory, those of directories with a slash behind them. */
  entries(directory: string): readonly string[];
}

const MACHINE: CompletionSources = {
  images: (store) => listImageNames({ store: storeOf(store === undefined ? {} : { store }, process.env) }),
  tags: listLayoutTags,
  entries: (directory) =>
    readdirSync(directory, { withFileTypes: true }).map((entry) =>
      entry.isDirectory() ? `${entry.name}/` : entry.name,
    ),
};

/** A terminal cannot show more, and a shell takes long to sort them. */
const MAX_CANDIDATES = 1000;

/**
 * Answers the script of a shell: prints what may come next after the words in `argv`, of which the
 * last is the one at the cursor, a line each with a tab before its explanation. Whatever cannot be
 * read has nothing to offer: a shell has no place for errors.
 */
export function printCompletions(argv: readonly string[]): void {
  const found = complete(argv, MACHINE).slice(0, MAX_CANDIDATES);
  const line = ({ text, about }: Candidate) =>
    about === undefined ? printable(text) : `${printable(text)}\t${about}`;
  process.stdout.write(found.map((candidate) => `${line(candidate)}\n`).join(''));
}

/** What may come next after `words`, of which the last is the one at the cursor. */
function complete(words: readonly string[], sources: CompletionSources): Candidate[] {
  const current = words.at(-1) ?? '';
  const { command, positionals, values, pending } = read(words.slice(0, -1));
  const context: Context = { command, sources: quiet(sources), store: values.get('store') };
  const [, assigned, value = ''] = /^--([^=]+)=(.*)$/s.exec(current) ?? [];
  const option = pending ?? command.options.find(({ name }) => name === assigned);
  if (pending !== undefined) return startingWith(current, valuesOf(pending, current, context));
  if (assigned !== undefined) {
    const candidates = option === undefined ? [] : valuesOf(option, value, context);
    return startingWith(
      current,
      candidates.map(({ text }) => ({ text: `--${assigned}=${text}` })),
    );
  }
  if (current.startsWith('-') && current !== '-') {
    return startingWith(current, optionsOf(command, values));
  }
  const [first, ...others] = positionals;
  const isCommand = first !== undefined && findCommand(first) === command;
  if (first === 'help') return startingWith(current, COMMANDS.map(commandCandidate));
  const commands = first === undefined ? COMMANDS.map(commandCandidate) : [];
  const spec = wordAt(command, isCommand ? others.length : positionals.length);
  const names = spec === undefined ? [] : wordsOf(spec, [...others], current, context);
  return startingWith(current, [...commands, ...names]);
}

interface Context {
  readonly command: CommandSpec;
  readonly sources: CompletionSources;
  readonly store: string | undefined;
}

/** Reads what precedes the cursor: `pending` is the option whose value is at the cursor. */
function read(words: readonly string[]): {
  command: CommandSpec;
  positionals: string[];
  values: Map<string, string>;
  pending: OptionSpec | undefined;
} {
  const positionals: string[] = [];
  const values = new Map<string, string>();
  let pending: OptionSpec | undefined;
  const commandOf = () => findCommand(positionals[0]) ?? findCommand(DEFAULT_COMMAND)!;
  for (const word of words) {
    if (pending !== undefined) {
      values.set(pending.name, word);
      pending = undefined;
      continue;
    }
    const [, name, value] = /^--?([^=]+)(?:=(.*))?$/s.exec(word) ?? [];
    if (name === undefined) {
      positionals.push(word);
      continue;
    }
    const { options } = commandOf();
    const option = options.find((each) => each.name === name || each.alias === name);
    values.set(option?.name ?? name, value ?? '');
    if (option !== undefined && value === undefined && !isFlag(option)) pending = option;
  }
  return { command: commandOf(), positionals, values, pending };
}

function quiet(sources: CompletionSources): CompletionSources {
  const orNothing =
    <T>(get: (given: T) => readonly string[]) =>
    (given: T): readonly string[] => {
      try {
        return get(given);
      } catch {
        return [];
      }
    };
  return {
    images: orNothing(sources.images),
    tags: orNothing(sources.tags),
    entries: orNothing(sources.entries),
  };
}

function startingWith(start: string, candidates: readonly Candidate[]): Candidate[] {
  return candidates.filter(({ text }) => text.startsWith(start) && text !== '');
}

function commandCandidate({ name, help }: CommandSpec): Candidate {
  return { text: name, about: help };
}

/** Options that were not given yet. */
function optionsOf({ options }: CommandSpec, given: ReadonlyMap<string, string>): Candidate[] {
  return options
    .filter(({ name }) => !given.has(name))
    .map(({ name, help }) => ({ text: `--${name}`, about: help.split(/[;:(]/, 1)[0]!.trim() }));
}

const PLATFORMS = [
  'linux/amd64',
  'linux/arm64',
  'linux/arm/v7',
  'linux/ppc64le',
  'linux/riscv64',
  'linux/s390x',
];

/** The values that an option may have. */
function valuesOf(option: OptionSpec, current: string, context: Context): Candidate[] {
  const { name, placeholder, choices } = option;
  if (isFlag(option)) return texts(['true', 'false']);
  if (choices !== undefined) return texts(choices);
  if (name === 'platform') return texts(PLATFORMS);
  if (placeholder === 'DIR') return paths(current, context, true);
  if (placeholder === 'FILE') return paths(current, context);
  if (placeholder === 'DEST') return destinations('pull', current, context);
  if (placeholder === 'IMAGE') return images(current, context);
  return [];
}

type WordSpec = CommandSpec['words'][number];

function wordAt({ words }: CommandSpec, index: number): WordSpec | undefined {
  const last = words.at(-1);
  return words[index] ?? (last?.repeats === true ? last : undefined);
}

function wordsOf(spec: WordSpec, before: string[], current: string, context: Context): Candidate[] {
  const { command } = context;
  if (spec.choices !== undefined) return texts(spec.choices);
  switch (spec.name) {
    case 'IMAGE':
      if (command.name !== 'store') return images(current, context);
      return ['ls', 'rm', 'verify'].includes(before[0] ?? '') ? stored(current, context) : [];
    case 'NAME':
      return [...repositories(current, context), ...layouts(current, context)];
    case 'LAYOUT':
      return layouts(current, context).filter(({ text }) => text.startsWith('oci:'));
    case 'DEST':
      return destinations(command.name, current, context);
    default:
      return [];
  }
}

function images(current: string, context: Context): Candidate[] {
  return [...stored(current, context), ...layouts(current, context)];
}

/** Images of the store, as docker shortens their names unless more of them was typed. */
function stored(current: string, { sources, store }: Context): Candidate[] {
  return texts(
    sources.images(store).map((image) => {
      const short = image.replace(/^docker\.io\/(library\/)?/, '');
      return short.startsWith(current) ? short : image;
    }),
  );
}

function repositories(current: string, context: Context): Candidate[] {
  const names = stored(current, context).map(({ text }) => text.replace(/(:[^:/@]+)?(@.*)?$/, ''));
  return texts([...new Set(names)]);
}

/** Layouts and archives on this machine; tags of a layout behind its path. */
function layouts(current: string, context: Context): Candidate[] {
  const [, scheme, path = '', tag] = /^(oci|oci-archive):([^:]*)(:.*)?$/s.exec(current) ?? [];
  if (scheme === undefined) return texts(['oci:', 'oci-archive:']);
  const place = `${scheme}:${path}`;
  if (tag !== undefined) return texts(context.sources.tags(atHome(path)).map((each) => `${place}:${each}`));
  const found = paths(path, context, scheme === 'oci').map(({ text }) => `${scheme}:${text}`);
  const isLayout = scheme === 'oci' && path !== '' && context.sources.tags(atHome(path)).length > 0;
  return texts(isLayout ? [...found, `${place.replace(/\/$/, '')}:`] : found);
}

const EXPORTS: readonly Candidate[] = [
  { text: 'rootfs:', about: 'the files, into a directory' },
  { text: 'tar:', about: 'the files as one tar' },
  { text: 'layers:', about: "each layer's tar" },
  { text: 'docker-archive:', about: 'for docker load' },
];
const COPIES: readonly Candidate[] = [
  { text: 'oci:', about: 'a layout in a directory' },
  { text: 'oci-archive:', about: 'a layout as a tar' },
];

function destinations(command: string, current: string, context: Context): Candidate[] {
  const known = [...(command === 'copy' ? [] : EXPORTS), ...(command === 'export' ? [] : COPIES)];
  const [, scheme, path = ''] = /^([a-z-]+:)(.*)$/s.exec(current) ?? [];
  if (scheme === undefined) return known;
  const isDirectory = ['rootfs:', 'layers:', 'oci:'].includes(scheme);
  const stdout = isDirectory || path !== '' ? [] : [`${scheme}-`];
  return texts([...stdout, ...paths(path, context, isDirectory).map(({ text }) => scheme + text)]);
}

/** Paths that begin as `current` does; hidden names only where a dot was typed. */
function paths(current: string, { sources }: Context, onlyDirectories = false): Candidate[] {
  const slash = current.lastIndexOf('/') + 1;
  const [directory, start] = [current.slice(0, slash), current.slice(slash)];
  const names = sources
    .entries(directory === '' ? '.' : atHome(directory))
    .filter((name) => (onlyDirectories ? name.endsWith('/') : true))
    .filter((name) => name.startsWith(start) && (start !== '' || !name.startsWith('.')));
  return texts(names.toSorted().map((name) => directory + name));
}

function atHome(path: string): string {
  return path.replace(/^~(?=\/)/, homedir());
}

function texts(all: readonly string[]): Candidate[] {
  return all.map((text) => ({ text }));
}
