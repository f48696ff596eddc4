//! Drivers on the socket of the embedded database, whose one session they share: each sees what it would on a server of its own.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use ntier_tests::{Backend, Who, World, until};
use serde_json::json;

/// A connection, spoken to in PostgreSQL's protocol.
struct Driver {
    stream: UnixStream,
}

/// A message of the database: its kind and its body.
type Message = (char, Vec<u8>);

impl Driver {
    fn new(world: &World) -> Self {
        Self::with(world, &[]).unwrap()
    }

    /// With parameters at its start; gives why it was refused.
    fn with(world: &World, parameters: &[(&str, &str)]) -> Result<Self, String> {
        let driver = Self { stream: UnixStream::connect(world.data().join(".s.PGSQL.5432")).unwrap() };
        let mut body = b"\0\x03\0\0".to_vec();
        for (name, value) in [("user", "postgres"), ("database", "postgres")].iter().chain(parameters) {
            body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        body.push(0);
        driver.send("", &body);
        let answer = driver.answer();
        if answer.first().is_some_and(|(kind, _)| *kind == 'R') { Ok(driver) } else { Err(texts(&answer)) }
    }

    /// Sends one message; one without a kind is a startup packet.
    fn send(&self, kind: &str, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).unwrap();
        // It may have been sent away already.
        let _ = (&self.stream).write_all(&[kind.as_bytes(), &length.to_be_bytes(), body].concat());
    }

    fn parse(&self, name: &str, sql: &str) {
        self.send("P", format!("{name}\0{sql}\0\0\0").as_bytes());
    }

    /// Binds and executes.
    fn run(&self, name: &str) {
        self.send("B", format!("\0{name}\0\0\0\0\0\0\0").as_bytes());
        self.send("E", &[0; 5]);
    }

    fn sync(&self) -> Vec<Message> {
        self.send("S", b"");
        self.answer()
    }

    fn ask(&self, sql: &str) -> Vec<Message> {
        self.send("Q", format!("{sql}\0").as_bytes());
        self.answer()
    }

    fn next(&self) -> Option<Message> {
        let mut head = [0; 5];
        (&self.stream).read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; length as usize - 4];
        (&self.stream).read_exact(&mut body).ok()?;
        Some((head[0].into(), body))
    }

    /// Up to ReadyForQuery, or to the end.
    fn answer(&self) -> Vec<Message> {
        let mut answer = Vec::new();
        while let Some(message) = self.next() {
            answer.push(message);
            if answer.last().is_some_and(|(kind, _)| *kind == 'Z') {
                break;
            }
        }
        answer
    }
}

fn kinds(answer: &[Message]) -> String {
    answer.iter().map(|(kind, _)| kind).collect()
}

/// What stands in the messages, for people.
fn texts(answer: &[Message]) -> String {
    answer.iter().map(|(_, body)| String::from_utf8_lossy(body).replace('\0', " ")).collect::<Vec<_>>().join("|")
}

/// The one value of the one row.
fn value(answer: &[Message]) -> String {
    let (_, row) = answer.iter().find(|(kind, _)| *kind == 'D').unwrap_or_else(|| panic!("{}", texts(answer)));
    String::from_utf8_lossy(&row[6..]).into_owned()
}

/// Whoever notifies itself has heard of it when it may ask the next thing, or leave.
#[test]
fn notifications_come_before_the_end_of_the_answer() {
    let world = World::start(Backend::Embedded);
    let driver = Driver::new(&world);
    let ask = |sql: &str| kinds(&driver.ask(sql));
    assert_eq!(ask("begin; listen one"), "CCZ");
    assert_eq!(ask("notify one"), "CZ");
    assert_eq!(ask("commit"), "CAZ", "what a transaction listens to it hears at its end");
    assert_eq!(ask("listen two; notify two; select 1"), "CCTDCAZ");
    assert_eq!(ask("begin; listen three; rollback"), "CCCZ");
    assert_eq!(ask("notify three"), "CZ");
    assert_eq!(ask("unlisten one; notify one; notify two"), "CCCAZ");
}

#[test]
fn all_who_listen_hear() {
    let world = World::start(Backend::Embedded);
    let [one, other, says] = [(); 3].map(|()| Driver::new(&world));
    for driver in [&one, &other] {
        assert_eq!(kinds(&driver.ask("listen jobs")), "CZ");
    }
    assert_eq!(kinds(&says.ask("notify jobs, 'first'")), "CZ");
    assert!(texts(&[one.next().unwrap()]).contains("first"));
    assert!(texts(&[other.next().unwrap()]).contains("first"));
    assert_eq!(kinds(&one.ask("unlisten jobs")), "CZ");
    drop(one);
    assert_eq!(kinds(&says.ask("notify jobs, 'second'")), "CZ");
    assert!(texts(&[other.next().unwrap()]).contains("second"));
}

