// A node that allows one of everything in a second, on average over a minute, and private channels alone. See raw.mjs.
import assert from "node:assert/strict";
import { Raw, run } from "./raw.mjs";

const { URL: url, KEY: key } = process.env;

await run({
  async "there are no public channels"() {
    const raw = await Raw.open();
    assert.deepEqual(await raw.join("public", { private: false }), ["error", "PrivateOnly: This project only allows private channels"]);
    raw.close();
  },

  async "presences"() {
    const raws = await Promise.all(Array.from({ length: 20 }, () => Raw.open()));
    for (const raw of raws) assert.deepEqual(await raw.join("here", { presence: { enabled: true } }), ["ok"]);
    const track = (raw, n) => raw.send("here", "realtime:here", "presence", { type: "presence", event: "track", payload: { n } });
    // A client has five calls within half a minute, all of them together sixty within a minute.
    for (const n of [1, 2, 3]) for (const answer of await Promise.all(raws.map((raw) => raw.reply(track(raw, n))))) assert.equal(answer.status, "ok");
    for (const raw of raws) track(raw, 4);
    const ends = await Promise.all(raws.map((raw) => raw.shut("here")));
    assert.deepEqual([...new Set(ends)], ["Too many presence messages per second"]);
    for (const raw of raws) raw.close();
  },

  async "messages"() {
    const raw = await Raw.open();
    assert.deepEqual(await raw.join("talk", { broadcast: { self: true } }), ["ok"]);
    for (let n = 0; n < 100; n++) raw.broadcast("talk", "n");
    assert.equal(await raw.shut("talk"), "Too many messages per second");
    raw.close();
    const post = (path, body) =>
      fetch(`${url}/realtime/v1/api/broadcast${path}`, { method: "POST", headers: { apikey: key, "content-type": "application/json" }, body: JSON.stringify(body) });
    for (const answer of [await post("/talk/events/e", {}), await post("", { messages: [{ topic: "talk", event: "e", payload: {} }] })]) {
      assert.deepEqual([answer.status, await answer.json()], [429, { message: "You have exceeded your rate limit" }]);
    }
  },

  async "joins"() {
    const raw = await Raw.open();
    for (let n = 0; n < 60; n++) {
      const [status, why] = await raw.join(`n${n}`);
      if (status === "ok") continue;
      assert.equal(why, "ClientJoinRateLimitReached: Too many joins per second");
      assert.equal(await raw.until("the end", ({ closed }) => closed), 1001);
      await assert.rejects(Raw.open(), /429/);
      return;
    }
    assert.fail("joined for ever");
  },
});
