/**
 * A self-signed certificate for localhost and 127.0.0.1, valid for a century, and its key. It protects nothing:
 * `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=localhost
 * -addext subjectAltName=DNS:localhost,IP:127.0.0.1`
 */
export const SELF_SIGNED = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgVxcd+h3KTwuqZRaw
KZLTysqwHvGxuHbSqxCN1xeCC92hRANCAAQitHWs70i3XuAOAqlomWrHosaxBkRZ
u44EsH7A2YRn/WhQaGQfKtdxFlEH0grOiAZE1UyonFYUrGJWeS86lB/a
-----END PRIVATE KEY-----
`,
  cert: `-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUGJ4PYJWTEsy6B7zXQ2PH2/7jV0UwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTA3Mzg1NloYDzIxMjYxMDI4
MDczODU2WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQitHWs70i3XuAOAqlomWrHosaxBkRZu44EsH7A2YRn/WhQaGQfKtdx
FlEH0grOiAZE1UyonFYUrGJWeS86lB/ao28wbTAdBgNVHQ4EFgQUWfN+7hDxDy4f
o6fE6UmFxWNeqK8wHwYDVR0jBBgwFoAUWfN+7hDxDy4fo6fE6UmFxWNeqK8wDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRwAwRAIgVTwC1bY0Vx2Umor9WYRQ6CDr5WPZycLrQAN+UYRMRFgCIHTd
VB/8oPyEBnHIw27LHwdOc2s4mgB80cM9JhhKiaF7
-----END CERTIFICATE-----
`,
};
