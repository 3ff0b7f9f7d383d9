// The token server `oidc-provider` for Node.js, on a free port of this machine. Prints its issuer.
// The argument is JSON: `clients` with their metadata, `resources` with the scopes of each, and with `dpop` a server
// that wants a nonce in each DPoP proof, with an API below /api whose tokens `oauth4webapi` validates. With `tls` (the
// server's `cert` and `key`, and the `ca` of client certificates) it requests certificates of clients (RFC 8705).
import { createServer } from 'node:http';
import { createServer as createTLSServer } from 'node:https';

import * as oauth from 'oauth4webapi';
import Provider, { errors } from 'oidc-provider';

const { clients, resources, dpop = false, tls } = JSON.parse(process.argv[2]);
// Whether a certificate is known is the provider's decision: a self-signed one is.
const server = tls ? createTLSServer({ ...tls, requestCert: true, rejectUnauthorized: false }) : createServer();

server.listen(0, '127.0.0.1', () => {
  const issuer = `${tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: clients.map((client) => ({
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      ...client,
    })),
    scopes: [...new Set(Object.values(resources).flatMap((scope) => scope.split(' ')))],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: dpop, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => dpop },
      mTLS: {
        enabled: Boolean(tls),
        certificateBoundAccessTokens: true,
        tlsClientAuth: true,
        selfSignedTlsClientAuth: true,
        getCertificate: ({ req }) => req.socket.getPeerX509Certificate(),
        certificateAuthorized: ({ req }) => req.socket.authorized,
        certificateSubjectMatches: ({ req }, property, expected) =>
          property === 'tls_client_auth_subject_dn' && req.socket.getPeerX509Certificate().subject === expected,
      },
      introspection: { enabled: true, allowedPolicy: () => true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: (_, resource) => {
          if (!(resource in resources)) throw new errors.InvalidTarget('this resource is unknown');
          const format = dpop ? 'jwt' : 'opaque';
          return { scope: resources[resource], accessTokenFormat: format, accessTokenTTL: 1200 };
        },
      },
    },
    clientAuthMethods: [
      'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt',
      ...(tls ? ['tls_client_auth', 'self_signed_tls_client_auth'] : []),
    ],
    enabledJWA: { clientAuthSigningAlgValues: ['HS256', 'HS512', 'ES256', 'RS256', 'PS256'] },
  });
  const tokens = provider.callback();
  server.on('request', (request, response) => {
    if (request.url.startsWith('/api/')) call(issuer, request, response);
    else tokens(request, response);
  });
  console.log(issuer);
});

let uses = 0;

// An API that accepts each nonce for three requests.
async function call(issuer, request, response) {
  const answer = (status, challenge = '', body = {}) => {
    const nonce = `nonce-${Math.floor((uses += 1) / 3)}`;
    response.writeHead(status, { 'content-type': 'application/json', 'dpop-nonce': nonce, 'www-authenticate': challenge });
    response.end(JSON.stringify(body));
  };
  const proof = request.headers.dpop;
  if (!proof) return answer(401, 'DPoP algs="ES256"');
  const { nonce } = JSON.parse(Buffer.from(proof.split('.')[1], 'base64url'));
  if (nonce !== `nonce-${Math.floor(uses / 3)}`) return answer(401, 'DPoP error="use_dpop_nonce"');
  const server = { issuer, jwks_uri: `${issuer}/jwks` };
  const received = new Request(`${issuer}${request.url}`, { method: request.method, headers: request.headers });
  try {
    const options = { requireDPoP: true, [oauth.allowInsecureRequests]: true };
    const claims = await oauth.validateJwtAccessToken(server, received, Object.keys(resources)[0], options);
    return answer(200, '', { claims, method: request.method, url: request.url });
  } catch (error) {
    return answer(401, 'DPoP error="invalid_token"', { error: `${error}`, cause: `${error.cause}` });
  }
}
