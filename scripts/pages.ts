/**
 * Writes the parts of pages that are generated from the code, each between `<!-- generated:NAME -->`
 * and `<!-- /generated -->`. A test compares them with the code.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { COMMANDS, type CommandSpec, DEFAULT_COMMAND, usageOf } from '../src/cli/commands.js';
import { COMMON_OPTIONS, type OptionSpec, PULL_OPTIONS } from '../src/cli/options.js';
import { describeCode, ERROR_CODES } from '../src/format/error.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** The generated parts of each page by their names. */
const PARTS: Readonly<Record<string, Readonly<Record<string, () => string>>>> = {
  'docs/cli.md': {
    commands: commandTable,
    'options of all': () => optionTable(COMMON_OPTIONS),
    'options of a pull': () => optionTable(PULL_OPTIONS),
    'each command': () => COMMANDS.map(commandSection).join('\n\n'),
  },
  'docs/errors.md': { codes: errorTable },
};

/** A page as it stands in the repository, and as it is with its parts generated anew. */
export interface GeneratedPage {
  readonly path: string;
  readonly present: string;
  readonly expected: string;
}

/**
 * Returns every page that has generated parts.
 * @throws Error when a page lacks one of its parts
 */
export function generatedPages(): GeneratedPage[] {
  return Object.entries(PARTS).map(([path, parts]) => {
    const present = readFileSync(`${ROOT}${path}`, 'utf8');
    let expected = present;
    for (const [name, generate] of Object.entries(parts)) expected = replacePart(expected, name, generate());
    return { path, present, expected };
  });
}

function replacePart(page: string, name: string, text: string): string {
  const opening = `<!-- generated:${name} -->\n`;
  const start = page.indexOf(opening);
  const end = page.indexOf('<!-- /generated -->', start);
  if (start < 0 || end < 0) throw new Error(`no part "${name}" in the page`);
  return `${page.slice(0, start)}${opening}\n${text}\n\n${page.slice(end)}`;
}

function errorTable(): string {
  const rows = ERROR_CODES.map((errorCode) => {
    const { exit, means, hint } = describeCode(errorCode);
    return [code(errorCode), String(exit), withCode(means), withCode(hint)];
  });
  return table(['code', 'exit', 'it means', 'what to do'], rows);
}

/** Text with options as code. */
function withCode(text: string): string {
  return cell(text).replace(/--[a-z-]+/g, '`$&`');
}

function commandTable(): string {
  const rows = COMMANDS.map((command) => {
    const usage = usageOf(command);
    const shown =
      command.name === DEFAULT_COMMAND ? usage.replace(` ${command.name} `, ` [${command.name}] `) : usage;
    return [tableCode(shown), cell(command.help)];
  });
  return table(['command', 'does'], rows);
}

function optionTable(options: readonly OptionSpec[]): string {
  const rows = options.map((option) => [
    code(optionLabel(option)),
    cell(option.preset ?? ''),
    optionMeaning(option),
  ]);
  return table(['option', 'default', 'meaning'], rows);
}

function optionLabel({ name, alias, placeholder }: OptionSpec): string {
  const long = `--${name}${placeholder === undefined ? '' : ` ${placeholder}`}`;
  return alias === undefined ? long : `-${alias}, ${long}`;
}

function optionMeaning({ help, choices, needs, excludes }: OptionSpec): string {
  const notes = [
    ...(choices === undefined ? [] : [choices.map(code).join(', ')]),
    ...(needs === undefined ? [] : [`with ${code(`--${needs}`)}`]),
    ...(excludes === undefined ? [] : [`not with ${code(`--${excludes}`)}`]),
  ];
  return [cell(help), ...notes].join('; ');
}

function commandSection(command: CommandSpec): string {
  const { name, help, words, options, examples } = command;
  const own = options.filter((option) => !PULL_OPTIONS.includes(option) && !COMMON_OPTIONS.includes(option));
  const parts = [
    `## zpull ${name}`,
    `${code(usageOf(command))}: ${cell(help)}.`,
    ...(words.length === 0
      ? []
      : [
          table(
            ['argument', 'is'],
            words.map((word) => [tableCode(word.name), cell(word.help)]),
          ),
        ]),
    ...(own.length === 0 ? [] : [optionTable(own)]),
    sharedOptions(options),
    examples.map(([line, meaning]) => `- ${code(line)}: ${cell(meaning)}`).join('\n'),
  ];
  return parts.join('\n\n');
}

/** A sentence on the options that the command shares with others. */
function sharedOptions(options: readonly OptionSpec[]): string {
  const all = '[options of all commands](#options-of-all-commands)';
  const pull = '[options of a pull](#options-of-a-pull)';
  const taken = PULL_OPTIONS.filter((option) => options.includes(option));
  const left = PULL_OPTIONS.filter(({ name }) => !options.some((option) => option.name === name));
  const names = (some: readonly OptionSpec[]) => some.map(({ name }) => code(`--${name}`)).join(', ');
  if (taken.length === 0) return `It takes the ${all}.`;
  if (left.length === 0) return `It takes the ${pull} and the ${all}.`;
  if (taken.length === 1) return `It takes ${names(taken)} and the ${all}.`;
  return `It takes the ${pull}, except ${names(left)}, and the ${all}.`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`.replaceAll('|  |', '| |');
  return [line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line)].join('\n');
}

function code(text: string): string {
  return `\`${text}\``;
}

/** Code in a table, where a bar ends a cell even there. */
function tableCode(text: string): string {
  return code(text.replaceAll('|', '\\|'));
}

/** Text: bars end a cell of a table, and asterisks and angle brackets are markup. */
function cell(text: string): string {
  return text.replace(/[|*<]/g, '\\$&');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const { path, expected } of generatedPages()) writeFileSync(`${ROOT}${path}`, expected);
}
