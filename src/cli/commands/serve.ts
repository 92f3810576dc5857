import { PullError } from '../../api/errors.js';
import { fileText, MAX_CONFIGURATION_FILE_BYTES, readFileOrPipe } from '../../files/read-input.js';
import { type FaultRule, parseFaults } from '../../sandbox/faults.js';
import { type SandboxRegistry, startRegistry } from '../../sandbox/registry-server.js';
import { UsageError } from '../failure.js';
import { jsonLine, printable } from '../format-text.js';
import type { OptionValues } from '../options.js';

/**
 * `zpull serve oci:DIR`: prints its address once it listens; ends on SIGINT or SIGTERM with their
 * exit codes.
 */
export async function runServe(words: readonly string[], options: OptionValues): Promise<number> {
  const layout = layoutPath(words[0] ?? '');
  const { port, host, latency, rate, 'rate-per-connection': ratePerConnection, faults } = options;
  const registry = await startRegistry({
    layout,
    ...(port !== undefined && { port }),
    ...(host !== undefined && { host }),
    ...(latency !== undefined && { latencyMs: latency }),
    ...(rate !== undefined && { rateBytes: rate }),
    ...(ratePerConnection !== undefined && { ratePerConnectionBytes: ratePerConnection }),
    ...(faults !== undefined && { faults: await readFaults(faults) }),
    ...(options.debug === true && { onRequest: printRequest }),
  });
  const { host: address, origin } = registry;
  process.stdout.write(options.json === true ? jsonLine({ address, origin }) : `${address}\n`);
  return untilStopped(registry);
}

async function untilStopped(registry: SandboxRegistry): Promise<number> {
  const exitCode = await new Promise<number>((resolve) => {
    process.once('SIGINT', () => resolve(130));
    process.once('SIGTERM', () => resolve(143));
  });
  await registry.close();
  return exitCode;
}

function layoutPath(text: string): string {
  const [, path] = /^oci:(.+)$/s.exec(text) ?? [];
  if (path === undefined) {
    throw new UsageError(`"${text}" is no OCI layout`, 'write oci:DIR, where DIR/index.json is');
  }
  return path;
}

async function readFaults(path: string): Promise<FaultRule[]> {
  const read = await readFileOrPipe(path, MAX_CONFIGURATION_FILE_BYTES);
  if (!('bytes' in read)) throw malformedFaults(`the file of fault rules ${path} ${read.problem}`);
  let json: unknown;
  try {
    json = JSON.parse(fileText(read.bytes));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw malformedFaults(`cannot read the fault rules of ${path}: ${reason}`, cause);
  }
  return parseFaults(json);
}

function malformedFaults(message: string, cause?: unknown): PullError {
  return new PullError('option-malformed', message, {
    hint: 'write a JSON list like [{"match": {"nth": 3}, "then": {"status": 503}}]',
    cause,
  });
}

function printRequest(request: SandboxRegistry['requests'][number]): void {
  const { method, path, start, end, status, sentBytes, connection } = request;
  const range = start === null ? '' : ` [${start}, ${end})`;
  const line = `${method} ${path}${range}: ${status}, ${sentBytes} bytes, connection ${connection}`;
  process.stderr.write(`${printable(line)}\n`);
}
