// What realtime-js promises of itself, against a server that is there: its own suite plays the server. Prints a line for each check; ends with
// an error where one fails. Between client and server is a wire that can be cut and held.
import { createClient } from "@supabase/supabase-js";
import assert from "node:assert/strict";
import net from "node:net";
import WebSocket from "ws";

const { URL: url, KEY: key, VSN: vsn } = process.env;

// Which says what was said on it, one after the other.
const heard = () => {
  const all = [];
  let wake = () => {};
  const listen = (said) => {
    all.push(said);
    wake();
  };
  // The next that is so, of those behind the last one that was waited for.
  let from = 0;
  const until = async (is) => {
    const late = setTimeout(() => assert.fail(`not heard: ${is}; but ${JSON.stringify(all)}`), 20_000);
    for (;;) {
      const at = all.findIndex((said, at) => at >= from && is(said));
      if (at >= 0) {
        clearTimeout(late);
        from = at + 1;
        return all[at];
      }
      await new Promise((done) => (wake = done));
    }
  };
  return { all, listen, until };
};

// A wire to the server. What is held is not lost.
const wires = [];
const wire = async () => {
  const { hostname, port } = new URL(url);
  const pairs = new Set();
  let isHeld = false;
  const server = net.createServer((client) => {
    const node = net.connect(port, hostname);
    const pair = [client, node];
    pairs.add(pair);
    for (const [one, other] of [pair, [node, client]]) {
      one.on("data", (data) => other.write(data));
      one.on("error", () => {});
      one.on("close", () => {
        other.destroy();
        pairs.delete(pair);
      });
      if (isHeld) one.pause();
    }
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const each = (act) => [...pairs].flat().forEach(act);
  const it = {
    url: `http://127.0.0.1:${server.address().port}`,
    cut: () => each((socket) => socket.destroy()),
    hold: () => ((isHeld = true), each((socket) => socket.pause())),
    release: () => ((isHeld = false), each((socket) => socket.resume())),
    close: () => (server.close(), it.cut()),
  };
  wires.push(it);
  return it;
};

const clients = [];
const connect = (options = {}, to = url) => {
  const realtime = { transport: WebSocket, vsn, reconnectAfterMs: () => 50, ...options };
  const client = createClient(to, key, { realtime, auth: { persistSession: false, autoRefreshToken: false } });
  clients.push(client);
  return client;
};
const room = (name) => `${name}-${vsn}`;
// Joins; what `subscribe` is told goes to the listener.
const subscribe = async (channel, statuses = heard()) => {
  channel.subscribe((status) => statuses.listen(status));
  await statuses.until((status) => status === "SUBSCRIBED");
  return channel;
};
const listening = async (client, name, config = {}) => {
  const events = heard();
  const channel = client.channel(room(name), { config }).on("broadcast", { event: "*" }, events.listen);
  return [await subscribe(channel), events];
};
const say = (channel, event, payload = {}) => channel.send({ type: "broadcast", event, payload });

const checks = {
  async "whoever is cut off joins again, and hears and is heard"() {
    const cable = await wire();
    const statuses = heard();
    const client = connect({}, cable.url);
    const events = heard();
    const one = client.channel(room("cut")).on("broadcast", { event: "*" }, events.listen);
    const second = client.channel(room("cut-too"), { config: { broadcast: { ack: true } } });
    await subscribe(one, statuses);
    await subscribe(second);
    const [other, others] = await listening(connect(), "cut", { broadcast: { ack: true } });
    for (const n of [1, 2]) {
      cable.cut();
      await statuses.until((status) => status === "CHANNEL_ERROR");
      await statuses.until((status) => status === "SUBSCRIBED");
      assert.equal(await say(other, "again", { n }), "ok");
      assert.deepEqual((await events.until((said) => said.event === "again")).payload, { n });
      await say(one, "back", { n });
      assert.deepEqual((await others.until((said) => said.event === "back")).payload, { n });
    }
    // All channels of the connection are back, each once.
    await until("the other channel", () => second.state === "joined");
    assert.equal(await say(second, "x"), "ok");
    assert.equal(events.all.length, 2);
  },

  async "whoever is cut off is gone, and there again once it says so"() {
    const cable = await wire();
    const seen = heard();
    const watcher = connect().channel(room("gone"), { config: { presence: { key: "watcher" } } });
    watcher.on("presence", { event: "join" }, ({ key, newPresences: [{ n }] }) => seen.listen(`join ${key} ${n}`));
    watcher.on("presence", { event: "leave" }, ({ key }) => seen.listen(`leave ${key}`));
    await subscribe(watcher);
    const statuses = heard();
    const goes = connect({}, cable.url).channel(room("gone"), { config: { presence: { key: "goes", enabled: true } } });
    await subscribe(goes, statuses);
    assert.equal(await goes.track({ n: 1 }), "ok");
    await seen.until((said) => said === "join goes 1");
    cable.cut();
    await seen.until((said) => said === "leave goes");
    await statuses.until((status) => status === "SUBSCRIBED");
    assert.equal(await goes.track({ n: 2 }), "ok");
    await seen.until((said) => said === "join goes 2");
    assert.deepEqual(Object.keys(watcher.presenceState()), ["goes"]);
  },

  async "heartbeats are answered, and a server that is silent is left"() {
    const cable = await wire();
    const beats = heard();
    const statuses = heard();
    const client = connect({ heartbeatIntervalMs: 100, heartbeatCallback: beats.listen }, cable.url);
    await subscribe(client.channel(room("beat")), statuses);
    for (const status of ["sent", "ok", "sent", "ok"]) await beats.until((said) => said === status);
    cable.hold();
    await beats.until((said) => said === "timeout");
    cable.release();
    await statuses.until((status) => status === "SUBSCRIBED");
    await beats.until((said) => said === "ok");
  },

  async "a join that is not answered in time is tried again"() {
    const cable = await wire();
    const client = connect({}, cable.url);
    await subscribe(client.channel(room("late-0")));
    cable.hold();
    const statuses = heard();
    const channel = client.channel(room("late"));
    channel.subscribe((status) => statuses.listen(status), 200);
    await statuses.until((status) => status === "TIMED_OUT");
    cable.release();
    await statuses.until((status) => status === "SUBSCRIBED");
    assert.equal(channel.state, "joined");
  },

  async "broadcasts are acknowledged where that is asked for"() {
    const cable = await wire();
    const acknowledged = connect({}, cable.url).channel(room("ack"), { config: { broadcast: { ack: true } } });
    const plain = connect().channel(room("ack"));
    const [, events] = await listening(connect(), "ack");
    for (const channel of [acknowledged, plain]) await subscribe(channel);
    assert.equal(await say(acknowledged, "one"), "ok");
    assert.equal(await say(plain, "two"), "ok");
    for (const event of ["one", "two"]) await events.until((said) => said.event === event);
    // Over 3 MB, as Supabase has it.
    const long = "x".repeat(3_100_000);
    assert.equal(await say(acknowledged, "long", { long }), "error");
    cable.hold();
    const late = { timeout: 200 };
    assert.equal(await acknowledged.send({ type: "broadcast", event: "late", payload: {} }, late), "timed out");
    cable.release();
    // It was slow, not lost.
    await events.until((said) => said.event === "late");
    assert.ok(!events.all.some((said) => said.event === "long"));
  },

  async "what is said before there is a channel goes by HTTP"() {
    const [, events] = await listening(connect(), "early");
    const sender = connect().channel(room("early"));
    assert.equal(await say(sender, "early", { n: 1 }), "ok");
    assert.deepEqual((await events.until((said) => said.event === "early")).payload, { n: 1 });
  },

  async "bytes stay bytes"() {
    const bytes = Uint8Array.from({ length: 70_000 }, (_, at) => at % 256);
    const [, events] = await listening(connect(), "bytes");
    const [channel] = await listening(connect(), "bytes", { broadcast: { ack: true } });
    // Version 1.0.0 has no way to say them or to hear them.
    if (vsn === "2.0.0") {
      assert.equal(await say(channel, "whole", bytes.buffer), "ok");
      assert.deepEqual(new Uint8Array((await events.until((said) => said.event === "whole")).payload), bytes);
    }
    assert.deepEqual(await channel.httpSend("posted", bytes), { success: true });
    assert.equal(await say(channel, "last"), "ok");
    const last = await events.until((said) => said.event === "last" || (vsn === "2.0.0" && said.event === "posted"));
    if (vsn === "2.0.0") assert.deepEqual(new Uint8Array(last.payload), bytes);
    assert.equal(events.all.some((said) => said.event === "posted"), vsn === "2.0.0");
  },

  async "names may have any letters, also by HTTP"() {
    const posted = async (channel, events, event) => {
      assert.deepEqual(await channel.httpSend(event, { event }), { success: true });
      assert.deepEqual((await events.until((said) => said.event === event)).payload, { event });
    };
    const [channel, events] = await listening(connect(), "rooms/1?a=b#c&d %41", { broadcast: { self: true, ack: true } });
    for (const event of ["größe/x?y", "日本 語", "a".repeat(250)]) await posted(channel, events, event);
    for (const event of ["a/x?y#%41", "a".repeat(250)]) {
      assert.equal(await say(channel, event, { n: 2 }), "ok");
      assert.deepEqual((await events.until((said) => said.event === event)).payload, { n: 2 });
    }
    // Version 2.109 of the client says names of sockets in Latin-1 where it speaks 2.0.0, which nobody reads.
    await posted(...(await listening(connect(), "räume")), "größe");
    const [other] = await listening(connect(), "closed");
    const closed = connect().channel(other.subTopic, { config: { private: true } });
    await assert.rejects(closed.httpSend("x", {}), { message: "Unauthorized" });
  },

  async "both versions hear each other"() {
    const [one, ones] = await listening(connect(), "both", { broadcast: { ack: true } });
    const [two, twos] = await listening(connect({ vsn: vsn === "1.0.0" ? "2.0.0" : "1.0.0" }), "both", { broadcast: { ack: true } });
    const payload = { deep: [{ ü: null }, 1.5, "\u2028"] };
    for (const [from, to] of [[one, twos], [two, ones]]) {
      assert.equal(await say(from, "hello", payload), "ok");
      const { type, event, payload: came } = await to.until((said) => said.event === "hello");
      assert.deepEqual({ type, event, came }, { type: "broadcast", event: "hello", came: payload });
    }
  },

  async "listeners hear the events that they are for"() {
    const [exact, any, two] = [heard(), heard(), heard()];
    const channel = connect().channel(room("events"), { config: { broadcast: { self: true, ack: true } } });
    channel.on("broadcast", { event: "a" }, exact.listen).on("broadcast", { event: "*" }, any.listen);
    channel.on("broadcast", { event: "a" }, two.listen);
    await subscribe(channel);
    for (const event of ["a", "b", "a"]) assert.equal(await say(channel, event), "ok");
    for (let n = 0; n < 3; n++) await any.until(() => true);
    const events = ({ all }) => all.map((said) => said.event);
    assert.deepEqual([events(exact), events(any), events(two)], [["a", "a"], ["a", "b", "a"], ["a", "a"]]);
  },

  async "a channel that was removed can be joined again, and is another"() {
    const client = connect();
    const [first, firsts] = await listening(client, "again");
    assert.equal(await client.removeChannel(first), "ok");
    assert.equal(first.state, "closed");
    const [second, seconds] = await listening(client, "again");
    const [other] = await listening(connect(), "again", { broadcast: { ack: true } });
    assert.equal(await say(other, "x"), "ok");
    await seconds.until((said) => said.event === "x");
    assert.deepEqual([firsts.all, client.getChannels()], [[], [second]]);
  },

  async "who removes all channels is disconnected, and may come again"() {
    const client = connect();
    const all = await Promise.all(["all-1", "all-2", "all-3"].map((name) => listening(client, name)));
    const [other] = await listening(connect(), "all-2", { broadcast: { ack: true } });
    assert.deepEqual(await client.removeAllChannels(), ["ok", "ok", "ok"]);
    assert.deepEqual([client.getChannels(), client.realtime.isConnected()], [[], false]);
    assert.equal(await say(other, "unheard"), "ok");
    const [, events] = await listening(client, "all-2");
    assert.equal(await say(other, "heard"), "ok");
    await events.until((said) => said.event === "heard");
    assert.deepEqual([events.all.length, all.flatMap(([, events]) => events.all)], [1, []]);
  },

  async "who disconnects by itself stays away"() {
    const client = connect();
    const statuses = heard();
    await subscribe(client.channel(room("away")), statuses);
    assert.equal(client.realtime.connectionState(), "open");
    await client.realtime.disconnect();
    await until("closed", () => client.realtime.connectionState() === "closed");
    const [other, events] = await listening(connect(), "away", { broadcast: { self: true, ack: true } });
    assert.equal(await say(other, "x"), "ok");
    await events.until((said) => said.event === "x");
    assert.equal(client.realtime.isConnected(), false);
  },

  async "a token that is no token closes a channel for good"() {
    const client = connect();
    const statuses = heard();
    const system = heard();
    const channel = client.channel(room("token")).on("system", {}, system.listen);
    await subscribe(channel, statuses);
    await client.realtime.setAuth("a.b.c");
    const said = await system.until((said) => said.status === "error");
    assert.deepEqual([said.extension, said.message], ["system", "The token provided is not a valid JWT"]);
    await statuses.until((status) => status === "CLOSED");
    assert.equal(channel.state, "closed");
  },

  async "the protocol of websockets is kept"() {
    const open = async () => {
      const socket = new WebSocket(`${url.replace("http", "ws")}/realtime/v1/websocket?apikey=${key}&vsn=${vsn}`);
      const said = heard();
      socket.on("message", (data) => said.listen(String(data)));
      socket.on("pong", (data) => said.listen(`pong ${data}`));
      socket.on("close", (code) => said.listen(`closed ${code}`));
      socket.on("error", () => {});
      await new Promise((done) => socket.on("open", done));
      return [socket, said];
    };
    const message = (ref) =>
      JSON.stringify(vsn === "1.0.0" ? { topic: "phoenix", event: "heartbeat", payload: {}, ref } : [null, ref, "phoenix", "heartbeat", {}]);
    const [socket, said] = await open();
    socket.ping("are you there");
    await said.until((said) => said === "pong are you there");
    // What cannot be read is passed over.
    for (const odd of ["", "{", "[]", "null", '{"topic":1}', '[1,2,3]', Buffer.alloc(3), Buffer.from([3, 255, 255, 1])]) socket.send(odd);
    // A message may come in pieces, with a ping between them.
    const [head, tail] = [message("17").slice(0, 9), message("17").slice(9)];
    socket.send(head, { fin: false });
    socket.ping("between");
    socket.send(tail, { fin: true });
    await said.until((said) => said === "pong between");
    await said.until((said) => said.includes('"17"') && said.includes('"ok"'));
    socket.close(4321, "done");
    await said.until((said) => said === "closed 4321");
    const [tooLong, closed] = await open();
    tooLong.send("x".repeat(5_000_001));
    await closed.until((said) => said === "closed 1009");
    const [noText, also] = await open();
    noText.send(Buffer.from([0xff, 0xfe]), { binary: false });
    await also.until((said) => said === "closed 1007");
  },
};

// Looks again whenever something may have changed.
async function until(what, is) {
  const late = setTimeout(() => assert.fail(`never: ${what}`), 20_000);
  while (!is()) await new Promise((done) => setImmediate(done));
  clearTimeout(late);
}

// `stays`: is told of a server that goes and comes again at the same address.
const stays = async () => {
  const statuses = heard();
  const [client, other] = [connect(), connect()];
  const events = heard();
  const channel = client.channel(room("stays"), { config: { presence: { key: "stays" } } });
  channel.on("broadcast", { event: "*" }, events.listen).on("presence", { event: "sync" }, () => {});
  await subscribe(channel, statuses);
  assert.equal(await channel.track({ n: 1 }), "ok");
  console.log("joined");
  await statuses.until((status) => status === "CHANNEL_ERROR");
  await statuses.until((status) => status === "SUBSCRIBED");
  assert.equal(await channel.track({ n: 2 }), "ok");
  const [sender] = await listening(other, "stays", { broadcast: { ack: true } });
  assert.equal(await say(sender, "x"), "ok");
  await events.until((said) => said.event === "x");
  console.log("joined again");
};

if (process.argv[2] === "stays") {
  await stays();
} else {
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log(name);
  }
}
for (const one of wires) one.close();
process.exit(0);
