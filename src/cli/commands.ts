import { SHELLS } from './completion-scripts.js';
import {
  BENCH_OPTIONS,
  COMMON_OPTIONS,
  COPY_OPTIONS,
  DEMO_OPTIONS,
  EXPORT_OPTIONS,
  type OptionSpec,
  OUTPUT_OPTIONS,
  PATH_OPTIONS,
  PULL_OPTIONS,
  QUIET,
  REGISTRY_OPTIONS,
  SERVE_OPTIONS,
  STORE_OPTIONS,
} from './options.js';

/** A command as it is parsed and described. */
export interface CommandSpec {
  readonly name:
    | 'pull'
    | 'plan'
    | 'inspect'
    | 'export'
    | 'copy'
    | 'tags'
    | 'store'
    | 'serve'
    | 'bench'
    | 'demo'
    | 'completion';
  readonly help: string;
  /** The arguments; the last may repeat. */
  readonly words: readonly WordSpec[];
  readonly options: readonly OptionSpec[];
  readonly examples: readonly (readonly [command: string, meaning: string])[];
}

interface WordSpec {
  readonly name: string;
  readonly help: string;
  readonly repeats?: true;
  readonly optional?: true;
  readonly choices?: readonly string[];
}

const IMAGE: WordSpec = {
  name: 'IMAGE',
  help: 'like alpine, ghcr.io/owner/name:tag or host/name@sha256:…; oci:DIR[:TAG] or oci-archive:FILE[:TAG] on this machine',
};

/** Options of pulls that `bench` has with another meaning, or not at all. */
const BENCH_REPLACES = ['workers', 'connections', 'policy', 'json'];

