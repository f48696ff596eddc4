//! Earlier broadcasts of a private channel, for whoever joins it and asks for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ntier_backing::database::{Access, Batch, Database, Row, Statement};
use ntier_protocol::realtime::error::Refusal;
use ntier_protocol::realtime::join::Replay;
use ntier_protocol::realtime::message::{Content, Json};
use tokio::time::timeout;

use crate::authorize::PATIENCE;

pub struct Earlier {
    pub id: String,
    pub event: String,
    pub content: Content,
}

/// The latest since then, the oldest of them first, and not more than `most` bytes.
pub async fn read(database: &Database, name: &str, replay: Replay, most: usize) -> Result<Vec<Earlier>, Refusal> {
    let Replay::Since { milliseconds, limit } = replay else { return Err(Refusal::InvalidReplay) };
    // By the index on (inserted_at desc, topic). Partitions of days to come are empty and not looked into.
    let select = Statement::new(
        "select id, event, payload, pg_catalog.translate(pg_catalog.encode(binary_payload, 'base64'), e'\\n', '') \
         from realtime.messages \
         where topic = $1 and extension = 'broadcast' and private is true \
           and inserted_at >= timestamp '1970-01-01' + $2::bigint * interval '1 millisecond' \
           and inserted_at < (pg_catalog.now() at time zone 'utc') + interval '1 minute' \
         order by inserted_at desc limit $3::bigint",
        &[name, &milliseconds.to_string(), &limit.to_string()],
    );
    let batch = Batch { statements: vec![select], access: Access::ReadOnly, deadline: PATIENCE, ..Batch::default() };
    let failed = || Refusal::ReplayFailed;
    let answer = timeout(PATIENCE, database.run(batch)).await.map_err(|_| failed())?.map_err(|_| failed())?;
    let rows = answer.results.into_iter().next().unwrap_or_default().rows;
    let mut bytes = 0;
    let latest = rows.iter().filter_map(earlier).take_while(|earlier| {
        bytes += earlier.content.len();
        bytes <= most
    });
    let mut earlier: Vec<_> = latest.collect();
    earlier.reverse();
    Ok(earlier)
}

fn earlier(row: &Row) -> Option<Earlier> {
    let content = match (row.bytes(2), row.text(3)) {
        (Some(json), _) => Content::Json(Json::read(&json)?),
        (None, Some(base64)) => Content::Binary(Bytes::from(STANDARD.decode(base64).ok()?)),
        // An absent payload is null to whoever hears it live, too.
        (None, None) => Content::Json(Json::read(&Bytes::from_static(b"null"))?),
    };
    Some(Earlier { id: row.text(0)?.to_owned(), event: row.text(1).unwrap_or_default().to_owned(), content })
}
