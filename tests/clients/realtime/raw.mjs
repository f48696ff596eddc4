// A client of version 2.0.0 by hand, for what a library hides: every frame that comes, in its order.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import WebSocket from "ws";

const { URL: url, KEY: key } = process.env;

// A binary frame of the server as a text one would be.
const unpacked = (bytes) => {
  const [kind, topic, event, meta] = bytes;
  assert.equal(kind, 4);
  const part = (from, length) => bytes.subarray(from, from + length);
  const [name, said, about] = [part(5, topic), part(5 + topic, event), part(5 + topic + event, meta)].map(String);
  const rest = bytes.subarray(5 + topic + event + meta);
  const payload = bytes[4] === 1 ? JSON.parse(rest) : [...rest];
  return [null, null, name, "broadcast", { type: "broadcast", event: said, payload, ...(about && { meta: JSON.parse(about) }) }];
};

export class Raw {
  static async open(apikey = key, headers = {}) {
    const socket = new WebSocket(`${url.replace("http", "ws")}/realtime/v1/websocket?apikey=${apikey}&vsn=2.0.0`, { headers });
    const raw = new Raw(socket);
    await new Promise((done, fail) => socket.on("open", done).on("error", fail));
    return raw;
  }

  constructor(socket) {
    Object.assign(this, { socket, all: [], closed: null, next: 0, wake: () => {} });
    socket.on("message", (data, isBinary) => {
      this.all.push(isBinary ? unpacked(data) : JSON.parse(data));
      this.wake();
    });
    socket.on("close", (code) => {
      this.closed = code;
      this.wake();
    });
  }

  send(joinRef, topic, event, payload) {
    const ref = String(++this.next);
    this.socket.send(JSON.stringify([joinRef, ref, topic, event, payload]));
    return ref;
  }

  async until(what, is) {
    const late = setTimeout(() => assert.fail(`never: ${what}; but ${JSON.stringify(this.all)}`), 20_000);
    for (;;) {
      const found = is(this);
      if (found) {
        clearTimeout(late);
        return found;
      }
      await new Promise((done) => (this.wake = done));
    }
  }

  // Its answer.
  reply(ref) {
    return this.until(`an answer to ${ref}`, ({ all }) => all.find(([, to, , event]) => to === ref && event === "phx_reply")?.[4]);
  }

  // Joins; gives ["ok"] or ["error", why]. The join's reference is the channel's name.
  async join(name, config = {}, token) {
    const { status, response } = await this.reply(this.send(name, `realtime:${name}`, "phx_join", { config: { private: true, ...config }, access_token: token }));
    return status === "ok" ? ["ok"] : [status, response.reason];
  }

  // All that it is told until now: whatever is asked is answered in its order.
  async now() {
    await this.reply(this.send(null, "phoenix", "heartbeat", {}));
    return this.all.filter(([, , topic]) => topic !== "phoenix");
  }

  broadcast(name, event, payload = {}) {
    return this.send(name, `realtime:${name}`, "broadcast", { type: "broadcast", event, payload });
  }

  hears(event) {
    return this.until(`the broadcast ${event}`, ({ all }) => all.find(([, , , what, said]) => what === "broadcast" && said.event === event)?.[4]);
  }

  has(event) {
    return this.all.some(([, , , what, said]) => what === "broadcast" && said.event === event);
  }

  // Why the server closes a channel.
  async shut(name) {
    await this.until(`the end of ${name}`, ({ all }) => all.some(([join, ref, , event]) => event === "phx_close" && join === name && ref === name));
    return this.all.findLast(([join, , , event, said]) => join === name && event === "system" && said.status === "error")?.[4].message;
  }

  close() {
    this.socket.close();
  }
}

// A token of the project.
export const sign = (claims) => {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ role: "authenticated", aud: "authenticated", exp: Math.floor(Date.now() / 1000) + 3600, ...claims })}`;
  return `${signed}.${createHmac("sha256", process.env.JWT_SECRET).update(signed).digest("base64url")}`;
};

// Asks the data API as the service, which may do all of it.
export const sql = async (text) => {
  const response = await fetch(`${url}/rest/v1/rpc/run_sql`, {
    method: "POST",
    headers: { apikey: process.env.SECRET, "content-type": "application/json" },
    body: JSON.stringify({ text }),
  });
  assert.equal(response.status, 200, await response.clone().text());
  return response.json();
};

// Runs the checks one after the other, and says which were done.
export const run = async (checks) => {
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
    } catch (error) {
      console.error(`${name}:`);
      throw error;
    }
    console.log(name);
  }
  process.exit(0);
};