export const COMMANDS: readonly CommandSpec[] = [
  {
    name: 'pull',
    help: 'pull images into the store, verified; the default command',
    words: [{ ...IMAGE, repeats: true }],
    options: [...OUTPUT_OPTIONS, ...EXPORT_OPTIONS, ...PULL_OPTIONS, ...COMMON_OPTIONS],
    examples: [
      ['zpull alpine', 'pull docker.io/library/alpine:latest'],
      ['zpull --platform linux/arm64 --json quay.io/fedora/fedora:42', 'for another machine, result as JSON'],
    ],
  },
  {
    name: 'plan',
    help: 'tell what a pull would fetch and reuse, without fetching content',
    words: [IMAGE],
    options: [...PULL_OPTIONS, ...COMMON_OPTIONS],
    examples: [['zpull plan alpine', 'bytes and requests, layer by layer']],
  },
  {
    name: 'inspect',
    help: 'tell what an image is made of, and in which formats',
    words: [IMAGE],
    options: [...PULL_OPTIONS, ...COMMON_OPTIONS],
    examples: [['zpull inspect --json alpine', 'manifest, config, platforms and layers as JSON']],
  },
  {
    name: 'export',
    help: 'write an image from the store, pulled first if absent',
    words: [
      IMAGE,
      {
        name: 'DEST',
        help: "rootfs:DIR, the files of the image; tar:FILE, tar:- or -, the same as one tar; layers:DIR, each layer's tar named by its DiffID; docker-archive:FILE or docker-archive:-, for docker load",
      },
    ],
    options: [...PATH_OPTIONS, ...EXPORT_OPTIONS, ...PULL_OPTIONS, ...COMMON_OPTIONS],
    examples: [
      ['zpull export alpine rootfs:./alpine', 'the files into ./alpine'],
      ['zpull export alpine tar:- | tar -t', 'what is in the image'],
      ['zpull export alpine --path /etc/ssl - | tar -x', 'one directory, or one file; - is tar:-'],
      ['zpull export oci:./layout:v1 rootfs:./files', 'from a layout on this machine'],
      ['zpull export alpine docker-archive:- | docker load', 'without a file between'],
    ],
  },
  {
    name: 'copy',
    help: 'copy an image as it is into an OCI layout; prints its digest',
    words: [
      IMAGE,
      {
        name: 'DEST',
        help: 'oci:DIR[:TAG], or oci-archive:FILE[:TAG] for a tar of it, with FILE - on stdout',
      },
    ],
    options: [...COPY_OPTIONS, ...PULL_OPTIONS.filter(({ name }) => name !== 'policy'), ...COMMON_OPTIONS],
    examples: [['zpull copy alpine oci:./images:alpine', 'then: skopeo inspect oci:./images:alpine']],
  },
  {
    name: 'tags',
    help: 'list the tags of a repository or of an OCI layout',
    words: [
      {
        name: 'NAME',
        help: 'like alpine, ghcr.io/owner/name, oci:DIR or oci-archive:FILE; with a pattern for tags behind a colon: alpine:3.*',
      },
    ],
    options: [...REGISTRY_OPTIONS, ...COMMON_OPTIONS],
    examples: [
      ['zpull tags alpine', 'a line a tag'],
      ["zpull tags 'ghcr.io/owner/name:v1.*'", 'those that match'],
    ],
  },
  {
    name: 'store',
    help: 'look after the store',
    words: [
      {
        name: 'ACTION',
        help: 'ls: list images, or those that match IMAGE; rm: remove IMAGE; prune: free what no image needs; verify: hash every layer, or those of IMAGE; path: print where the store is',
        choices: ['ls', 'rm', 'prune', 'verify', 'path'],
      },
      {
        name: 'IMAGE',
        help: 'as it was pulled, or its digest (12 hex digits are enough), on every platform; for ls a pattern like "*alpine*"',
        optional: true,
      },
    ],
    options: [...STORE_OPTIONS, QUIET, ...COMMON_OPTIONS],
    examples: [
      ['zpull store ls', 'images with their size on disk'],
      ["zpull store ls 'ghcr.io/*'", 'those of one registry'],
      ['zpull store prune --older-than 30d', 'frees what no image needs and nobody wrote for a month'],
      ['zpull store prune --dry-run', 'how much that would be'],
      ['zpull store verify', 'exit code 6 if anything is damaged; a pull repairs it'],
      ['du -sh "$(zpull store path)"', 'how much room the store takes'],
    ],
  },
  {
    name: 'serve',
    help: 'a read-only registry over an OCI layout; ends on Ctrl-C',
    words: [{ name: 'LAYOUT', help: 'oci:DIR' }],
    options: [...SERVE_OPTIONS, ...COMMON_OPTIONS],
    examples: [
      ['zpull serve oci:./layout --port 5000', 'then: zpull 127.0.0.1:5000/any/name:TAG'],
      ['zpull serve oci:./layout --latency 50 --rate-per-connection 20M', 'as from far away'],
    ],
  },
  {
    name: 'bench',
    help: 'measure where the time of a pull goes, what limits it, and which settings are best',
    words: [IMAGE],
    options: [
      ...BENCH_OPTIONS,
      ...PULL_OPTIONS.filter(({ name }) => !BENCH_REPLACES.includes(name)),
      ...COMMON_OPTIONS.filter(({ name }) => !BENCH_REPLACES.includes(name)),
    ],
    examples: [
      ['zpull bench alpine', 'network, machine and pulls, with a verdict'],
      ['zpull bench alpine --stage network --connections 1,8,64', 'what more connections bring'],
      ['zpull bench alpine --against skopeo,podman --json now.json', 'in turn with other programs'],
      [
        'zpull bench alpine --compare before.json --fail-if-slower 10',
        'exit code 9 when something is slower beyond noise and by more than 10 %',
      ],
    ],
  },
  {
    name: 'demo',
    help: 'pull and update a sample image of its own, no network needed',
    words: [],
    options: [...DEMO_OPTIONS, ...COMMON_OPTIONS],
    examples: [['zpull demo', 'in some seconds']],
  },
  {
    name: 'completion',
    help: 'print a completion script for bash, zsh or fish',
    words: [{ name: 'SHELL', help: 'the shell; without it that of $SHELL', optional: true, choices: SHELLS }],
    options: COMMON_OPTIONS,
    examples: [
      ['zpull completion bash >> ~/.bashrc', 'complete in bash from the next shell on'],
      ['zpull completion fish > ~/.config/fish/completions/zpull.fish', 'in fish'],
    ],
  },
];

