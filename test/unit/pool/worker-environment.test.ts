import assert from 'node:assert/strict';
import { test } from 'node:test';
import { workerEnvironment } from '../../../src/pool/worker-pool.js';

test('threads see the environment without the variable that holds credentials', () => {
  const environment = { PATH: '/bin', DOCKER_AUTH_CONFIG: '{"auths":{}}' };
  assert.deepEqual(workerEnvironment(environment), { PATH: '/bin' });
});
