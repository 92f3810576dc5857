// Serves file systems of images as tars: node http-service.js STORE, then GET /tar?image=IMAGE
import { once } from 'node:events';
import { createServer } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { Client, PullError } from 'zpull';

const client = new Client({ store: process.argv[2] ?? './store' });
const server = createServer(async (request, response) => {
  const image = new URL(request.url, 'http://localhost').searchParams.get('image') ?? '';
  const leaving = new AbortController();
  response.once('close', () => leaving.abort());
  try {
    const { digest } = await client.resolve(image, { signal: leaving.signal });
    response.setHeader('etag', `"${digest}"`);
    response.setHeader('content-type', 'application/x-tar');
    // A tar that fails its proof breaks off, so that no client takes it for complete.
    await pipeline(client.tar(image, { signal: leaving.signal }), response);
  } catch (error) {
    if (response.headersSent || response.destroyed) return response.destroy();
    const isMissing = error instanceof PullError && error.exitCode === 3;
    response.writeHead(isMissing ? 404 : 502).end(`${error.message}\n`);
  }
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
console.log(`http://127.0.0.1:${server.address().port}`);
process.once('SIGTERM', async () => {
  server.close();
  await client.close();
});
