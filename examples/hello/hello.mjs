// Writes a message and reads the latest ones, with the same client as in a browser. (The flag in package.json is for Node.js 20;
// later ones have WebSocket without it.)
//
//   SUPABASE_URL=http://127.0.0.1:54321 SUPABASE_PUBLISHABLE_KEY=sb_publishable_… npm start

import { createClient } from "@supabase/supabase-js";

const { SUPABASE_URL = "http://127.0.0.1:54321", SUPABASE_PUBLISHABLE_KEY } = process.env;
const key = SUPABASE_PUBLISHABLE_KEY ?? (await (await fetch(`${SUPABASE_URL}/ntier.json`)).json()).publishable_key;
const client = createClient(SUPABASE_URL, key);

const written = await client.from("messages").insert({ author: "node", body: "Hello from a script!" });
if (written.error) throw written.error;

const { data, error } = await client.from("messages").select("author, body").order("id", { ascending: false }).limit(3);
if (error) throw error;
for (const { author, body } of data) console.log(`${author}: ${body}`);
