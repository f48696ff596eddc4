//! `ntier status`: whether a node runs here, where, and what its database holds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use clap::ArgMatches;
use ntier::project::migrate;
use ntier::settings::{Loaded, Mode};
use ntier::{server, whereabouts};
use ntier_backing::database::Database;
use serde_json::{Value, json};

use crate::arguments;
use crate::failure::Failure;
use crate::progress::Progress;

pub async fn run(flags: &ArgMatches) -> Result<(), Failure> {
    let Loaded { settings, project, .. } = arguments::settings(flags, Mode::Serve)?;
    let node =
        whereabouts::read(&settings.data).map(|said| (ask(&said.url), said)).filter(|(ready, _)| *ready != Ready::No);
    let known = settings.database.is_some() || settings.data.join("cluster").is_dir();
    let (mut facts, mut pending) = (Value::Null, Vec::new());
    if known {
        let progress = Progress::new();
        let database = server::visit(&settings, std::env::current_exe()?, &|step| progress.observe(step)).await?;
        drop(progress);
        let asked = facts_of(&database).await;
        let list = migrate::status(&database, &project).await;
        database.close().await;
        facts = asked?;
        pending = list?.into_iter().filter(|status| !status.applied).filter_map(|status| status.file).collect();
    }
    let status = json!({
        "node": node.as_ref().map(|(ready, said)| json!({
            "url": said.url, "process": said.process, "ready": *ready == Ready::Yes,
        })),
        "data": settings.data,
        "embedded": settings.database.is_none(),
        "database": facts,
        "pending_migrations": pending,
    });
    if flags.get_flag("json") {
        println!("{status:#}");
    } else {
        show(&status);
    }
    Ok(())
}

async fn facts_of(database: &Database) -> Result<Value, Failure> {
    let sql = "select jsonb_build_object('version', current_setting('server_version'), \
        'bytes', pg_database_size(current_database()), \
        'tables', (select count(*) from pg_class where relkind in ('r', 'p') and relnamespace::regnamespace::text not in \
        ('pg_catalog', 'information_schema')))";
    let answer = database.simple(sql).await?;
    let text = answer.first().and_then(|rows| rows.rows.first()).and_then(|row| row.text(0));
    Ok(serde_json::from_str(text.unwrap_or("null"))?)
}

fn show(status: &Value) {
    let node = &status["node"];
    match node["url"].as_str() {
        Some(url) => {
            let ready = if node["ready"] == true { "ready" } else { "its database does not answer" };
            println!("node       {url}, process {}, {ready}", node["process"]);
        }
        None => println!("node       none runs here"),
    }
    println!("data       {}", status["data"].as_str().unwrap_or_default());
    let facts = &status["database"];
    if facts.is_null() {
        println!("database   none yet: `ntier dev` or `ntier serve` makes one");
    } else {
        let kind = if status["embedded"] == true { "embedded" } else { "server" };
        let size = facts["bytes"].as_f64().unwrap_or_default() / f64::from(1 << 20);
        let version = facts["version"].as_str().unwrap_or_default();
        println!("database   PostgreSQL {version} ({kind}), {size:.1} MB, {} tables", facts["tables"]);
    }
    let pending = status["pending_migrations"].as_array().map(Vec::as_slice).unwrap_or_default();
    match pending {
        [] => println!("migrations none is pending"),
        list => {
            println!("migrations {} pending:", list.len());
            for file in list {
                println!("           {}", file.as_str().unwrap_or_default());
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Yes,
    /// It answers, but its database does not.
    Live,
    No,
}

/// Asks the node itself; HTTP/1.0 needs no more than a line there and a line back.
fn ask(url: &str) -> Ready {
    let status = || -> std::io::Result<String> {
        let address = url.trim_start_matches("http://").parse().map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(b"GET /ready HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
        let mut line = [0; 12];
        stream.read_exact(&mut line)?;
        Ok(String::from_utf8_lossy(&line).into_owned())
    };
    match status() {
        Ok(line) if line.ends_with("200") => Ready::Yes,
        Ok(_) => Ready::Live,
        Err(_) => Ready::No,
    }
}
