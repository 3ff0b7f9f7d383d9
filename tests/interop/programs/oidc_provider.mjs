// The token server `oidc-provider` for Node.js, on a free port of this machine. Prints its issuer.
// The argument is JSON: `clients` with their metadata, and `resources` with the scopes of each.
import { createServer } from 'node:http';

import Provider, { errors } from 'oidc-provider';

const { clients, resources } = JSON.parse(process.argv[2]);
const server = createServer();

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
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
      introspection: { enabled: true, allowedPolicy: () => true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: (_, resource) => {
          if (!(resource in resources)) throw new errors.InvalidTarget('this resource is unknown');
          return { scope: resources[resource], accessTokenFormat: 'opaque', accessTokenTTL: 1200 };
        },
      },
    },
    enabledJWA: { clientAuthSigningAlgValues: ['HS256', 'HS512', 'ES256', 'RS256', 'PS256'] },
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