/// One driver throws everybody's statements away; nobody else notices, the node neither.
#[test]
fn statements_stay_when_another_deallocates_all() {
    let world = World::start(Backend::Embedded);
    let [keeps, clears] = [(); 2].map(|()| Driver::new(&world));
    keeps.ask("create schema apart; create table apart.things as select 7 as x; set search_path = apart");
    keeps.parse("s", "select x from things");
    assert_eq!(kinds(&keeps.sync()), "1Z");
    let films = |count: usize| {
        std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| {
                    let film = json!({ "title": "Stalker", "year": 1979 });
                    let ask = world.ask(&Who::Service, "POST /films").header("prefer", "return=minimal");
                    let answer = ask.json(&film).send();
                    assert_eq!(answer.status, 201, "{}", answer.text());
                });
            }
        });
    };
    let file = |name: &str| {
        let ask = world.files(&Who::Service, &format!("POST /object/bucket/{name}"));
        ask.body("text/plain", "a").send().status
    };
    assert_eq!(world.files(&Who::Service, "POST /bucket").json(&json!({ "name": "bucket" })).send().status, 200);
    // What comes for the third time is prepared.
    for round in 0..3 {
        films(24);
        assert_eq!(file(&format!("before {round}")), 200);
    }
    for all in ["deallocate all", "discard all", "begin; deallocate all; commit"] {
        assert!(!kinds(&clears.ask(all)).contains('E'), "{all}");
        keeps.run("s");
        assert_eq!(value(&keeps.sync()), "7", "{all}");
        films(24);
        films(24);
        assert_eq!(file(&format!("after {all}").replace(';', "")), 200, "{all}");
    }
    assert_eq!(world.sql("select count(*)::int as n from films where title = 'Stalker'"), json!([{ "n": 9 * 24 }]));
    // Libraries that know no Close deallocate by SQL, by the name that they know.
    keeps.ask("deallocate s");
    keeps.parse("s", "select x + 1 from things");
    keeps.run("s");
    assert_eq!(value(&keeps.sync()), "8");
}

#[test]
fn the_statement_without_a_name_is_ones_own() {
    let world = World::start(Backend::Embedded);
    let [one, other] = [(); 2].map(|()| Driver::new(&world));
    one.parse("", "select 'mine'");
    one.sync();
    other.parse("", "select 'other'");
    other.sync();
    assert_eq!(world.get("/films?select=id&id=eq.1").json(), json!([{ "id": 1 }]));
    for (driver, expected) in [(&one, "mine"), (&other, "other"), (&one, "mine")] {
        driver.run("");
        assert_eq!(value(&driver.sync()), expected);
    }
    one.ask("select 1");
    one.run("");
    assert!(texts(&one.sync()).contains("26000"), "a query has taken its place");
}

/// What no server would end for, ends nobody else's connection.
#[test]
fn what_one_does_ends_nobody_else() {
    let world = World::start(Backend::Embedded);
    let engine = world.node.engine();
    let stays = Driver::new(&world);
    stays.ask("create table t (x int); listen nothing");
    let leaves = |write: &dyn Fn(&Driver)| {
        let driver = Driver::new(&world);
        write(&driver);
        driver.send("X", b"");
        let answer = driver.answer();
        assert_eq!(value(&stays.ask("select count(*) from t")), "0");
        texts(&answer)
    };
    leaves(&|driver| {
        driver.parse("", "insert into t values (1)");
        driver.run("");
    });
    leaves(&|driver| driver.send("c", b""));
    leaves(&|driver| {
        // Nothing before the Sync that a Flush is followed by is kept.
        driver.parse("", "insert into t values (2)");
        driver.run("");
        driver.send("H", b"");
        while driver.next().is_some_and(|(kind, _)| kind != 'C') {}
    });
    for sql in ["copy t from stdin", "/* a */ copy t from stdin", "copy t from stdin; copy t from stdin"] {
        leaves(&|driver| {
            driver.send("Q", format!("{sql}\0").as_bytes());
            assert_eq!(driver.next().map(|(kind, _)| kind), Some('G'), "{sql}");
        });
    }
    let twice = leaves(&|driver| {
        driver.send("Q", b"copy t from stdin; copy t from stdin\0");
        driver.send("c", b"");
    });
    assert!(twice.contains("must be the only statement"), "{twice}");
    for (kind, length) in [("p", 4), ("!", 4), ("D", 20_000), ("Q", 3)] {
        let driver = Driver::new(&world);
        let _ = (&driver.stream).write_all(&[kind.as_bytes(), &u32::to_be_bytes(length)].concat());
        assert!(texts(&driver.answer()).contains("08P01"), "{kind}");
    }
    let (code, _, told) =
        ntier_tests::node::run(&["sql", "--data", &world.data().to_string_lossy(), "begin; copy t from stdin"]);
    assert!(code != Some(0) && told.contains("COPY"), "{told}");
    assert_eq!(value(&stays.ask("select count(*) from t")), "0");
    assert_eq!(world.get("/films?select=id&id=eq.1").json(), json!([{ "id": 1 }]));
    assert_eq!(world.node.engine(), engine, "it is the same process");
}

