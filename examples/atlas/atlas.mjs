// What both scripts need: the data, and a client. The data is npm's world-countries (Open Database License), as it is.

import { createRequire } from "node:module";
import { execFileSync } from "node:child_process";
import { createClient } from "@supabase/supabase-js";

export const countries = createRequire(import.meta.url)("world-countries/countries.json");

/// A client with the key of this name: from the environment, or from `ntier keys` in this folder.
export function client(name) {
  const url = setting("URL") ?? "http://127.0.0.1:54321";
  return createClient(url, setting(name.toUpperCase()) ?? keys()[name]);
}

/// `NTIER_URL`, or `SUPABASE_URL` as many applications have it already.
function setting(name) {
  return process.env[`NTIER_${name}`] ?? process.env[`SUPABASE_${name}`];
}

function keys() {
  // These are ours; ntier would take them for settings that it does not know.
  const { NTIER_URL, NTIER_PUBLISHABLE_KEY, NTIER_SECRET_KEY, ...env } = process.env;
  return JSON.parse(execFileSync("ntier", ["keys", "--json"], { encoding: "utf8", env }));
}

/// The data of an answer, or its error.
export function must({ data, error, count }) {
  if (error) throw new Error(`${error.code}: ${error.message}`);
  return count === null || count === undefined ? data : { data, count };
}
