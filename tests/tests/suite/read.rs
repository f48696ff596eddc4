//! Reading: select lists, filters, order, ranges, counts, formats.

use ntier_tests::{Who, World, on_both};
use serde_json::{Value, json};

on_both!(select_lists, filters, order_and_ranges, counts, formats, embedding, every_type);

/// Each path answers with these rows.
fn check(world: &World, cases: &[(&str, Value)]) {
    for (path, expected) in cases {
        let answer = world.get(path);
        assert!(answer.status == 200 || answer.status == 206, "{path}: {} {}", answer.status, answer.text());
        assert_eq!(answer.json(), *expected, "{path}");
    }
}

fn select_lists(world: &mut World) {
    check(
        world,
        &[
            ("/films?select=id,title&id=eq.1", json!([{"id": 1, "title": "Metropolis"}])),
            ("/films?select=name:title&id=eq.2", json!([{"name": "M"}])),
            ("/films?select=id::text,year::text&id=eq.2", json!([{"id": "2", "year": "1931"}])),
            ("/films?select=details->score->>imdb&id=eq.4", json!([{"imdb": "8.5"}])),
            ("/films?select=c:details->cast->>0&id=eq.1", json!([{"c": "Maria"}])),
            ("/films?select=tags->0&id=eq.3", json!([{"tags": "robots"}])),
            ("/old_films?select=title&order=id", json!([{"title": "Metropolis"}, {"title": "M"}, {"title": "Alien"}])),
            ("/directors?id=eq.3", json!([{"id": 3, "name": "Nobody", "born": null}])),
            ("/rpc/films_since?since=1982&select=title&order=id&limit=1", json!([{"title": "Blade Runner"}])),
        ],
    );
    assert_eq!(world.get("/films?select=nope").code(), "42703");
    assert_eq!(world.get("/films?select=id,").code(), "PGRST100");
    assert_eq!(world.get("/secrets").code(), "42501");
}

fn filters(world: &mut World) {
    let ids = |filter: &str| -> Vec<i64> {
        let answer = world.get(&format!("/films?select=id&order=id&{filter}"));
        assert_eq!(answer.status, 200, "{filter}: {}", answer.text());
        answer.json().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
    };
    for (filter, expected) in [
        ("year=eq.1931", &[2][..]),
        ("year=neq.1931", &[1, 3, 4, 5]),
        ("year=gt.1979", &[3, 5]),
        ("year=gte.1979", &[3, 4, 5]),
        ("year=lt.1931", &[1]),
        ("year=lte.1931", &[1, 2]),
        ("title=like.*un*", &[3, 5]),
        ("title=ilike.m*", &[1, 2]),
        ("title=match.^M", &[1, 2]),
        ("title=imatch.^m", &[1, 2]),
        ("title=in.(M,\"Running \\\"Wild\\\", (again)\")", &[2, 5]),
        ("title=in.()", &[]),
        ("rating=is.null", &[5]),
        ("rating=not.is.null", &[1, 2, 3, 4]),
        ("rating=isdistinct.8.3", &[3, 4, 5]),
        ("tags=cs.{robots}", &[1, 3]),
        ("tags=cd.{robots,silent,noir}", &[1, 3, 5]),
        ("tags=ov.{crime,space}", &[2, 4]),
        ("details=cs.{\"country\":\"us\"}", &[3, 4]),
        ("details->>country=eq.de", &[1, 2]),
        ("details->score->imdb=gt.8.3", &[4]),
        ("shown=sl.[1931,1990)", &[1]),
        ("shown=sr.[1900,1935)", &[3]),
        ("shown=nxl.[1931,1935)", &[2, 3]),
        ("shown=nxr.[1931,1935)", &[1, 2]),
        ("shown=adj.[1930,1931)", &[1, 2]),
        ("shown=cs.[1983,1984)", &[3]),
        ("search=fts.runner", &[3]),
        ("search=plfts(english).blade runner", &[3]),
        ("search=phfts.blade runner", &[3]),
        ("search=wfts.runner or alien", &[3, 4]),
        ("search=not.fts.run", &[1, 2, 3, 4]),
        ("or=(year.lt.1930,and(year.gt.1980,title.like.B*))", &[1, 3]),
        ("and=(year.gt.1920,year.lt.1980,title.not.eq.M)", &[1, 4]),
        ("not.or=(year.lt.1980,rating.is.null)", &[3]),
        ("year=eq(any).{1927,1979}", &[1, 4]),
        ("title=like(any).{M*,A*}", &[1, 2, 4]),
        ("title=ilike(all).{*a*,*n*}", &[3, 4, 5]),
        ("year=gt.1930&year=lt.1980", &[2, 4]),
    ] {
        assert_eq!(ids(filter), expected, "{filter}");
    }
    assert_eq!(world.get("/films?year=foo.1").code(), "PGRST100");
    assert_eq!(world.get("/films?year=eq.abc").code(), "22P02");
    assert_eq!(world.get("/films?nope=eq.1").code(), "42703");
}

