// Questions to the atlas in supabase-js, each checked against the answer computed from the file itself.

import { deepStrictEqual } from "node:assert";
import { client, countries, must } from "./atlas.mjs";

const atlas = client("publishable_key");
const writer = client("secret_key");
// As PostgreSQL orders text in its C collation: by code point.
const byName = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const names = (list) => list.map((c) => c.name.common).sort(byName);
const sorted = (list) => list.map((c) => c.name).sort(byName);
const of = (code) => countries.find((c) => c.cca3 === code);
// The words of a country's names in all languages, as the column `search` has them.
const words = (c) => new Set([c.name.common, c.name.official, ...Object.values(c.translations).flatMap(Object.values)]
  .flatMap((name) => name.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? []));

const questions = {
  async "filters: large countries without a coast"() {
    const found = must(await atlas.from("countries").select("name").eq("landlocked", true).gt("area", 1_000_000));
    return [sorted(found), names(countries.filter((c) => c.landlocked && c.area > 1_000_000))];
  },
  async "or, not and is: not a member of the United Nations, or of unknown independence"() {
    const found = must(await atlas.from("countries").select("name").or("un_member.is.false,independent.is.null"));
    return [sorted(found), names(countries.filter((c) => !c.unMember || c.independent === null))];
  },
  async "like and in: names that end in -stan, in two subregions"() {
    const where = ["Central Asia", "Southern Asia"];
    const found = must(await atlas.from("countries").select("name").ilike("name", "%stan").in("subregion", where));
    return [sorted(found), names(countries.filter((c) => /stan$/i.test(c.name.common) && where.includes(c.subregion)))];
  },
  async "order, limit and count: the five largest of Africa"() {
    const { data, count } = must(await atlas.from("countries").select("name, area", { count: "exact" })
      .eq("region", "Africa").order("area", { ascending: false }).limit(5));
    const africa = countries.filter((c) => c.region === "Africa").sort((a, b) => b.area - a.area);
    return [{ data, count }, { data: africa.slice(0, 5).map((c) => ({ name: c.name.common, area: c.area })), count: africa.length }];
  },
  async "range: the third page of ten"() {
    const found = must(await atlas.from("countries").select("code").order("code").range(20, 29));
    return [found.map((c) => c.code), countries.map((c) => c.cca3).sort(byName).slice(20, 30)];
  },
  async "arrays: who uses .nl, or has several capitals in the data"() {
    const dutch = must(await atlas.from("countries").select("name").contains("domains", [".nl"]));
    const either = must(await atlas.from("countries").select("name").overlaps("capitals", ["Pretoria", "La Paz", "Sucre"]));
    return [[sorted(dutch), sorted(either)], [
      names(countries.filter((c) => c.tld.includes(".nl"))),
      names(countries.filter((c) => c.capital.some((name) => ["Pretoria", "La Paz", "Sucre"].includes(name)))),
    ]];
  },
  async "jsonb: the Japanese name of Finland"() {
    const found = must(await atlas.from("countries").select("name, japanese:translations->jpn->>common").eq("code", "FIN").single());
    return [found, { name: "Finland", japanese: of("FIN").translations.jpn.common }];
  },
  async "jsonb: whose French name begins with É"() {
    const found = must(await atlas.from("countries").select("name").like("translations->fra->>common", "É%"));
    return [sorted(found), names(countries.filter((c) => c.translations.fra?.common.startsWith("É")))];
  },
  async "jsonb: containment"() {
    const found = must(await atlas.from("countries").select("name").contains("translations", { deu: { common: "Schweiz" } }));
    return [sorted(found), names(countries.filter((c) => c.translations.deu?.common === "Schweiz"))];
  },
  async "embedding, to one: the region of a subregion"() {
    const found = must(await atlas.from("countries").select("name, subregions(name, regions(name))").eq("code", "PER").single());
    const { name, subregion, region } = of("PER");
    return [found, { name: name.common, subregions: { name: subregion, regions: { name: region } } }];
  },
  async "embedding, nested: subregions of Asia, their countries over two million square kilometres, and what is spoken there"() {
    const found = must(await atlas.from("regions").select("name, subregions(name, countries(name, languages(name)))").eq("name", "Asia")
      .gt("subregions.countries.area", 2_000_000).order("name", { referencedTable: "subregions" })
      .order("name", { referencedTable: "subregions.countries" })
      .order("name", { referencedTable: "subregions.countries.languages" }).single());
    const asia = countries.filter((c) => c.region === "Asia");
    const within = (subregion) => asia.filter((c) => c.subregion === subregion && c.area > 2_000_000)
      .map((c) => ({ name: c.name.common, languages: Object.values(c.languages).sort(byName).map((name) => ({ name })) }))
      .sort((a, b) => byName(a.name, b.name));
    const subregions = [...new Set(asia.map((c) => c.subregion))].sort(byName).map((name) => ({ name, countries: within(name) }));
    return [found, { name: "Asia", subregions }];
  },
  async "embedding, inner through two tables: regions with a country where Spanish is spoken"() {
    const found = must(await atlas.from("regions").select("name, countries!inner(languages!inner())").eq("countries.languages.code", "spa"));
    const spanish = countries.filter((c) => "spa" in c.languages).map((c) => c.region);
    return [sorted(found), [...new Set(spanish)].sort(byName)];
  },
  async "embedding, none: independent countries without a neighbour"() {
    const found = must(await atlas.from("countries").select("name, borders!borders_country_fkey()").is("borders", null).is("independent", true));
    return [sorted(found), names(countries.filter((c) => c.borders.length === 0 && c.independent))];
  },
  async "embedding, many to many: the languages of Switzerland"() {
    const found = must(await atlas.from("countries").select("name, languages(name)").eq("code", "CHE")
      .order("name", { referencedTable: "languages" }).single());
    return [found, { name: "Switzerland", languages: Object.values(of("CHE").languages).sort(byName).map((name) => ({ name })) }];
  },
  async "embedding, inner: where Portuguese is spoken"() {
    const found = must(await atlas.from("countries").select("name, languages!inner(code)").eq("languages.code", "por"));
    return [sorted(found), names(countries.filter((c) => "por" in c.languages))];
  },
  async "embedding, two ways to the same table: the neighbours of Austria"() {
    const found = must(await atlas.from("borders").select("...countries!borders_neighbour_fkey(name)").eq("country", "AUT"));
    return [sorted(found), names(of("AUT").borders.map(of))];
  },
  async "embedding, counted: currencies with the most countries"() {
    const found = must(await atlas.from("currencies").select("code, country_currencies(count)"));
    const most = found.map((c) => [c.code, c.country_currencies[0].count]).sort((a, b) => b[1] - a[1]).slice(0, 2);
    const counts = {};
    for (const code of countries.flatMap((c) => Object.keys(c.currencies))) counts[code] = (counts[code] ?? 0) + 1;
    return [most, Object.entries(counts).sort((a, b) => b[1] - a[1]).slice(0, 2)];
  },
  async "full-text search: in any of 25 languages"() {
    const found = must(await atlas.from("countries").select("name").textSearch("search", "Schweiz | Norvège | 日本", { config: "simple" }));
    return [sorted(found), names(countries.filter((c) => ["schweiz", "norvège", "日本"].some((word) => words(c).has(word))))];
  },
  async "full-text search: as people type"() {
    const found = must(await atlas.from("countries").select("name")
      .textSearch("search", "republic -democratic korea", { type: "websearch", config: "simple" }));
    const fits = (all) => all.has("republic") && all.has("korea") && !all.has("democratic");
    return [sorted(found), names(countries.filter((c) => fits(words(c))))];
  },
  async "rpc: the three countries nearest to a place in the Alps"() {
    const found = must(await atlas.rpc("nearest", { lat: 46.5, lng: 9.8 }).limit(3));
    const rad = Math.PI / 180;
    const distance = ([lat, lng]) => 2 * 6371 * Math.asin(Math.sqrt(Math.sin(((lat - 46.5) / 2) * rad) ** 2
      + Math.cos(46.5 * rad) * Math.cos(lat * rad) * Math.sin(((lng - 9.8) / 2) * rad) ** 2));
    const expected = countries.map((c) => ({ code: c.cca3, name: c.name.common, kilometres: Math.round(distance(c.latlng) * 10) / 10 }))
      .sort((a, b) => a.kilometres - b.kilometres || byName(a.code, b.code)).slice(0, 3);
    return [found, expected];
  },
  async "rpc: borders between Portugal and Vietnam, and to an island"() {
    const steps = (start, destination) => {
      let [edge, seen, count] = [[start], new Set([start]), 0];
      for (; edge.length && !seen.has(destination); count++) {
        edge = [...new Set(edge.flatMap((code) => of(code).borders))].filter((code) => !seen.has(code));
        edge.forEach((code) => seen.add(code));
      }
      return seen.has(destination) ? count : null;
    };
    const ask = async (start, destination) => must(await atlas.rpc("borders_between", { start, destination }));
    return [[await ask("PRT", "VNM"), await ask("PRT", "ISL")], [steps("PRT", "VNM"), steps("PRT", "ISL")]];
  },
  async "csv"() {
    const found = must(await atlas.from("countries").select("code, name").eq("subregion", "Micronesia").order("code").csv());
    const rows = countries.filter((c) => c.subregion === "Micronesia").sort((a, b) => byName(a.cca3, b.cca3));
    return [found, ["code,name", ...rows.map((c) => `${c.cca3},${/[\s,"]/.test(c.name.common) ? `"${c.name.common}"` : c.name.common}`)].join("\n")];
  },
  async "everything: all 250 countries come back as they went in"() {
    const found = must(await atlas.from("countries").select("code, translations, capitals, latitude, longitude, area").order("code"));
    const expected = [...countries].sort((a, b) => byName(a.cca3, b.cca3)).map((c) => ({ code: c.cca3,
      translations: c.translations, capitals: c.capital, latitude: c.latlng[0], longitude: c.latlng[1], area: c.area }));
    return [found, expected];
  },
  async "upsert: changes a row that is there, and adds none"() {
    const was = must(await atlas.from("languages").select().eq("code", "fin").single());
    const changed = must(await writer.from("languages").upsert({ code: "fin", name: "suomi" }).select().single());
    const kept = must(await writer.from("languages").upsert({ code: "fin", name: "x" }, { ignoreDuplicates: true }).select());
    must(await writer.from("languages").upsert(was, { onConflict: "code" }));
    const { count } = must(await atlas.from("languages").select("*", { count: "exact", head: true }));
    const codes = new Set(countries.flatMap((c) => Object.keys(c.languages)));
    return [{ was, changed, kept, count },
      { was: { code: "fin", name: of("FIN").languages.fin }, changed: { code: "fin", name: "suomi" }, kept: [], count: codes.size }];
  },
  async "policies: a visitor may not write"() {
    const { error } = await atlas.from("regions").insert({ name: "Atlantis" });
    return [error?.code, "42501"];
  },
};

let wrong = 0;
for (const [question, ask] of Object.entries(questions)) {
  try {
    const [found, expected] = await ask();
    deepStrictEqual(found, expected);
    console.log(`ok    ${question}`);
  } catch (fault) {
    wrong += 1;
    console.log(`WRONG ${question}\n${fault.message}`);
  }
}
console.log(`${Object.keys(questions).length} questions, ${wrong} wrong answers`);
process.exit(wrong ? 1 : 0);
