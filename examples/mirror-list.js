// Copies the images of a list, one a line, into one OCI layout: node mirror-list.js LIST LAYOUT
import { readFileSync } from 'node:fs';
import { Client } from 'zpull';

const [list = 'images.txt', path = './layout'] = process.argv.slice(2);
const images = readFileSync(list, 'utf8')
  .split('\n')
  .filter((line) => line.trim() !== '');
const client = new Client({ store: './store' });
const copies = images.map(async (image) => {
  const { digest } = await client.copy({ image, to: { kind: 'layout', path, tag: image } });
  return `${digest} ${image}`;
});
for (const [i, copy] of (await Promise.allSettled(copies)).entries()) {
  if (copy.status === 'fulfilled') console.log(copy.value);
  else {
    console.error(`${images[i]}: ${copy.reason.message}`);
    process.exitCode = copy.reason.exitCode ?? 1;
  }
}
await client.close();
