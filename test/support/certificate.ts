import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setEnvironment } from './environment.js';
import { temporaryDirectory } from './temporary.js';

/**
 * A self-signed certificate for localhost, registry.test and 127.0.0.1, valid for a century, and its key. It protects nothing:
 * `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=localhost
 * -addext subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1`
 */
export const SELF_SIGNED = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgnXPB+O5a4IkUmIL5
66u2vv0nz5An6Wl/JzHKH7HQkpChRANCAAQKFF0qN39fD4QKbNnGYcq7gnZnqypn
8H0Sfp9CgA36cbdUK5EpJkoYdpiABwgYGRZu+wfbnxJLirvMvaPLoqzW
-----END PRIVATE KEY-----
`,
  cert: `-----BEGIN CERTIFICATE-----
MIIBqTCCAVCgAwIBAgIUe1h76QbZc5L1Q7VYYosoBlq42wIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNTE3NDQyMFoYDzIxMjYxMTAx
MTc0NDIwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQKFF0qN39fD4QKbNnGYcq7gnZnqypn8H0Sfp9CgA36cbdUK5EpJkoY
dpiABwgYGRZu+wfbnxJLirvMvaPLoqzWo34wfDAdBgNVHQ4EFgQUTrg8RAsR9YuJ
Vie4PEQiA/vAZ8owHwYDVR0jBBgwFoAUTrg8RAsR9YuJVie4PEQiA/vAZ8owDwYD
VR0TAQH/BAUwAwEB/zApBgNVHREEIjAggglsb2NhbGhvc3SCDXJlZ2lzdHJ5LnRl
c3SHBH8AAAEwCgYIKoZIzj0EAwIDRwAwRAIgCPv8HnLLTulk4sn9EdwdaoPieQUz
gr8nwRNBYQLfuF0CIE9skEejFVrkkyvmL18TestHSk6JAZW3QfKAXsxWseR3
-----END CERTIFICATE-----
`,
};

/** Makes this process trust the certificate until the test ends. */
export function trustTestCertificate(t: TestContext): void {
  const path = join(temporaryDirectory(t), 'ca.pem');
  writeFileSync(path, SELF_SIGNED.cert);
  setEnvironment(t, { SSL_CERT_FILE: path });
}
