// Clients meet on channels by the unmodified supabase-js. Prints one line of JSON for each check; ends with an error where one fails.
import { createClient } from "@supabase/supabase-js";
import assert from "node:assert/strict";
import WebSocket from "ws";

const { URL: url, KEY: key, VSN: vsn } = process.env;
const clients = [];
const connect = () => {
  const client = createClient(url, key, { realtime: { transport: WebSocket, vsn }, auth: { persistSession: false, autoRefreshToken: false } });
  clients.push(client);
  return client;
};
// The next that a listener is told which is what one waits for.
const heard = () => {
  const all = [];
  let wake = () => {};
  const listen = (said) => {
    all.push(said);
    wake();
  };
  const until = async (is) => {
    const late = setTimeout(() => assert.fail(`not heard: ${is}; but ${JSON.stringify(all)}`), 20_000);
    while (!all.some(is)) await new Promise((done) => (wake = done));
    clearTimeout(late);
    return all.find(is);
  };
  return { all, listen, until };
};
const subscribed = (channel) =>
  new Promise((done, fail) =>
    channel.subscribe((status, error) => (status === "SUBSCRIBED" ? done(channel) : fail(error ?? new Error(status)))),
  );
const room = (name) => `${name}-${vsn}`;

const checks = {
  async "broadcasts reach the others and not oneself"() {
    const [a, b, own] = [heard(), heard(), heard()];
    const one = connect().channel(room("talk"), { config: { broadcast: { ack: true } } });
    const two = connect().channel(room("talk")).on("broadcast", { event: "*" }, b.listen);
    const elsewhere = connect().channel(room("other")).on("broadcast", { event: "*" }, a.listen);
    one.on("broadcast", { event: "*" }, own.listen);
    for (const channel of [one, two, elsewhere]) await subscribed(channel);
    assert.equal(await one.send({ type: "broadcast", event: "hello", payload: { text: "Grüße", n: [1, null] } }), "ok");
    const said = await b.until((said) => said.event === "hello");
    assert.deepEqual(said.payload, { text: "Grüße", n: [1, null] });
    assert.equal(await one.send({ type: "broadcast", event: "last", payload: {} }), "ok");
    await b.until((said) => said.event === "last");
    assert.deepEqual([a.all, own.all], [[], []]);
  },
  async "whoever wants to hears itself"() {
    const own = heard();
    const channel = connect().channel(room("echo"), { config: { broadcast: { self: true } } });
    channel.on("broadcast", { event: "x" }, own.listen);
    await subscribed(channel);
    await channel.send({ type: "broadcast", event: "x", payload: { n: 1 } });
    assert.deepEqual((await own.until(() => true)).payload, { n: 1 });
  },
  async "broadcasts come in their order"() {
    const b = heard();
    const one = await subscribed(connect().channel(room("order")));
    await subscribed(connect().channel(room("order")).on("broadcast", { event: "n" }, b.listen));
    for (let n = 0; n < 500; n++) one.send({ type: "broadcast", event: "n", payload: { n } });
    await b.until((said) => said.payload.n === 499);
    assert.deepEqual(b.all.map((said) => said.payload.n), [...Array(500).keys()]);
  },
  async "broadcasts by HTTP"() {
    const b = heard();
    await subscribed(connect().channel(room("post")).on("broadcast", { event: "*" }, b.listen));
    const sender = connect().channel(room("post"));
    await sender.httpSend("single", { a: 1 });
    assert.deepEqual((await b.until((said) => said.event === "single")).payload, { a: 1 });
    const body = { messages: [{ topic: room("post"), event: "many", payload: { b: 2 } }, { topic: "nobody", event: "x", payload: {} }] };
    const post = (headers, body) =>
      fetch(`${url}/realtime/v1/api/broadcast`, { method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) });
    assert.equal((await post({ apikey: key }, body)).status, 202);
    assert.deepEqual((await b.until((said) => said.event === "many")).payload, { b: 2 });
    const refused = await post({ apikey: key }, { messages: [{ topic: "x" }] });
    assert.deepEqual([refused.status, (await refused.json()).errors.messages[0].event], [422, ["can't be blank"]]);
    assert.equal((await post({}, body)).status, 401);
  },
  // `presenceState()` of realtime-js 2.109 takes the references out of what diffs go by, so it is asked at the end alone.
  async "presence"() {
    const present = (client, key) => {
      const listener = heard();
      const channel = client.channel(room("here"), { config: { presence: { key } } });
      channel.on("presence", { event: "sync" }, () => listener.listen("sync"));
      channel.on("presence", { event: "join" }, ({ key, newPresences: [{ mood }] }) => listener.listen(`join ${key} ${mood}`));
      channel.on("presence", { event: "leave" }, ({ key }) => listener.listen(`leave ${key}`));
      const times = (what) => listener.all.filter((said) => said === what).length;
      return [channel, (what, count = 1) => listener.until(() => times(what) >= count)];
    };
    const [one, a] = present(connect(), "ada");
    const goes = connect();
    const [two, b] = present(goes, "bob");
    for (const channel of [one, two]) await subscribed(channel);
    assert.equal(await one.track({ mood: "good" }), "ok");
    await b("join ada good");
    assert.equal(await two.track({ mood: "better" }), "ok");
    await a("join bob better");
    // A newcomer hears who is there already.
    const [three, c] = present(connect(), "eve");
    await subscribed(three);
    await c("sync");
    await c("join ada good");
    assert.equal(await two.track({ mood: "best" }), "ok");
    await a("join bob best");
    assert.equal(await one.untrack(), "ok");
    await b("leave ada");
    // Whoever goes without a word is gone too. It has left once already: as what it was before it said something new.
    goes.realtime.disconnect();
    await c("leave bob", 2);
    await a("leave bob", 2);
    const [four] = present(connect(), "dan");
    await subscribed(four);
    assert.equal(await four.track({ mood: "alone" }), "ok");
    await c("join dan alone");
    assert.deepEqual(Object.keys(four.presenceState()).filter((key) => key !== "dan"), []);
  },
  async "whoever has left hears nothing"() {
    const [b, c] = [heard(), heard()];
    const one = await subscribed(connect().channel(room("leave"), { config: { broadcast: { ack: true } } }));
    const two = await subscribed(connect().channel(room("leave")).on("broadcast", { event: "*" }, b.listen));
    await subscribed(connect().channel(room("leave")).on("broadcast", { event: "*" }, c.listen));
    assert.equal(await two.unsubscribe(), "ok");
    await one.send({ type: "broadcast", event: "x", payload: {} });
    await c.until(() => true);
    assert.deepEqual(b.all, []);
  },
  async "a wrong key opens nothing"() {
    const status = await new Promise((done) => {
      const socket = new WebSocket(`${url.replace("http", "ws")}/realtime/v1/websocket?apikey=wrong&vsn=${vsn}`);
      socket.on("unexpected-response", (_, response) => done(response.statusCode));
      socket.on("open", () => done("open"));
      socket.on("error", () => {});
    });
    assert.equal(status, 401);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(name);
}
for (const client of clients) await client.removeAllChannels();
process.exit(0);
