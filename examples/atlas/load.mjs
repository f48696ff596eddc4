// Loads the atlas through the API: each table in one request, as upserts, so that it may run again.

import { client, countries, must } from "./atlas.mjs";

const ntier = client("secret_key");
const unique = (rows, key) => [...new Map(rows.map((row) => [row[key], row])).values()];

const tables = {
  regions: unique(countries.map(({ region }) => ({ name: region })), "name"),
  subregions: unique(
    countries.filter((c) => c.subregion).map(({ subregion, region }) => ({ name: subregion, region })), "name"),
  languages: unique(
    countries.flatMap((c) => Object.entries(c.languages).map(([code, name]) => ({ code, name }))), "code"),
  currencies: unique(
    countries.flatMap((c) => Object.entries(c.currencies).map(([code, { name, symbol }]) => ({ code, name, symbol }))),
    "code"),
  countries: countries.map((c) => ({
    code: c.cca3,
    code2: c.cca2,
    name: c.name.common,
    official_name: c.name.official,
    region: c.region,
    subregion: c.subregion || null,
    capitals: c.capital,
    domains: c.tld,
    independent: c.independent,
    un_member: c.unMember,
    landlocked: c.landlocked,
    area: c.area,
    latitude: c.latlng[0],
    longitude: c.latlng[1],
    flag: c.flag,
    translations: c.translations,
  })),
  country_languages: countries.flatMap((c) => Object.keys(c.languages).map((language) => ({ country: c.cca3, language }))),
  country_currencies: countries.flatMap((c) => Object.keys(c.currencies).map((currency) => ({ country: c.cca3, currency }))),
  borders: countries.flatMap((c) => c.borders.map((neighbour) => ({ country: c.cca3, neighbour }))),
};

for (const [table, rows] of Object.entries(tables)) {
  must(await ntier.from(table).upsert(rows));
  const { count } = must(await ntier.from(table).select("*", { count: "exact", head: true }));
  console.log(`${table}: ${count} rows`);
  if (count !== rows.length) throw new Error(`${table} should have ${rows.length}`);
}
