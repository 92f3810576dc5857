import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  describeNetworkError,
  isNotTls,
  mayBeTls,
  proxyError,
  timeoutError,
} from '../../../src/registry/network-error.js';

function coded(code: string): Error {
  return Object.assign(new Error('GET /blob?sig=secret failed'), { code });
}

test('a description names the host and never repeats the message of the error', () => {
  for (const [code, words] of [
    ['ENOTFOUND', 'cannot find host h:1'],
    ['EAI_AGAIN', 'cannot look up host h:1: the name server does not answer'],
    ['ECONNREFUSED', 'h:1 refuses the connection'],
    ['ECONNRESET', 'h:1 broke off the connection'],
    ['UND_ERR_SOCKET', 'h:1 broke off the connection'],
    ['ZPULL_CONNECT_TIMEOUT', 'cannot connect to h:1 in time'],
    ['HPE_INVALID_CONSTANT', 'h:1 does not speak HTTP (HPE_INVALID_CONSTANT)'],
    ['EWHATEVER', 'the connection to h:1 failed (EWHATEVER)'],
    ['constructor', 'the connection to h:1 failed (constructor)'],
  ] as const) {
    assert.deepEqual([describeNetworkError(coded(code), 'h:1').message, code], [words, code]);
    assert.equal(describeNetworkError(coded(code), 'h:1').final, false);
  }
  assert.equal(describeNetworkError('odd', 'h:1').message, 'the connection to h:1 failed');
});

test('the timeouts are distinguished', () => {
  assert.equal(describeNetworkError(timeoutError('connect'), 'h').message, 'cannot connect to h in time');
  assert.equal(describeNetworkError(timeoutError('idle'), 'h').message, 'h sent nothing for too long');
});

test('a failure that a retry cannot change is final', () => {
  for (const code of [
    'DEPTH_ZERO_SELF_SIGNED_CERT',
    'SELF_SIGNED_CERT_IN_CHAIN',
    'CERT_HAS_EXPIRED',
    'ERR_TLS_CERT_ALTNAME_INVALID',
    'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    'EPROTO',
  ]) {
    assert.equal(describeNetworkError(coded(code), 'h').final, true, code);
  }
});

test('with several addresses the first failure is reported', () => {
  const error = new AggregateError([coded('ECONNREFUSED'), coded('ENETUNREACH')]);
  assert.equal(describeNetworkError(error, 'h').message, 'h refuses the connection');
});

test('a TLS peer and one without TLS are recognised', () => {
  assert.deepEqual(['HPE_X', 'ECONNRESET', 'ECONNREFUSED'].map(coded).map(mayBeTls), [true, true, false]);
  assert.deepEqual(['EPROTO', 'ECONNRESET'].map(coded).map(isNotTls), [true, false]);
});

test('each TLS failure has a hint that fits it', () => {
  const number = (code: string) =>
    Object.assign(new Error(`write EPROTO 80FC:error:${code}:SSL routines::`), { code: 'EPROTO' });
  for (const [error, message, hint] of [
    [coded('CERT_HAS_EXPIRED'), /has expired/, /renew it/],
    [coded('CERT_NOT_YET_VALID'), /not valid yet/, /clock/],
    [coded('ERR_TLS_CERT_ALTNAME_INVALID'), /is for another name/, /host in the name/],
    [coded('UNABLE_TO_VERIFY_LEAF_SIGNATURE'), /is not trusted/, /ca\.crt/],
    [coded('ERR_SSL_UNSUPPORTED_PROTOCOL'), /too old/, /TLS 1\.2/],
    [number('0A00042E'), /too old/, /TLS 1\.2/],
    [number('0A000410'), /client certificate/, /--cert-dir/],
    [number('0A00045C'), /requires a client certificate/, /--cert-dir/],
    [number('0A000418'), /does not accept the client certificate/, /NAME\.cert/],
    [number('0A000415'), /does not accept the client certificate/, /NAME\.cert/],
    [coded('ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN'), /does not accept the client cert/, /NAME\.cert/],
    [number('0A00010B'), /does not speak TLS/, /--plain-http/],
    [coded('ERR_SSL_WRONG_VERSION_NUMBER'), /does not speak TLS/, /--plain-http/],
  ] as const) {
    const fault = describeNetworkError(error, 'h');
    assert.match(fault.message, message);
    assert.match(fault.hint ?? '', hint);
    assert.equal(fault.final, true);
  }
});

test('a failure of a proxy has the same sign as that of a host', () => {
  const faultOf = (error: Error, status?: number) =>
    describeNetworkError(proxyError(error, 'p:3128', status), 'h');
  assert.equal(faultOf(new Error(), 502).sign, 'alive');
  assert.equal(faultOf(new Error(), 403).sign, undefined);
  assert.equal(faultOf(timeoutError('connect')).sign, 'silent');
  assert.equal(faultOf(coded('ECONNRESET')).sign, 'alive');
  assert.match(faultOf(coded('ECONNREFUSED')).hint ?? '', /HTTPS_PROXY/);
  assert.match(faultOf(timeoutError('answer')).hint ?? '', /--answer-timeout/);
  assert.match(faultOf(coded('CERT_HAS_EXPIRED')).hint ?? '', /renew it/);
});

test('headers that are too long are reported, and are final', () => {
  for (const code of ['HPE_HEADER_OVERFLOW', 'UND_ERR_HEADERS_OVERFLOW']) {
    const { message, final } = describeNetworkError(coded(code), 'h');
    assert.deepEqual([message, final], ['h answers with more than 64 KiB of headers', true]);
  }
});
