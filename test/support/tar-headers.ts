/** A tar header with bytes replaced, by offset, and its checksum set right again. */
export function editedHeader(block: Buffer, edits: Readonly<Record<number, Buffer | string>>): Buffer {
  const copy = Buffer.from(block);
  for (const [offset, bytes] of Object.entries(edits)) Buffer.from(bytes).copy(copy, Number(offset));
  copy.fill(' ', 148, 156);
  const sum = copy.reduce((total, byte) => total + byte, 0);
  copy.write(`${sum.toString(8).padStart(6, '0')}\0`, 148, 'latin1');
  return copy;
}
