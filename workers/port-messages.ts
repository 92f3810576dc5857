import type { MessagePort } from 'node:worker_threads';

/** Yields the messages of a port, in order, until `null`. */
export async function* portMessages<Message>(port: MessagePort): AsyncGenerator<Message> {
  const waiting: Array<Message | null> = [];
  let wake = () => {};
  port.on('message', (message: Message | null) => {
    waiting.push(message);
    wake();
  });
  for (;;) {
    const message = waiting.shift();
    if (message === null) return;
    if (message !== undefined) yield message;
    else {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }
}