/// To prepare now and run later is no transaction that others have to wait for.
#[test]
fn nobody_waits_for_what_is_prepared() {
    let world = World::start(Backend::Embedded);
    let driver = Driver::new(&world);
    for name in ["", "s"] {
        driver.parse(name, "select 42");
        driver.send("D", format!("S{name}\0").as_bytes());
        driver.send("H", b"");
        let answer: Vec<Message> = (0..3).map_while(|_| driver.next()).collect();
        assert_eq!(kinds(&answer), "1tT");
        // It would be sent away after a while, and could not go on.
        for _ in 0..3 {
            assert_eq!(world.get("/films?select=id&id=eq.1").json(), json!([{ "id": 1 }]));
        }
        driver.run(name);
        assert_eq!(value(&driver.sync()), "42");
    }
}

#[test]
fn a_start_may_set_parameters() {
    let world = World::start(Backend::Embedded);
    let options = "-c search_path=pg_catalog -c default_transaction_read_only=on --app.name=two\\ words";
    let driver = Driver::with(&world, &[("options", options), ("TimeZone", "Asia/Tokyo")]).unwrap();
    let other = Driver::new(&world);
    for _ in 0..2 {
        for (name, expected, of_others) in [
            ("search_path", "pg_catalog", "\"$user\", public"),
            ("TimeZone", "Asia/Tokyo", "Etc/UTC"),
            ("app.name", "two words", ""),
        ] {
            let question = format!("select current_setting('{name}', true)");
            assert_eq!(value(&driver.ask(&question)), expected);
            let theirs = value(&other.ask(&question));
            assert!(theirs != expected && (theirs == of_others || name == "TimeZone"), "{name} {theirs}");
        }
    }
    assert!(texts(&driver.ask("create table public.t (x int)")).contains("25006"), "it only reads");
    for (name, value) in [("nonsense", "1"), ("work_mem", "much")] {
        let told = Driver::with(&world, &[(name, value)]).err().unwrap();
        assert!(told.contains(name), "{told}");
    }
    other.ask("alter database postgres set app.place = 'home'; alter role anon set app.place = 'away'");
    for (user, expected) in [("postgres", "home"), ("anon", "away")] {
        let driver = Driver::with(&world, &[("user", user)]).unwrap();
        assert_eq!(value(&driver.ask("show app.place")), expected);
    }
}

#[test]
fn an_applications_settings_are_its_own() {
    let world = World::start(Backend::Embedded);
    let [one, other] = [(); 2].map(|()| Driver::new(&world));
    one.ask("set app.tenant = 'one'; select set_config('app.user', 'ada', false)");
    other.ask("set session app.tenant to 'other'");
    for _ in 0..2 {
        assert_eq!(value(&one.ask("select current_setting('app.tenant') || current_setting('app.user')")), "oneada");
        assert_eq!(value(&other.ask("show app.tenant")), "other");
        assert_eq!(world.get("/films?select=id&id=eq.1").status, 200);
    }
}

/// A long answer that is on its way holds up its own client, and what that has asked meanwhile.
#[test]
fn nothing_is_done_twice_behind_a_long_answer() {
    let world = World::start_with(Backend::Embedded, &["--api-timeout", "2s"]);
    world.sql(
        "create table kept (x int);
         create function keep(x int) returns int language sql as 'insert into kept values (x) returning x';
         create function doze(seconds float) returns text language sql volatile as 'select pg_sleep(seconds)::text';
         create function much() returns text language sql volatile as $$ select repeat('x', 5000000) $$;
         grant insert, select on kept to anon",
    );
    world.reload();
    let call = |function: &str, arguments: serde_json::Value| {
        world.ask(&Who::Anon, &format!("POST /rpc/{function}")).json(&arguments).send().status
    };
    let mut acknowledged = VecDeque::new();
    for round in 0..3 {
        std::thread::scope(|scope| {
            let mut asks = vec![scope.spawn(|| (None, call("doze", json!({ "seconds": 0.5 }))))];
            asks.push(scope.spawn(|| (None, call("much", json!({})))));
            asks.extend((0..6).map(|one| {
                let number = round * 10 + one;
                scope.spawn(move || (Some(number), call("keep", json!({ "x": number }))))
            }));
            asks.push(scope.spawn(|| (None, call("doze", json!({ "seconds": 30 })))));
            acknowledged.extend(asks.into_iter().map(|ask| ask.join().unwrap()));
        });
        until("it is back", || world.get("/films?select=id&id=eq.1").status == 200);
    }
    let kept = world.sql("select x, count(*)::int as n from kept group by x");
    let kept: Vec<_> = kept.as_array().unwrap().iter().map(|row| (row["x"].as_i64(), row["n"].as_i64())).collect();
    assert!(kept.iter().all(|(_, times)| *times == Some(1)), "{kept:?}");
    for (number, _) in acknowledged.iter().filter(|(number, status)| number.is_some() && *status == 200) {
        assert!(kept.iter().any(|(x, _)| x == number), "{number:?} was acknowledged");
    }
}
