/**
 * Writes `docs/api/README.md`, the reference of the library, from the declarations that the compiler
 * made: every name that `src/index.ts` exports, with its comments. A test compares the page with
 * them, and finds types in public signatures that are not exported.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const DECLARATIONS = fileURLToPath(new URL('../src/', import.meta.url));
export const API_PAGE = fileURLToPath(new URL('../../docs/api/README.md', import.meta.url));

type Kind = 'class' | 'function' | 'type';

/** What a name of the public API stands for. */
interface Declaration {
  readonly name: string;
  readonly kind: Kind;
  /** Its comment, as Markdown. */
  readonly text: string;
  /** The declaration as the compiler wrote it, with the comments of its members. */
  readonly code: string;
}

/** Types of TypeScript, JavaScript and Node that signatures may have. */
const KNOWN = new Set(
  `AbortSignal Array AsyncDisposable AsyncGenerator Buffer Date Error Extract Map Omit Partial Pick Promise Readable
   Readonly ReadonlyArray Record Required Set Symbol Uint8Array`.split(/\s+/),
);

/** Every name that the library exports, in the order of its sections. */
export function declarationsOfApi(): Declaration[] {
  const found = exportsOf(join(DECLARATIONS, 'index.d.ts')).map(({ name, file }) =>
    declarationOf(name, file),
  );
  const order: readonly Kind[] = ['class', 'function', 'type'];
  return order.flatMap((kind) =>
    found.filter((each) => each.kind === kind).sort((a, b) => (a.name < b.name ? -1 : 1)),
  );
}

/** The names that a file of declarations exports, with the files that declare them. */
function exportsOf(file: string): { name: string; file: string }[] {
  const text = readFileSync(file, 'utf8');
  const target = (path: string) => join(dirname(file), path.replace(/\.js$/, '.d.ts'));
  const all = [...text.matchAll(/^export \* from '([^']+)';/gm)].flatMap(([, path]) =>
    exportsOf(target(path!)),
  );
  const named = [...text.matchAll(/^export (?:type )?\{([^}]*)\} from '([^']+)';/gm)].flatMap(
    ([, names = '', path]) =>
      names
        .split(',')
        .map((name) => name.replace(/^\s*type\s/, '').trim())
        .filter((name) => name !== '')
        .map((name) => ({ name, file: target(path!) })),
  );
  return [...all, ...named];
}

function declarationOf(name: string, file: string): Declaration {
  const text = readFileSync(file, 'utf8');
  const start = new RegExp(
    `((?:/\\*\\*(?:(?!\\*/)[\\s\\S])*\\*/\\n)?)^export (?:declare )?(?:abstract )?(class|interface|type|const|function) ${name}\\b`,
    'm',
  ).exec(text);
  if (start === null) {
    const from = exportsOf(file).find((each) => each.name === name);
    if (from === undefined) throw new Error(`${file} does not declare ${name}`);
    return declarationOf(name, from.file);
  }
  const [whole, comment = '', word = ''] = start;
  const codeStart = start.index + comment.length;
  const isBlock = word === 'class' || word === 'interface';
  const end = isBlock ? text.indexOf('\n}', codeStart) + 2 : endOfStatement(text, start.index + whole.length);
  const code = text
    .slice(codeStart, end)
    .replace(/^export (declare )?/, '')
    .replace(/^ {4}#private;\n/m, '');
  const kind = word === 'class' ? 'class' : word === 'const' || word === 'function' ? 'function' : 'type';
  return { name, kind, text: markdownOf(comment), code };
}

/** The position after the semicolon that ends a statement: the first outside of brackets. */
function endOfStatement(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    if (text.startsWith('/*', at)) at = text.indexOf('*/', at) + 1;
    else if ('({['.includes(text[at]!)) depth += 1;
    else if (')}]'.includes(text[at]!)) depth -= 1;
    else if (text[at] === ';' && depth === 0) return at + 1;
  }
  return text.length;
}

function markdownOf(comment: string): string {
  const lines = comment
    .replace(/^\/\*\*\s?|\s*\*\/\s*$/g, '')
    .split('\n')
    .map((line) => line.replace(/^\s*\* ?/, ''));
  return lines
    .join('\n')
    .trim()
    .replace(/^@throws /m, '\nThrows ')
    .replace(/^@returns /m, '\nReturns ');
}

/** Names of types in a declaration: parameters of types have a single letter, and
 * constants, as in `keyof typeof ERRORS`, only capitals. */
function typesIn({ code, name }: Declaration): string[] {
  const bare = code.replace(/\/\*[\s\S]*?\*\/|'[^']*'|`[^`]*`/g, '');
  return [...new Set(bare.match(/\b[A-Z]\w+\b/g) ?? [])].filter(
    (type) => type !== name && !/^[A-Z_]+$/.test(type),
  );
}

/** Types in public signatures that no user can import, as `NAME in DECLARATION`. */
export function missingTypes(declarations: readonly Declaration[]): string[] {
  const exported = new Set(declarations.map(({ name }) => name));
  return declarations.flatMap((declaration) =>
    typesIn(declaration)
      .filter((type) => !exported.has(type) && !KNOWN.has(type))
      .map((type) => `${type} in ${declaration.name}`),
  );
}

/** The page. */
export function apiPage(declarations: readonly Declaration[]): string {
  const names = new Set(declarations.map(({ name }) => name));
  const link = (name: string) => `[${name}](#${name.toLowerCase()})`;
  const section = (title: string, kind: Kind) => {
    const parts = declarations.filter((each) => each.kind === kind).map((each) => part(each, names, link));
    return `## ${title}\n\n${parts.join('\n\n')}`;
  };
  return `# API of the library

Made from the declarations by \`npm run api\`; [library.md](../library.md) is the introduction. Sizes are in bytes, times in milliseconds. Errors are
[PullError](#pullerror), whose codes [errors.md](../errors.md) explains.

${section('Classes', 'class')}

${section('Functions and constants', 'function')}

${section('Types', 'type')}
`;
}

function part(declaration: Declaration, names: ReadonlySet<string>, link: (name: string) => string): string {
  const { name, text, code } = declaration;
  const used = typesIn(declaration).filter((type) => names.has(type));
  const see = used.length === 0 ? '' : `\n\nSee ${used.map(link).join(', ')}.`;
  return `### ${name}\n\n${text === '' ? '' : `${text}\n\n`}\`\`\`\`ts\n${code}\n\`\`\`\`${see}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  mkdirSync(dirname(API_PAGE), { recursive: true });
  writeFileSync(API_PAGE, apiPage(declarationsOfApi()));
}
