// The clients `openid-client` and `oauth4webapi` for Node.js: tokens of a user by code, refreshed and revoked.
// The argument is JSON: the `library`, the `issuer`, the `client`, its `secret`, and its registered `callback`.
// Prints the token responses and the user of the id token, or the error of a refused redirect.
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';

const { library, issuer, client, secret, callback } = JSON.parse(process.argv[2]);
const redirectOf = async (url) => new URL((await fetch(url, { redirect: 'manual' })).headers.get('location'));
const verifier = oauth.generateRandomCodeVerifier();
const state = oauth.generateRandomState();
const nonce = oauth.generateRandomNonce();
const asked = {
  redirect_uri: callback,
  scope: 'openid read',
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
  state,
  nonce,
};

async function withOpenidClient() {
  const options = { execute: [openid.allowInsecureRequests] };
  const found = await openid.discovery(new URL(issuer), client, secret, openid.ClientSecretBasic(secret), options);
  const answer = await redirectOf(openid.buildAuthorizationUrl(found, asked));
  const checks = { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce };
  const first = await openid.authorizationCodeGrant(found, answer, checks);
  const second = await openid.refreshTokenGrant(found, first.refresh_token);
  await openid.tokenRevocation(found, second.refresh_token);
  return { tokens: [first, second], subject: first.claims().sub };
}

async function withOAuth4WebAPI() {
  const insecure = { [oauth.allowInsecureRequests]: true };
  const url = new URL(issuer);
  const server = await oauth.processDiscoveryResponse(url, await oauth.discoveryRequest(url, insecure));
  const [known, proof] = [{ client_id: client }, oauth.ClientSecretBasic(secret)];
  const query = new URLSearchParams({ response_type: 'code', client_id: client, ...asked });
  const answer = await redirectOf(`${server.authorization_endpoint}?${query}`);
  const code = oauth.validateAuthResponse(server, known, answer, state);
  const response = await oauth.authorizationCodeGrantRequest(server, known, proof, code, callback, verifier, insecure);
  const first = await oauth.processAuthorizationCodeResponse(server, known, response, {
    expectedNonce: nonce,
    requireIdToken: true,
  });
  const refreshed = await oauth.refreshTokenGrantRequest(server, known, proof, first.refresh_token, insecure);
  const second = await oauth.processRefreshTokenResponse(server, known, refreshed);
  const revoked = await oauth.revocationRequest(server, known, proof, second.refresh_token, insecure);
  await oauth.processRevocationResponse(revoked);
  return { tokens: [first, second], subject: oauth.getValidatedIdTokenClaims(first).sub };
}

const connect = { 'openid-client': withOpenidClient, oauth4webapi: withOAuth4WebAPI }[library];
const result = await connect().catch((error) => ({ refused: `${error.message} ${error.cause?.message ?? ''}` }));
console.log(JSON.stringify(result));
