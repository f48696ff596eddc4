//! Refresh tokens that a dump of a Supabase project has brought: whoever has one goes on with the session.

use ntier_backing::database::{Database, Statement};
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::user::Session;
use ntier_security::legacy_refresh::{self, Facts};
use ntier_security::refresh::Decision;
use uuid::Uuid;

use crate::error::Error;
use crate::store::{self, sql};
use crate::token::{contended, facts, refused, unknown};
use crate::visitor::Visitor;
use crate::{ATTEMPTS, Auth, now};

impl Auth {
    /// Exchanges a token of the older kind for a sealed one.
    pub(crate) async fn exchange(&self, visitor: &Visitor, token: &str) -> Result<Session, Error> {
        if !legacy_refresh::is_token(token) {
            return Err(unknown());
        }
        for _ in 0..ATTEMPTS {
            let old = find(&self.database, token).await?.ok_or_else(unknown)?;
            let session = old.session.ok_or_else(no_session)?;
            let found = store::session(&self.database, &session.to_string()).await?.ok_or_else(no_session)?;
            if found.counter != old.counter {
                // The session was refreshed between the two reads.
                continue;
            }
            let counter = match legacy_refresh::decide(&old.facts, &facts(&found), &self.settings.refresh, now()) {
                Decision::Repeat => found.counter,
                Decision::Rotate => match self.rotate(&session, &found, visitor, vec![spend(&old, &session)]).await {
                    // Another request with a token of this session was a moment faster.
                    Err(Error::Changed(_)) => continue,
                    rotated => rotated?,
                },
                Decision::Revoke => return self.revoke(&session, &found, visitor).await,
                Decision::Refuse(refusal) => return Err(refused(refusal).into()),
            };
            return self.session(&session, counter, found).await;
        }
        Err(contended())
    }
}

/// A token of the older kind.
#[derive(Debug)]
struct Old {
    id: String,
    session: Option<Uuid>,
    /// The session's number, which each exchange raises: while it stays, so do the facts.
    counter: i64,
    facts: Facts,
}

/// Sessions of OAuth's clients are left out: whoever refreshes those has to show who it is.
///
/// An exchange gives its tokens and the session the same time, so both are the same until the session is refreshed again.
async fn find(database: &Database, token: &str) -> Result<Option<Old>, Error> {
    let text = "select t.id, s.id, coalesce(t.revoked, false), extract(epoch from coalesce(t.updated_at, t.created_at))::bigint, \
        coalesce((select child.parent = t.token from auth.refresh_tokens child \
          where child.session_id = t.session_id and child.revoked is false order by child.id desc limit 1), false), \
        coalesce(t.updated_at = s.refreshed_at at time zone 'UTC', false), \
        coalesce(s.refresh_token_counter, 0) \
        from auth.refresh_tokens t left join auth.sessions s on s.id = t.session_id and s.oauth_client_id is null \
        where t.token = $1";
    let answer = store::read(database, vec![sql(text, &[Some(token)])]).await?;
    let Some(row) = answer.results.first().and_then(|result| result.rows.first()) else { return Ok(None) };
    let is = |column: usize| row.text(column) == Some("t");
    Ok(Some(Old {
        id: row.text(0).ok_or(Error::Incomplete)?.to_owned(),
        session: row.text(1).and_then(|id| Uuid::try_parse(id).ok()),
        counter: row.text(6).and_then(|text| text.parse().ok()).ok_or(Error::Incomplete)?,
        facts: Facts {
            is_revoked: is(2),
            updated_at: row.text(3).and_then(|text| text.parse().ok()).unwrap_or_default(),
            has_live_child: is(4),
            is_exchanged: is(5),
        },
    }))
}

/// The session's old tokens are used up together with this one.
fn spend(old: &Old, session: &Uuid) -> Statement {
    sql(
        "update auth.refresh_tokens set revoked = true, updated_at = now() where session_id = $2 and (id = $1 or revoked is not true)",
        &[Some(&old.id), Some(&session.to_string())],
    )
}

fn no_session() -> Error {
    Refused::new(400, Code::SessionNotFound, "Invalid Refresh Token: No Valid Session Found").into()
}
