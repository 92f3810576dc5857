import type { Outcome, Results, Task } from '../src/pool/messages.js';

/**
 * The Piscina entry. CommonJS, because Piscina asks for it by `require`: of an ES module, Node 20 would then instantiate all
 * imports in one native call, and aborts the process (`IsGraphAsync`) when the thread is ended in the middle of that.
 */
const main = import('./main.js');

/** Runs one task; what it throws becomes data. */
async function runTask(task: Task): Promise<Outcome<Results[Task['task']]>> {
  return (await main).runTask(task);
}

export = runTask;
