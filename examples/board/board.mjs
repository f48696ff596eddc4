// Two people use the board: they sign in, post, show each other pictures, hear each other at once, and see what they may and nothing else.
// It prints a line for each thing that it has seen, and ends with an error where one is not so.
import { createClient } from "@supabase/supabase-js";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import WebSocket from "ws";

const given = (name) => process.env[`NTIER_${name}`] ?? process.env[`SUPABASE_${name}`];
const keys = given("PUBLISHABLE_KEY") ? {} : JSON.parse(execFileSync("ntier", ["keys", "--json"]));
const url = given("URL") ?? "http://127.0.0.1:54321";
const key = given("PUBLISHABLE_KEY") ?? keys.publishable_key;

const clients = [];
const connect = () => {
  const client = createClient(url, key, {
    realtime: { transport: WebSocket },
    auth: { persistSession: false, autoRefreshToken: false },
  });
  clients.push(client);
  return client;
};
const good = ({ data, error }) => {
  assert.equal(error, null, JSON.stringify(error));
  return data;
};
const subscribed = (channel) =>
  new Promise((done, fail) =>
    channel.subscribe((status, error) => (status === "SUBSCRIBED" ? done(channel) : fail(error ?? new Error(status)))),
  );
// What comes once, or an error.
const within = (what, promise) =>
  Promise.race([promise, new Promise((_, fail) => setTimeout(() => fail(new Error(`${what}: nothing for 20 s`)), 20_000).unref())]);

const password = "correct horse battery";
const run = randomUUID();
const [ada, ben, visitor] = [connect(), connect(), connect()];
const address = (name) => `${name}-${run}@example.com`;
const picture = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=", "base64");
let post;

const steps = {
  async "they sign up, and in again"() {
    for (const [client, name] of [[ada, "ada"], [ben, "ben"]]) {
      good(await client.auth.signUp({ email: address(name), password }));
      good(await client.auth.signOut());
      const { user } = good(await client.auth.signInWithPassword({ email: address(name), password }));
      assert.equal(user.email, address(name));
    }
  },
  async "a wrong password is none"() {
    const { error } = await visitor.auth.signInWithPassword({ email: address("ada"), password: "wrong horse battery" });
    assert.equal(error?.code, "invalid_credentials");
  },
  async "a session is refreshed"() {
    const before = good(await ada.auth.getSession()).session;
    const { session } = good(await ada.auth.refreshSession());
    assert.notEqual(session.refresh_token, before.refresh_token);
    assert.equal(good(await ada.auth.getUser()).user.email, address("ada"));
  },
  async "a post is heard as it is made, once it is"() {
    const heard = {};
    const all = new Promise((done) => (heard.done = done));
    const channel = ben
      .channel("board")
      .on("postgres_changes", { event: "INSERT", schema: "public", table: "posts" }, (change) => {
        if (change.new.body === `hello ${run}`) heard.done(change.new);
      });
    const listening = new Promise((done) => channel.on("system", {}, ({ extension, status }) => extension === "postgres_changes" && done(status)));
    await subscribed(channel);
    assert.equal(await within("the subscription", listening), "ok");
    post = good(await ada.from("posts").insert({ body: `hello ${run}` }).select().single());
    assert.deepEqual((await within("the post", all)).id, post.id);
  },
  async "all who sign in see it, and nobody else"() {
    assert.equal(good(await ben.from("posts").select("body").eq("id", post.id).single()).body, `hello ${run}`);
    assert.equal((await visitor.from("posts").select("body")).error?.code, "42501");
  },
  async "nobody writes in another's name, or changes what is another's"() {
    const { user } = good(await ben.auth.getUser());
    const { error } = await ada.from("posts").insert({ body: "I am Ben", author: user.id });
    assert.equal(error?.code, "42501");
    assert.deepEqual(good(await ben.from("posts").update({ body: "changed" }).eq("id", post.id).select()), []);
  },
  async "the database counts"() {
    const mine = good(await ada.rpc("authors")).filter(({ author }) => author === post.author);
    assert.deepEqual(mine, [{ author: post.author, posts: 1 }]);
  },
  async "a picture is kept, shown to those who may see it, and its link is good"() {
    const name = `${post.author}/${run}.png`;
    good(await ada.storage.from("pictures").upload(name, picture, { contentType: "image/png" }));
    good(await ada.from("posts").update({ picture: name }).eq("id", post.id));
    const seen = good(await ben.storage.from("pictures").download(name));
    assert.deepEqual(Buffer.from(await seen.arrayBuffer()), picture);
    assert.notEqual((await visitor.storage.from("pictures").download(name)).error, null);
    const elsewhere = await ben.storage.from("pictures").upload(`${post.author}/other.png`, picture, { contentType: "image/png" });
    assert.notEqual(elsewhere.error, null);
    const { signedUrl } = good(await ben.storage.from("pictures").createSignedUrl(name, 60));
    const answer = await fetch(signedUrl);
    assert.deepEqual([answer.status, answer.headers.get("content-type")], [200, "image/png"]);
    assert.deepEqual(Buffer.from(await answer.arrayBuffer()), picture);
  },
  async "they see who is there, and hear each other"() {
    const here = ada.channel("room", { config: { presence: { key: "ada" } } });
    const there = ben.channel("room", { config: { presence: { key: "ben" } } });
    const heard = new Promise((done) => there.on("broadcast", { event: "wave" }, ({ payload }) => done(payload)));
    const met = new Promise((done) =>
      here.on("presence", { event: "sync" }, () => Object.keys(here.presenceState()).length === 2 && done()),
    );
    await subscribed(here);
    await subscribed(there);
    await here.track({ at: "desk" });
    await there.track({ at: "door" });
    await within("the other", met);
    // Whoever is heard by presence is heard by all: the nodes know each other.
    await here.send({ type: "broadcast", event: "wave", payload: { run } });
    assert.deepEqual(await within("the wave", heard), { run });
  },
  async "a removed post is gone, and so is whoever signs out"() {
    good(await ada.from("posts").delete().eq("id", post.id));
    assert.deepEqual(good(await ben.from("posts").select("id").eq("id", post.id)), []);
    good(await ada.auth.signOut());
    assert.equal(good(await ada.auth.getSession()).session, null);
  },
};

for (const [what, step] of Object.entries(steps)) {
  await step();
  console.log(`ok  ${what}`);
}
for (const client of clients) await client.removeAllChannels();
process.exit(0);