/** The command of a line that names none. */
export const DEFAULT_COMMAND = 'pull';

export const COMMAND_WORDS: readonly string[] = [...COMMANDS.map(({ name }) => name), 'help'];

/** `zpull export IMAGE DEST`. */
export function usageOf({ name, words }: CommandSpec): string {
  return ['zpull', name, ...words.map(wordUsage)].join(' ');
}

function wordUsage({ name, repeats, optional }: WordSpec): string {
  if (optional) return `[${name}]`;
  return repeats ? `${name}…` : name;
}

export function findCommand(name: string | undefined): CommandSpec | undefined {
  return COMMANDS.find((command) => command.name === name);
}

/** The option that this command, or else another, has under the name `typed`, dashes included. */
export function findOption(typed: string, command: CommandSpec): OptionSpec | undefined {
  const isTyped = ({ name, alias }: OptionSpec) => typed === `--${name}` || typed === `-${alias}`;
  for (const { options } of [command, ...COMMANDS]) {
    const option = options.find(isTyped);
    if (option !== undefined) return option;
  }
  return undefined;
}

/** Lines are not longer than this, however wide the terminal: longer ones read badly. */
const MAX_COLUMNS = 100;
/** Text in a narrower column is unreadable: it may rather wrap. */
const MIN_TEXT_COLUMNS = 24;

type Row = readonly [label: string, text: string];

/**
 * The help of a command, or of zpull itself, for a terminal of `columns` columns. Not the help of
 * yargs, which cannot name the value of an option, as in `--workers N`.
 */
export function helpText(command: CommandSpec | undefined, columns: number): string {
  const width = Math.min(columns, MAX_COLUMNS);
  const shown = command ?? findCommand(DEFAULT_COMMAND)!;
  const title = command?.help ?? 'zpull pulls container images by parallel ranges, verified and resumable';
  const usage = command === undefined ? 'zpull IMAGE…, or zpull COMMAND …' : usageOf(command);
  const examples = (command === undefined ? COMMANDS : [command]).flatMap((each) => each.examples);
  const sections: [title: string, rows: readonly Row[]][] = [
    ...(command === undefined ? [commandsSection()] : []),
    ['Arguments:', shown.words.map(({ name, help }) => [name, help])],
    [`Options${command === undefined ? ` of ${shown.name}` : ''}:`, shown.options.map(optionRow)],
  ];
  const body = sections
    .filter(([, rows]) => rows.length > 0)
    .map(([name, rows]) => `${name}\n${table(rows, width)}`);
  const exampleText = examples.map(([line, meaning]) => `  ${line}\n      ${meaning}\n`).join('');
  return [`${title}\n\nUsage: ${usage}\n`, ...body, `Examples:\n${exampleText}`].join('\n');
}

function commandsSection(): [title: string, rows: readonly Row[]] {
  const rows = COMMANDS.map((command): Row => [usageOf(command).replace('zpull ', ''), command.help]);
  return ['Commands (COMMAND --help says more):', rows];
}

function optionRow({ name, alias, placeholder, help, preset, choices }: OptionSpec): Row {
  const label = `${alias === undefined ? '    ' : `-${alias}, `}--${name}${placeholder ? ` ${placeholder}` : ''}`;
  const notes = [
    ...(choices === undefined ? [] : [choices.join(', ')]),
    ...(preset === undefined ? [] : [`default: ${preset}`]),
  ];
  return [label, notes.length === 0 ? help : `${help} (${notes.join('; ')})`];
}

/** Labels in one column, their texts wrapped beside them. */
function table(rows: readonly Row[], width: number): string {
  const labelWidth = Math.max(...rows.map(([label]) => label.length));
  const indent = ' '.repeat(labelWidth + 4);
  const textWidth = Math.max(MIN_TEXT_COLUMNS, width - indent.length);
  return rows
    .map(([label, text]) => `  ${label.padEnd(labelWidth)}  ${wrap(text, textWidth).join(`\n${indent}`)}\n`)
    .join('');
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