fn order_and_ranges(world: &mut World) {
    check(
        world,
        &[
            (
                "/films?select=id&order=rating.desc.nullslast,id.desc",
                json!([{"id":4},{"id":2},{"id":1},{"id":3},{"id":5}]),
            ),
            ("/films?select=id&order=rating.nullsfirst,id", json!([{"id":5},{"id":3},{"id":1},{"id":2},{"id":4}])),
            ("/films?select=id&order=details->>country.desc.nullslast,id&limit=2", json!([{"id":3},{"id":4}])),
            ("/films?select=id&order=id&limit=2&offset=1", json!([{"id":2},{"id":3}])),
            ("/films?select=id&order=id&limit=0", json!([])),
        ],
    );
    let ranged = world.ask(&Who::Anon, "GET /films?select=id&order=id").header("range", "1-2").send();
    assert_eq!((ranged.status, ranged.json()), (200, json!([{"id": 2}, {"id": 3}])));
    assert_eq!(ranged.header("content-range"), Some("1-2/*"));
    let counted = world.ask(&Who::Anon, "GET /films?select=id").header("range", "10-20").prefer("count=exact").send();
    assert_eq!((counted.status, counted.code().as_str()), (416, "PGRST103"));
}

fn counts(world: &mut World) {
    for (how, status) in [("exact", 206), ("planned", 206), ("estimated", 206)] {
        let answer = world.ask(&Who::Anon, "GET /films?select=id&limit=2").prefer(&format!("count={how}")).send();
        let range = answer.header("content-range").unwrap_or_default().to_owned();
        assert!(range.starts_with("0-1/") && !range.ends_with('*'), "{how}: {range}");
        if how == "exact" {
            assert_eq!((answer.status, range.as_str()), (status, "0-1/5"));
        }
    }
    let head = world.ask(&Who::Anon, "HEAD /films").prefer("count=exact").send();
    assert_eq!((head.status, head.header("content-range"), head.body.len()), (200, Some("0-4/5"), 0));
}

fn formats(world: &mut World) {
    let ask = |path: &str, accept: &str| world.ask(&Who::Anon, path).header("accept", accept).send();
    let one = ask("GET /films?select=id,title&id=eq.2", "application/vnd.pgrst.object+json");
    assert_eq!(one.json(), json!({"id": 2, "title": "M"}));
    assert_eq!(one.header("content-type"), Some("application/vnd.pgrst.object+json; charset=utf-8"));
    let many = ask("GET /films?select=id", "application/vnd.pgrst.object+json");
    assert_eq!((many.status, many.code().as_str()), (406, "PGRST116"));
    let csv = ask("GET /films?select=id,title&id=in.(2,5)&order=id", "text/csv");
    assert_eq!(csv.text(), "id,title\n2,M\n5,\"Running \"\"Wild\"\", (again)\"");
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(ask("GET /films", "image/png").status, 406);
    let stripped = ask("GET /directors?id=eq.3", "application/vnd.pgrst.array+json;nulls=stripped");
    assert_eq!(stripped.json(), json!([{"id": 3, "name": "Nobody"}]));
    let root = world.ask(&Who::Service, "GET /").send();
    assert_eq!((root.status, &root.json()["swagger"]), (200, &json!("2.0")));
    let options = world.ask(&Who::Anon, "OPTIONS /films").send();
    assert_eq!(options.status, 200);
    assert_eq!(options.header("allow"), Some("OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE"));
    let archive = world.ask(&Who::Anon, "GET /films?select=title").header("accept-profile", "archive").send();
    assert_eq!(archive.json(), json!([{"title": "Roundhay Garden Scene"}]));
    let nowhere = world.ask(&Who::Anon, "GET /films").header("accept-profile", "nowhere").send();
    assert_eq!((nowhere.status, nowhere.code().as_str()), (406, "PGRST106"));
}

