import { once } from 'node:events';
import { type Agent, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http';
import { request as requestByTls } from 'node:https';
import { certificates } from './certificate.js';

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** Whether the body came to its proper end. */
  readonly complete: boolean;
}

export interface HttpOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly agent?: Agent;
}

/** One request by plain node:http or node:https, which trusts the tests' authority alone, follows nothing and repairs nothing. Rejects without an answer. */
export async function ask(url: string, options: HttpOptions = {}): Promise<HttpAnswer> {
  const response = await open(url, options);
  const chunks: Buffer[] = [];
  response.on('data', (chunk: Buffer) => chunks.push(chunk));
  response.on('error', () => undefined);
  await new Promise<void>((resolve) => response.once('close', resolve));
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: Buffer.concat(chunks),
    complete: response.complete,
  };
}

/** The answer of one request with its body still to be read. */
export async function open(url: string, options: HttpOptions = {}): Promise<IncomingMessage> {
  const { method = 'GET', headers = {}, agent = false } = options;
  const sent = url.startsWith('https:')
    ? requestByTls(url, { method, headers, agent: false, ca: certificates().authority })
    : request(url, { method, headers, agent });
  sent.end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  return response;
}
