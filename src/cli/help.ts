import { COMMANDS, type CommandSpec, DEFAULT_COMMAND, findCommand, usageOf } from './commands.js';
import type { OptionSpec } from './options.js';

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
