import { createServer, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { listen } from './scripted-server.js';

interface Passed {
  /** `CONNECT host:port`, or a method and a whole URL. */
  readonly asked: string;
  /** The user and password that came with it. */
  readonly credentials: string | undefined;
}

interface ProxyServer {
  readonly host: string;
  readonly passed: readonly Passed[];
}

/**
 * A proxy on a free port of 127.0.0.1 that takes every host to be the server at `behind`; with `refuse`, it answers everything
 * with that status. It ends with the test.
 */
export async function startProxy(t: TestContext, behind: string, refuse?: number): Promise<ProxyServer> {
  const passed: Passed[] = [];
  const open = new Set<Socket>();
  const [hostname, port] = behind.split(':');
  const note = (asked: string, headers: Readonly<Record<string, unknown>>): void => {
    const [, encoded] = /^Basic (.*)$/.exec(String(headers['proxy-authorization'])) ?? [];
    passed.push({
      asked,
      credentials: encoded === undefined ? undefined : Buffer.from(encoded, 'base64').toString(),
    });
  };
  const server = createServer((message, response) => {
    note(`${message.method} ${message.url}`, message.headers);
    if (refuse !== undefined) {
      response.writeHead(refuse).end();
      return;
    }
    const { pathname, search } = new URL(message.url ?? '');
    const headers = { ...message.headers };
    const inner = request({ hostname, port, path: pathname + search, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 0, answer.headers);
      answer.pipe(response);
    });
    inner.on('error', () => response.destroy());
    inner.end();
  });
  server.on('connect', (message, outer: Socket) => {
    note(`CONNECT ${message.url}`, message.headers);
    outer.on('error', () => {});
    if (refuse !== undefined) {
      outer.end(`HTTP/1.1 ${refuse} No\r\n\r\n`);
      return;
    }
    const inner = connect({ host: hostname!, port: Number(port) }, () => {
      outer.write('HTTP/1.1 200 Connection established\r\nX-Proxy: test\r\n\r\n');
      outer.pipe(inner).pipe(outer);
    });
    inner.on('error', () => outer.destroy());
    inner.on('close', () => outer.destroy());
    outer.on('close', () => inner.destroy());
  });
  server.on('connection', (socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
  });
  t.after(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return { host: await listen(server), passed };
}
