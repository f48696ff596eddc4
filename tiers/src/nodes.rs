//! The nodes of one database, as balancers find them: each says where it is, gives a sign of life every second, says that it leaves, and is
//! forgotten.

use std::time::Duration;

use ntier_backing::database::{self, Access, Batch, Database, Statement, Target};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::database::visitor;

/// Between two signs of life, and between two looks for those of others.
const PACE: Duration = Duration::from_secs(1);

/// A node that says where it is, until it is told that it leaves or is dropped.
#[derive(Debug)]
pub struct Advertised {
    database: Database,
    id: String,
    living: JoinHandle<()>,
}

impl Advertised {
    /// Says it, and goes on saying it. `url` is where balancers reach the node.
    pub async fn begin(database: Database, url: String) -> Result<Self, database::Error> {
        let random = ntier_security::keys::random(16);
        let id = random.map_err(|cause| database::Error::Unavailable(cause.to_string()))?;
        tell(&database, &id, &url).await?;
        let living = tokio::spawn(live(database.clone(), id.clone(), url));
        Ok(Self { database, id, living })
    }

    /// Says that it takes nothing new. Where that cannot be said, balancers see it by themselves.
    pub async fn leave(&self) {
        self.living.abort();
        let text = "update ntier.nodes set is_leaving = true, seen_at = clock_timestamp() where id = $1";
        let _ = run(&self.database, Statement::new(text, &[&self.id])).await;
    }

    /// Takes it back.
    pub async fn end(self) {
        self.living.abort();
        let _ = run(&self.database, Statement::new("delete from ntier.nodes where id = $1", &[&self.id])).await;
    }
}

impl Drop for Advertised {
    fn drop(&mut self) {
        self.living.abort();
    }
}

async fn live(database: Database, id: String, url: String) {
    loop {
        sleep(PACE).await;
        // While the database is away nobody can say anything, and nobody is missed.
        let _ = tell(&database, &id, &url).await;
    }
}

async fn tell(database: &Database, id: &str, url: &str) -> Result<(), database::Error> {
    let told = "insert into ntier.nodes (id, url, version) values ($1, $2, $3) \
                on conflict (id) do update set seen_at = clock_timestamp()";
    let batch = Batch {
        statements: vec![
            Statement::new(told, &[id, url, env!("CARGO_PKG_VERSION")]),
            // Of those who were killed.
            Statement::new("delete from ntier.nodes where seen_at < clock_timestamp() - interval '1 minute'", &[]),
        ],
        ..Batch::default()
    };
    database.run(batch).await.map(drop)
}

async fn run(database: &Database, statement: Statement) -> Result<(), database::Error> {
    let batch = Batch { statements: vec![statement], deadline: Duration::from_secs(2), ..Batch::default() };
    database.run(batch).await.map(drop)
}

/// A node that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub id: String,
    pub url: String,
    /// It answers what it has, and is to be given nothing new.
    pub is_leaving: bool,
}

/// The nodes that give signs of life, in the order of their addresses. Those are compared with each other's and not with the clock: when the
/// database was away, all are as old.
pub async fn known(database: &Database) -> Result<Vec<Known>, database::Error> {
    let text = "select id, url, is_leaving from ntier.nodes \
                where seen_at > (select max(seen_at) from ntier.nodes) - interval '5 seconds' order by url, id";
    let batch = Batch {
        statements: vec![Statement::new(text, &[])],
        access: Access::ReadOnly,
        deadline: Duration::from_secs(5),
        ..Batch::default()
    };
    let answer = database.run(batch).await?;
    let rows = answer.results.first().map(|rows| rows.rows.as_slice()).unwrap_or_default();
    let known = |row: &database::Row| {
        let text = |column| row.text(column).map(str::to_owned);
        Some(Known { id: text(0)?, url: text(1)?, is_leaving: row.text(2)? == "t" })
    };
    Ok(rows.iter().filter_map(known).collect())
}

/// Looks for them as long as somebody wants to know, from the first time on at which the database is there. While it is away, those stay known
/// that were.
pub fn follow(target: Target) -> watch::Receiver<Vec<Known>> {
    let (told, receiver) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut database = None;
        while !told.is_closed() {
            if database.is_none() {
                database = Database::open(target.clone(), visitor()).await.ok();
            }
            let seen = match &database {
                Some(database) => known(database).await.ok(),
                None => None,
            };
            if let Some(seen) = seen {
                told.send_if_modified(|before| {
                    let is_new = *before != seen;
                    *before = seen;
                    is_new
                });
            }
            sleep(PACE).await;
        }
        if let Some(database) = database {
            database.close().await;
        }
    });
    receiver
}
