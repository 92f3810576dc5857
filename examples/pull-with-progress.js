// Pulls an image and shows its progress: node pull-with-progress.js IMAGE STORE
import { Client } from 'zpull';

const [image = 'alpine', store = './store'] = process.argv.slice(2);
const client = new Client({ store });
try {
  for await (const event of client.pullEvents(image)) {
    if (event.event === 'progress') console.error(`${event.receivedBytes} of ${event.totalBytes} bytes`);
    if (event.event === 'warning') console.error(event.message);
    if (event.event === 'result') console.log(event.result.digest);
  }
} catch (error) {
  console.error(`${error.message}\nhint: ${error.hint}`);
  process.exitCode = error.exitCode ?? 1;
} finally {
  await client.close();
}
