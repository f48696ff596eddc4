// Private channels: what policies allow and what they do not; by hand (raw.mjs) and by the unmodified supabase-js.
import { createClient } from "@supabase/supabase-js";
import assert from "node:assert/strict";
import WebSocket from "ws";
import { Raw, run, sign, sql } from "./raw.mjs";

const { URL: url, KEY: key } = process.env;
const users = Object.fromEntries(["ada", "bob", "eve", "dan"].map((name, at) => [name, `00000000-0000-4000-8000-00000000000${at}`]));
const token = (user) => sign({ sub: users[user] });
const refused = (name) => ["error", `Unauthorized: You do not have permissions to read from this Channel topic: ${name}`];
const rights = async (user, topic, ...may) => {
  await sql(`insert into rooms select '${users[user]}', '${topic}', unnest(array['${may.join("','")}'])`);
};
const all = ["hear broadcast", "hear presence", "say broadcast", "say presence"];
const post = (path, as, body) =>
  fetch(`${url}/realtime/v1/api/broadcast${path}`, {
    method: "POST",
    headers: { apikey: key, authorization: `Bearer ${as}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });

await run({
  async "nobody may join where no policy lets them"() {
    const raw = await Raw.open();
    assert.deepEqual(await raw.join("closed"), refused("closed"));
    assert.deepEqual(await raw.join("closed", {}, token("ada")), refused("closed"));
    assert.deepEqual(await raw.join("closed", { private: false }), ["ok"]);
    raw.close();
  },

  async "who may read and not write hears and is not heard"() {
    await rights("ada", "talk", ...all);
    await rights("bob", "talk", "hear broadcast", "hear presence");
    const [ada, bob] = [await Raw.open(), await Raw.open()];
    assert.deepEqual(await ada.join("talk", { presence: { enabled: true } }, token("ada")), ["ok"]);
    assert.deepEqual(await bob.join("talk", { broadcast: { ack: true }, presence: { enabled: true } }, token("bob")), ["ok"]);
    ada.broadcast("talk", "hello", { n: 1 });
    assert.deepEqual((await bob.hears("hello")).payload, { n: 1 });
    const ref = bob.broadcast("talk", "unheard");
    assert.deepEqual(await bob.reply(bob.send("talk", "realtime:talk", "presence", { type: "presence", event: "track", payload: {} })), { status: "error", response: {} });
    // It is not acknowledged either.
    assert.ok(!(await bob.now()).some(([, to]) => to === ref));
    ada.broadcast("talk", "last");
    await bob.hears("last");
    assert.ok(!(await ada.now()).some(([, , , , said]) => said.event === "unheard"));
    assert.deepEqual(await ada.reply(ada.send("talk", "realtime:talk", "presence", { type: "presence", event: "track", payload: { a: 1 } })), { status: "ok", response: {} });
    await bob.until("a presence", ({ all }) => all.find(([, , , event]) => event === "presence_diff"));
    ada.close();
    bob.close();
  },

  async "who may only write does not join"() {
    await rights("ada", "write", "say broadcast", "say presence");
    const raw = await Raw.open();
    assert.deepEqual(await raw.join("write", {}, token("ada")), refused("write"));
    raw.close();
  },

  async "who may hear one kind hears that alone"() {
    await rights("ada", "kinds", ...all);
    await rights("bob", "kinds", "hear presence");
    await rights("eve", "kinds", "hear broadcast");
    const [ada, bob, eve] = [await Raw.open(), await Raw.open(), await Raw.open()];
    assert.deepEqual(await ada.join("kinds", {}, token("ada")), ["ok"]);
    // Without presence there is nothing for bob.
    assert.deepEqual(await bob.join("kinds", {}, token("bob")), refused("kinds"));
    assert.deepEqual(await bob.join("kinds", { presence: { enabled: true } }, token("bob")), ["ok"]);
    assert.deepEqual(await eve.join("kinds", { presence: { enabled: true } }, token("eve")), ["ok"]);
    ada.broadcast("kinds", "one");
    await eve.hears("one");
    await ada.reply(ada.send("kinds", "realtime:kinds", "presence", { type: "presence", event: "track", payload: {} }));
    await bob.until("a presence", ({ all }) => all.find(([, , , event]) => event === "presence_diff"));
    ada.broadcast("kinds", "two");
    await eve.hears("two");
    assert.ok(!(await eve.now()).some(([, , , event]) => event.startsWith("presence")));
    assert.ok(!(await bob.now()).some(([, , , event]) => event === "broadcast"));
    for (const raw of [ada, bob, eve]) raw.close();
  },

  async "rights are for a topic"() {
    await rights("ada", "mine", ...all);
    const raw = await Raw.open();
    assert.deepEqual(await raw.join("mine", {}, token("ada")), ["ok"]);
    assert.deepEqual(await raw.join("mine2", {}, token("ada")), refused("mine2"));
    assert.deepEqual(await raw.join("mine", {}, token("bob")), refused("mine"));
    raw.close();
  },

  async "a public and a private channel of one name are two"() {
    await rights("ada", "both", ...all);
    const [inside, outside] = [await Raw.open(), await Raw.open()];
    assert.deepEqual(await inside.join("both", {}, token("ada")), ["ok"]);
    assert.deepEqual(await outside.join("both", { private: false }), ["ok"]);
    const [third, fourth] = [await Raw.open(), await Raw.open()];
    assert.deepEqual(await third.join("both", {}, token("ada")), ["ok"]);
    assert.deepEqual(await fourth.join("both", { private: false }), ["ok"]);
    inside.broadcast("both", "private");
    outside.broadcast("both", "public");
    await third.hears("private");
    await fourth.hears("public");
    await Promise.all([third.now(), fourth.now()]);
    assert.deepEqual([third.has("public"), fourth.has("private")], [false, false]);
    for (const raw of [inside, outside, third, fourth]) raw.close();
  },

  async "a policy that fails lets nobody in"() {
    const raw = await Raw.open();
    assert.deepEqual(await raw.join("raises", {}, token("ada")), refused("raises"));
    // Another role than those of the API.
    assert.deepEqual(await raw.join("mine", {}, sign({ role: "nobody_at_all" })), refused("mine"));
    raw.close();
  },

  async "a policy that is changed is in effect at once"() {
    const raw = await Raw.open();
    assert.deepEqual(await raw.join("changing", {}, token("ada")), refused("changing"));
    await sql("create policy changing on realtime.messages for select to authenticated using (realtime.topic() = 'changing')");
    const begun = Date.now();
    while ((await raw.join("changing", {}, token("ada")))[0] !== "ok") assert.ok(Date.now() - begun < 5_000);
    await sql("drop policy changing on realtime.messages");
    const again = Date.now();
    while ((await raw.join("changing", {}, token("ada")))[0] === "ok") assert.ok(Date.now() - again < 5_000);
    raw.close();
  },

  async "another token brings other rights"() {
    await rights("ada", "renew", ...all);
    await rights("bob", "renew", "hear broadcast", "hear presence");
    await rights("eve", "renew", "hear broadcast");
    const [other, raw] = [await Raw.open(), await Raw.open()];
    assert.deepEqual(await other.join("renew", {}, token("ada")), ["ok"]);
    assert.deepEqual(await raw.join("renew", { broadcast: { ack: true } , presence: { enabled: true } }, token("eve")), ["ok"]);
    const renew = (user) => raw.send("renew", "realtime:renew", "access_token", { access_token: token(user) });
    const before = raw.broadcast("renew", "before");
    // Rights that are won: first who is present is told, then one is heard.
    renew("ada");
    await raw.until("who is present", ({ all }) => all.find(([, , , event]) => event === "presence_state"));
    assert.deepEqual(await raw.reply(raw.broadcast("renew", "after")), { status: "ok", response: {} });
    await other.hears("after");
    assert.ok(!other.has("before") && !raw.all.some(([, to]) => to === before));
    // The right to write is lost without a word.
    renew("bob");
    const lost = raw.broadcast("renew", "lost");
    assert.ok(!(await raw.now()).some(([, to]) => to === lost));
    // One to read is not.
    renew("eve");
    assert.equal(await raw.shut("renew"), "You no longer have permission to read from this Channel topic: renew");
    assert.deepEqual(await raw.join("renew", {}, token("ada")), ["ok"]);
    renew("dan");
    await raw.until("a second end", ({ all }) => all.filter(([, , , event]) => event === "phx_close").length === 2);
    assert.equal(raw.all.findLast(([, , , event]) => event === "system")[4].message, "You do not have permissions to read from this Channel topic: renew");
    for (const one of [other, raw]) one.close();
  },

  async "a token that expires ends its channels"() {
    const raw = await Raw.open();
    const short = sign({ exp: Math.floor(Date.now() / 1000) + 2 });
    assert.deepEqual(await raw.join("expires", { private: false }, short), ["ok"]);
    assert.match(await raw.shut("expires"), /^Token has expired \d+ seconds ago$/);
    assert.match((await raw.join("expires", { private: false }, short))[1], /^InvalidJWTToken: Token has expired \d+ seconds ago$/);
    raw.close();
  },

  async "many who ask the same ask once"() {
    await sql("select setval('asked', 1)");
    const raws = await Promise.all(Array.from({ length: 50 }, () => Raw.open()));
    const joined = await Promise.all(raws.map((raw) => raw.join("counted", {}, token("ada"))));
    assert.ok(joined.every(([status]) => status === "ok"));
    const [{ last_value }] = await sql("select last_value from asked");
    // Two rows are looked at for each question, and an answer holds for a second.
    assert.ok(last_value <= 1 + 2 * 10, `${last_value} times`);
    for (const raw of raws) raw.close();
  },

  async "broadcasts by HTTP need the right to write"() {
    await rights("ada", "post", ...all);
    await rights("bob", "post", "hear broadcast");
    const raw = await Raw.open();
    assert.deepEqual(await raw.join("post", {}, token("bob")), ["ok"]);
    const denied = await post("/post/events/denied?private=true", token("bob"), {});
    assert.deepEqual([denied.status, await denied.json()], [403, { message: "Unauthorized" }]);
    const broken = await post("/raises/events/denied?private=true", token("bob"), {});
    assert.deepEqual([broken.status, await broken.json()], [422, { message: "RLS policy error" }]);
    const message = (event) => ({ topic: "post", event, payload: {}, private: true });
    assert.equal((await post("", token("bob"), { messages: [message("silently")] })).status, 202);
    assert.equal((await post("/post/events/public", token("ada"), {})).status, 202);
    assert.equal((await post("", token("ada"), { messages: [message("many"), { ...message("public"), private: false }] })).status, 202);
    assert.equal((await post("/post/events/single?private=true", token("ada"), { n: 1 })).status, 202);
    assert.deepEqual((await raw.hears("single")).payload, { n: 1 });
    await raw.now();
    assert.deepEqual(["denied", "silently", "public", "many"].map((event) => raw.has(event)), [false, false, false, true]);
    raw.close();
  },

  async "who joins hears earlier broadcasts if they ask"() {
    await rights("ada", "replay", ...all);
    await rights("bob", "replay", "hear presence");
    for (const n of [1, 2, 3]) await sql(`select realtime.send('{"n": ${n}}', 'e', 'replay')`);
    await sql(`select realtime.send_binary('\\x00ff', 'bytes', 'replay')`);
    await sql(`select realtime.send('{"n": 9}', 'e', 'replay', false)`);
    const raw = await Raw.open();
    const replay = (since, limit) => ({ broadcast: { replay: { since, limit } }, presence: { enabled: true } });
    assert.deepEqual(await raw.join("replay", replay(Date.now() - 60_000, 3), token("ada")), ["ok"]);
    await raw.until("who is present", ({ all }) => all.some(([, , , event]) => event === "presence_state"));
    const [reply, ...told] = raw.all.map(([, , , event, said]) => (event === "broadcast" ? [said.event, said.payload, said.meta.replayed] : event));
    assert.deepEqual(told.map((one) => (Array.isArray(one) ? [one[0], one[1].n ?? one[1], one[2]] : one)), [["e", 2, true], ["e", 3, true], ["bytes", [0, 255], true], "presence_state"]);
    assert.equal(reply, "phx_reply");
    const refusals = [
      [{ ...replay(0), private: false }, "ada", "UnableToReplayMessages: Replay is not allowed for public channels"],
      [{ broadcast: { replay: {} } }, "ada", "UnableToReplayMessages: Replay params are not valid"],
      [replay(0), "bob", refused("replay")[1]],
    ];
    for (const [config, user, why] of refusals) assert.deepEqual(await raw.join("replay", config, token(user)), ["error", why]);
    raw.close();
  },

  async "policies are told of the connection"() {
    const raw = await Raw.open(key, { "x-room": "told" });
    assert.deepEqual(await raw.join("told", {}, token("ada")), ["ok"]);
    raw.close();
    const other = await Raw.open();
    assert.deepEqual(await other.join("told", {}, token("ada")), refused("told"));
    other.close();
  },

  async "while the policies are asked a client is told of other things, and asks nothing else"() {
    const [raw, other] = [await Raw.open(), await Raw.open()];
    for (const one of [raw, other]) assert.deepEqual(await one.join("busy", { private: false }), ["ok"]);
    const join = raw.send("slow", "realtime:slow", "phx_join", { config: { private: true }, access_token: token("ada") });
    const after = raw.send(null, "phoenix", "heartbeat", {});
    other.broadcast("busy", "meanwhile");
    await raw.hears("meanwhile");
    assert.ok(!raw.all.some(([, to]) => to === join || to === after));
    assert.equal((await raw.reply(join)).response.reason, "QueryCanceled: Query was cancelled, please try again");
    await raw.reply(after);
    assert.ok(raw.all.findIndex(([, to]) => to === join) < raw.all.findIndex(([, to]) => to === after));
    for (const one of [raw, other]) one.close();
  },

  async "by supabase-js"() {
    await rights("ada", "js", ...all);
    await rights("bob", "js", "hear broadcast", "hear presence");
    const connect = (user) => createClient(url, key, { realtime: { transport: WebSocket }, accessToken: async () => token(user) });
    const subscribed = (channel) => new Promise((done) => channel.subscribe((status, error) => done([status, error?.message])));
    const config = { private: true, broadcast: { ack: true }, presence: { key: "ada" } };
    const [ada, bob, dan] = ["ada", "bob", "dan"].map(connect);
    for (const client of [ada, bob, dan]) await client.realtime.setAuth();
    const [one, two] = [ada.channel("js", { config }), bob.channel("js", { config: { private: true } })];
    const told = (type, filter) => new Promise((done) => two.on(type, filter, done));
    const [heard, posted, came] = [told("broadcast", { event: "hello" }), told("broadcast", { event: "posted" }), told("presence", { event: "join" })];
    assert.deepEqual(await subscribed(one), ["SUBSCRIBED", undefined]);
    assert.deepEqual(await subscribed(two), ["SUBSCRIBED", undefined]);
    const [status, why] = await subscribed(dan.channel("js", { config: { private: true } }));
    assert.equal(status, "CHANNEL_ERROR");
    assert.match(why, /Unauthorized: You do not have permissions to read from this Channel topic: js/);
    assert.equal(await one.send({ type: "broadcast", event: "hello", payload: { n: 1 } }), "ok");
    assert.deepEqual((await heard).payload, { n: 1 });
    assert.equal(await one.track({ mood: "good" }), "ok");
    assert.equal((await came).key, "ada");
    await one.httpSend("posted", { n: 2 });
    assert.deepEqual((await posted).payload, { n: 2 });
    await assert.rejects(two.httpSend("posted", {}), /Unauthorized/);
    for (const client of [ada, bob, dan]) await client.removeAllChannels();
  },
});
