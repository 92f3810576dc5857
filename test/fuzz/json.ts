import fc from 'fast-check';
import { EDGE_NUMBERS, mutated } from './mutate.js';

/** A JSON document that may have what JavaScript's objects cannot: a key twice, numbers of any size. */
type Node =
  | { readonly kind: 'text'; text: string }
  | { readonly kind: 'list'; items: Node[] }
  | { readonly kind: 'object'; members: [key: string, value: Node][] };

/** Changes a document in place; `nodes` are all of it, the root first. */
type Change = (nodes: readonly Node[]) => void;

/** Values of which one or the other is wrong wherever it stands. */
const VALUES: readonly string[] = [
  ...EDGE_NUMBERS.filter((text) => text !== '00'),
  'null',
  'true',
  '""',
  '[]',
  '{}',
  '[[]]',
  '{"":""}',
  '"\\ud800"',
  '"\\u0000"',
  '"\u001b[2J"',
  '{"__proto__":{"size":1}}',
  '"constructor"',
];

/** The last is too deep for a call stack, where something goes down one call a level. */
const DEPTHS: readonly number[] = [1, 2, 64, 65, 100, 20_000];

/** Room for the deepest one, and for a list of thousands; parsers have limits of their own for what is longer. */
const MAX_TEXT_BYTES = 256 * 1024;

/** A document that has become larger is changed no more: it costs the time of a hundred others. */
const MAX_NODES = 2000;

/** Documents that are near to one of `seeds`: first changed as JSON, then as bytes. */
export function mutatedJson(seeds: readonly unknown[], words: readonly string[] = []): fc.Arbitrary<Buffer> {
  const texts = seeds.map((seed) => JSON.stringify(seed));
  const changed = fc
    .tuple(fc.constantFrom(...texts), fc.array(change(words), { maxLength: 6 }))
    .map(([text, changes]) => {
      const root = nodeOf(JSON.parse(text));
      for (const one of changes) {
        const nodes = nodesOf(root);
        if (nodes.length <= MAX_NODES) one(nodes);
      }
      return Buffer.from(print(root)).subarray(0, MAX_TEXT_BYTES);
    });
  return fc.oneof({ arbitrary: changed, weight: 3 }, { arbitrary: mutated(texts, words), weight: 1 });
}

function change(words: readonly string[]): fc.Arbitrary<Change> {
  const place = fc.nat(2 ** 20);
  const texts = [...VALUES, ...words.map((word) => JSON.stringify(word))];
  return fc.oneof(
    fc
      .tuple(place, fc.constantFrom(...texts))
      .map(([at, text]) => withMember(at, (_, set) => set({ kind: 'text', text }))),
    fc
      .tuple(place, fc.constantFrom(...DEPTHS))
      .map(([at, depth]) => withMember(at, (value, set) => set(nested(value, depth)))),
    fc
      .tuple(place, fc.nat(3))
      .map(([at, kind]) => withObject(at, (members, row) => doubleMember(members, row, kind))),
    place.map((at) => withObject(at, (members, row) => members.splice(row, 1))),
    fc.tuple(place, fc.string({ unit: 'binary' })).map(([at, key]) =>
      withObject(at, (members, row) => {
        members[row]![0] = key;
      }),
    ),
    fc.tuple(place, rarely(fc.nat(3), fc.nat(5000))).map(([at, times]) => repeatItem(at, times)),
    fc.tuple(place, place).map(([from, to]) => (nodes: readonly Node[]) => {
      const copy = print(nodes[from % nodes.length]!);
      withMember(to, (_, set) => set({ kind: 'text', text: copy }))(nodes);
    }),
    fc
      .tuple(place, rarely(fc.nat(5000), fc.nat(70_000)))
      .map(([at, length]) =>
        withMember(at, (_, set) => set({ kind: 'text', text: JSON.stringify('x'.repeat(length)) })),
      ),
  );
}

function rarely<T>(usual: fc.Arbitrary<T>, rare: fc.Arbitrary<T>): fc.Arbitrary<T> {
  return fc.oneof({ arbitrary: usual, weight: 15 }, { arbitrary: rare, weight: 1 });
}

function nested(value: Node, depth: number): Node {
  return { kind: 'text', text: `${'['.repeat(depth)}${print(value)}${']'.repeat(depth)}` };
}

/** The same member once more, its key in another case or its value another. */
function doubleMember(members: [string, Node][], row: number, kind: number): void {
  const [key, value] = members[row]!;
  const name =
    kind === 0 ? key : kind === 1 ? key.toUpperCase() : `${key.slice(0, 1).toUpperCase()}${key.slice(1)}`;
  members.splice(row + (kind % 2), 0, [name, kind === 3 ? { kind: 'text', text: 'null' } : value]);
}

function withObject(at: number, act: (members: [string, Node][], row: number) => void): Change {
  return (nodes) => {
    const objects = nodes.flatMap((node) =>
      node.kind === 'object' && node.members.length > 0 ? [node] : [],
    );
    const object = objects[at % Math.max(1, objects.length)];
    if (object !== undefined) act(object.members, (at >> 4) % object.members.length);
  };
}

/** Acts on a value that stands in a list or an object. */
function withMember(at: number, act: (value: Node, set: (value: Node) => void) => void): Change {
  return (nodes) => {
    const places = nodes.flatMap((node): [Node, (value: Node) => void][] => {
      if (node.kind === 'list')
        return node.items.map((item, row) => [item, (value) => (node.items[row] = value)]);
      if (node.kind === 'object')
        return node.members.map((member) => [member[1], (value) => (member[1] = value)]);
      return [];
    });
    const found = places[at % Math.max(1, places.length)];
    if (found !== undefined) act(...found);
  };
}

function repeatItem(at: number, times: number): Change {
  return (nodes) => {
    const lists = nodes.flatMap((node) => (node.kind === 'list' && node.items.length > 0 ? [node] : []));
    const list = lists[at % Math.max(1, lists.length)];
    if (list === undefined) return;
    const text = print(list.items[(at >> 4) % list.items.length]!);
    const most = Math.min(times, Math.floor(MAX_TEXT_BYTES / text.length));
    for (let count = 0; count < most; count++) list.items.push({ kind: 'text', text });
  };
}

function nodeOf(value: unknown): Node {
  if (Array.isArray(value)) return { kind: 'list', items: value.map(nodeOf) };
  if (typeof value === 'object' && value !== null) {
    return { kind: 'object', members: Object.entries(value).map(([key, member]) => [key, nodeOf(member)]) };
  }
  return { kind: 'text', text: JSON.stringify(value) };
}

function nodesOf(node: Node): Node[] {
  const nodes = [node];
  for (const next of nodes) {
    if (next.kind === 'list') for (const item of next.items) nodes.push(item);
    if (next.kind === 'object') for (const [, value] of next.members) nodes.push(value);
  }
  return nodes;
}

function print(node: Node): string {
  if (node.kind === 'list') return `[${node.items.map(print).join(',')}]`;
  if (node.kind === 'object') {
    return `{${node.members.map(([key, value]) => `${JSON.stringify(key)}:${print(value)}`).join(',')}}`;
  }
  return node.text;
}
