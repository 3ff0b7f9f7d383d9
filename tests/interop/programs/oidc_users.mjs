// The server `oidc-provider` with users: any name logs in, refresh tokens rotate, and a second use revokes all of them.
// Prints its issuer. The argument is JSON: `clients` with their metadata, and with `dpop` a server that binds tokens to
// keys and wants a nonce in each proof.
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const { clients, dpop = false } = JSON.parse(process.argv[2]);
const server = createServer();

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: clients.map((client) => ({
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
      ...client,
    })),
    scopes: ['openid', 'offline_access', 'read', 'write'],
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      dPoP: { enabled: dpop, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => dpop },
      revocation: { enabled: true, allowedPolicy: () => true },
      introspection: { enabled: true, allowedPolicy: () => true },
    },
    rotateRefreshToken: true,
    ttl: { AccessToken: 3600, RefreshToken: 86400 },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
