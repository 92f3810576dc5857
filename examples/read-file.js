// Prints one file of an image, and fetches no more than it needs: node read-file.js IMAGE PATH STORE
import { Client } from 'zpull';

const [image = 'alpine', path = 'etc/os-release', store = './store'] = process.argv.slice(2);
const client = new Client({ store });
try {
  process.stdout.write(await client.readFile(image, path));
} finally {
  await client.close();
}
