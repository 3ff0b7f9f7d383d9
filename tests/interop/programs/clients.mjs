// The clients `openid-client` and `oauth4webapi` for Node.js. Each gets tokens with the client credentials grant.
// The argument is JSON: the `issuer`, the `client`, its `secret`, and the `resources` for which the tokens are.
// Prints, for each library, the token responses by method of client authentication, and the error of a wrong secret.
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';

const { issuer, client, secret, resources } = JSON.parse(process.argv[2]);
const { privateKey } = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']);
const parameters = () => new URLSearchParams([['scope', 'crm.read'], ...resources.map((url) => ['resource', url])]);

async function withOpenidClient(authentication) {
  const configuration = await openid.discovery(new URL(issuer), client, undefined, authentication, {
    execute: [openid.allowInsecureRequests],
  });
  return openid.clientCredentialsGrant(configuration, parameters());
}

async function withOAuth4WebAPI(authentication) {
  const insecure = { [oauth.allowInsecureRequests]: true };
  const url = new URL(issuer);
  const discovered = await oauth.discoveryRequest(url, { ...insecure, algorithm: 'oauth2' });
  const server = await oauth.processDiscoveryResponse(url, discovered);
  const known = { client_id: client };
  const response = await oauth.clientCredentialsGrantRequest(server, known, authentication, parameters(), insecure);
  return oauth.processClientCredentialsResponse(server, known, response);
}

async function results(library, get) {
  const methods = {
    client_secret_basic: library.ClientSecretBasic(secret),
    client_secret_post: library.ClientSecretPost(secret),
    client_secret_jwt: library.ClientSecretJwt(secret),
    private_key_jwt: library.PrivateKeyJwt({ key: privateKey, kid: 'new' }),
  };
  const granted = {};
  for (const [method, authentication] of Object.entries(methods)) granted[method] = await get(authentication);
  const refused = await get(library.ClientSecretPost('wrong')).catch((error) => error.error);
  return { granted, refused };
}

console.log(
  JSON.stringify({
    'openid-client': await results(openid, withOpenidClient),
    oauth4webapi: await results(oauth, withOAuth4WebAPI),
  }),
);