fn embedding(world: &mut World) {
    check(
        world,
        &[
            (
                "/films?select=title,directors(name)&id=eq.1",
                json!([{"title": "Metropolis", "directors": {"name": "Fritz Lang"}}]),
            ),
            (
                "/directors?select=name,films(title)&films.order=year.desc&id=lte.2&order=id",
                json!([
                    {"name": "Fritz Lang", "films": [{"title": "M"}, {"title": "Metropolis"}]},
                    {"name": "Ridley Scott", "films": [{"title": "Blade Runner"}, {"title": "Alien"}]},
                ]),
            ),
            (
                "/films?select=title,actors(name)&id=eq.3&actors.order=id",
                json!([{"title": "Blade Runner", "actors": [{"name": "Harrison Ford"}, {"name": "Rutger Hauer"}]}]),
            ),
            (
                "/films?select=title,roles(character,actors(name))&id=eq.1",
                json!([{"title": "Metropolis", "roles": [{"character": "Maria", "actors": {"name": "Brigitte Helm"}}]}]),
            ),
            ("/films?select=title,facts(minutes)&id=eq.2", json!([{"title": "M", "facts": null}])),
            (
                "/films?select=title,facts!inner(minutes)&order=id",
                json!([
                    {"title": "Metropolis", "facts": {"minutes": 153}},
                    {"title": "Blade Runner", "facts": {"minutes": 117}},
                ]),
            ),
            (
                "/films?select=title,...directors(director:name)&id=eq.4",
                json!([{"title": "Alien", "director": "Ridley Scott"}]),
            ),
            (
                "/directors?select=name,films!inner(title)&films.title=eq.M",
                json!([{"name": "Fritz Lang", "films": [{"title": "M"}]}]),
            ),
            (
                "/directors?select=name,films(title)&films.title=eq.M&id=eq.2",
                json!([{"name": "Ridley Scott", "films": []}]),
            ),
            ("/directors?select=name,films()&films=not.is.null&films.title=eq.M", json!([{"name": "Fritz Lang"}])),
            (
                "/directors?select=name,films(title)&films.limit=1&films.order=id&id=eq.1",
                json!([{"name": "Fritz Lang", "films": [{"title": "Metropolis"}]}]),
            ),
            (
                "/films?select=title,directors(born)&order=directors(born).desc.nullslast,id&limit=1",
                json!([{"title": "Blade Runner", "directors": {"born": 1937}}]),
            ),
            (
                "/films?select=title,directors()&order=directors(born).desc.nullslast,id&limit=1",
                json!([{"title": "Blade Runner"}]),
            ),
            (
                "/letters?select=sender:actors!letters_sender(name)&id=eq.1",
                json!([{"sender": {"name": "Harrison Ford"}}]),
            ),
            ("/letters?select=recipient_id(name)&id=eq.1", json!([{"recipient_id": {"name": "Rutger Hauer"}}])),
            (
                "/films?select=director:directors(name),id&director.name=eq.Nobody&id=eq.1",
                json!([{"director": null, "id": 1}]),
            ),
        ],
    );
    let ambiguous = world.get("/letters?select=actors(name)");
    assert_eq!((ambiguous.status, ambiguous.code().as_str()), (300, "PGRST201"));
    let unrelated = world.get("/films?select=notes(body)");
    assert_eq!((unrelated.status, unrelated.code().as_str()), (400, "PGRST200"));
}

/// Rows become JSON in two ways: here, or in PostgreSQL where it has to count them too. Nobody may see a difference.
fn every_type(world: &mut World) {
    for path in [
        "/everything?order=id",
        "/everything?select=*,again:words&order=id",
        "/everything?select=id,n:fixed::text,tree->a,b:tree->a->>0&order=id",
        "/everything?select=instant::date,day::timestamp&order=id",
        "/moods",
        "/films?select=*,directors(*),roles(character)&order=id",
        "/films?select=title,year,rating,released,shown,search,details&order=id",
        "/films?id=eq.77777",
    ] {
        for (accept, narrow) in [("application/json", ""), ("application/vnd.pgrst.object+json", "&limit=1")] {
            let ask = |prefer: &str| {
                let path = format!("GET {path}{narrow}");
                world.ask(&Who::Anon, &path).header("accept", accept).prefer(prefer).send()
            };
            let (here, there) = (ask("return=representation"), ask("count=exact"));
            assert_eq!(here.text(), there.text(), "{path} {accept}");
        }
    }
    let zoned = world.ask(&Who::Anon, "GET /everything?select=instant&id=eq.1").prefer("timezone=Asia/Kolkata").send();
    assert_eq!(zoned.json(), json!([{"instant": "2026-11-21T03:04:05.678+05:30"}]));
    world.set_role("anon", "set datestyle = 'German'");
    world.reload();
    let styled = world.get("/everything?select=day,instant&id=eq.1").json();
    assert_eq!(styled, json!([{"day": "2026-11-21", "instant": "2026-11-20T21:34:05.678+00:00"}]));
    // A column of a type that the catalog did not know yet.
    world.sql("alter table everything add column list int[] default '{1,2}'");
    assert_eq!(world.get("/everything?id=eq.3").json()[0]["list"], json!([1, 2]));
    // A function that speaks of the response is heard.
    world.sql("create function teapot(films) returns text language sql volatile as $$ select set_config('response.status', '418', true) $$;
        grant execute on function teapot(films) to anon");
    world.reload();
    assert_eq!(world.get("/films?select=title,teapot&limit=1").status, 418);
}
