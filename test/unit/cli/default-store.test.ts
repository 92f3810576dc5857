import assert from 'node:assert/strict';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { defaultStore } from '../../../src/cli/pull-options.js';

test('the store is where ZPULL_STORE says, else under XDG_DATA_HOME, else in the home directory', () => {
  assert.equal(defaultStore({ ZPULL_STORE: '/a', XDG_DATA_HOME: '/b' }), '/a');
  assert.equal(defaultStore({ ZPULL_STORE: '', XDG_DATA_HOME: '/b' }), join('/b', 'zpull'));
  assert.equal(defaultStore({}), join(homedir(), '.local', 'share', 'zpull'));
});

test('a relative ZPULL_STORE is one of the working directory, a relative XDG_DATA_HOME none at all', () => {
  assert.equal(defaultStore({ ZPULL_STORE: 'here' }), resolve('here'));
  assert.equal(defaultStore({ XDG_DATA_HOME: 'b' }), join(homedir(), '.local', 'share', 'zpull'));
});
