// An OpenID provider: whoever gives any name and any password is NAME@provider.example.

import http from "node:http";
import Provider from "oidc-provider";

/** Serves `issuer` on a socket that listens already. */
export async function serve({ issuer, socket, client_id, client_secret }) {
  const provider = new Provider(issuer, {
    clients: [{
      client_id,
      client_secret,
      // Such a client may come back to any port of this machine (RFC 8252, 7.3).
      application_type: "native",
      redirect_uris: ["http://127.0.0.1/auth/v1/callback"],
    }],
    claims: { email: ["email", "email_verified"], profile: ["name"] },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@provider.example`, email_verified: true, name: id }),
    }),
  });
  const server = http.createServer(provider.callback());
  await new Promise((resolve, reject) => server.on("error", reject).listen({ fd: socket }, resolve));
  return server;
}
