// Channels end with the session that they were joined with, by the unmodified supabase-js and by hand.
import { createClient } from "@supabase/supabase-js";
import assert from "node:assert/strict";
import WebSocket from "ws";
import { Raw, run, sql } from "./raw.mjs";

const { URL: url, KEY: key, SECRET: secret } = process.env;
const password = "correct horse battery staple";
const signedIn = async (email) => {
  const client = createClient(url, key, { realtime: { transport: WebSocket }, auth: { persistSession: false, autoRefreshToken: false } });
  const { data, error } = await client.auth.signInWithPassword({ email, password });
  assert.equal(error, null);
  return { client, user: data.user, token: data.session.access_token };
};
const service = createClient(url, secret, { realtime: { transport: WebSocket }, auth: { persistSession: false, autoRefreshToken: false } });
const created = async (email) => {
  const { data, error } = await service.auth.admin.createUser({ email, password, email_confirm: true });
  assert.equal(error, null);
  return data.user;
};
const over = "Session from session_id claim in JWT does not exist";
const subscribed = (channel) => new Promise((done, fail) => channel.subscribe((status, error) => (status === "SUBSCRIBED" ? done(channel) : fail(error ?? new Error(status)))));

await run({
  async "who signs out hears no more, on any device"() {
    const user = await created("ada@example.com");
    await sql(`insert into rooms values ('${user.id}', 'room', 'hear broadcast')`);
    const [here, there] = [await signedIn("ada@example.com"), await signedIn("ada@example.com")];
    await here.client.realtime.setAuth(here.token);
    const room = here.client.channel("room", { config: { private: true } });
    await subscribed(room);
    const closed = new Promise((done, fail) => {
      setTimeout(() => fail(new Error("it is not closed")), 20_000).unref();
      room.on("system", {}, ({ status, message }) => status === "error" && done(message));
    });
    const raw = await Raw.open();
    assert.deepEqual(await raw.join("public", { private: false }, here.token), ["ok"]);
    assert.deepEqual(await raw.join("other", { private: false }, there.token), ["ok"]);
    // A key has no session, and a token of somebody whom nobody knows here may have one elsewhere.
    assert.deepEqual(await raw.join("key", { private: false }), ["ok"]);
    await there.client.auth.signOut({ scope: "others" });
    assert.equal(await closed, over);
    assert.equal(await raw.shut("public"), over);
    await there.client.auth.signOut({ scope: "local" });
    assert.equal(await raw.shut("other"), over);
    assert.ok(!raw.all.some(([join, , , event]) => join === "key" && event === "phx_close"));
    raw.close();
    await here.client.removeAllChannels();
  },

  async "who is banned or deleted neither"() {
    const [bob, eve] = [await created("bob@example.com"), await created("eve@example.com")];
    const raw = await Raw.open();
    for (const name of ["bob", "eve"]) {
      const { token } = await signedIn(`${name}@example.com`);
      assert.deepEqual(await raw.join(name, { private: false }, token), ["ok"]);
    }
    assert.equal((await service.auth.admin.updateUserById(bob.id, { ban_duration: "1h" })).error, null);
    assert.equal(await raw.shut("bob"), over);
    assert.equal((await service.auth.admin.deleteUser(eve.id)).error, null);
    assert.equal(await raw.shut("eve"), over);
    raw.close();
  },
});
