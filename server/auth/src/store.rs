//! Statements, and the rows that come back as facts. Nothing is decided here.

use bytes::Bytes;
use ntier_backing::database::{Access, Answer, Batch, Company, Database, Row, Statement};
use ntier_protocol::auth::user::User;
use ntier_security::one_time::Sent;

use crate::error::Error;
use crate::one_time::Tokens;

/// The audience of all users, as GoTrue has it by itself.
pub const AUDIENCE: &str = "authenticated";

/// A statement; `None` is null.
pub fn sql(text: &str, parameters: &[Option<&str>]) -> Statement {
    let parameters = parameters.iter().map(|value| value.map(|text| Bytes::copy_from_slice(text.as_bytes()))).collect();
    Statement { text: text.into(), parameters }
}

/// Runs what only looks.
pub async fn read(database: &Database, statements: Vec<Statement>) -> Result<Answer, Error> {
    let batch = Batch { statements, access: Access::ReadOnly, ..Batch::default() };
    database.run(batch).await.map_err(Error::of)
}

/// Runs a change, whole or not at all.
pub async fn write(database: &Database, statements: Vec<Statement>) -> Result<Answer, Error> {
    let batch = Batch { statements, company: Company::Flush, ..Batch::default() };
    database.run(batch).await.map_err(Error::of)
}

/// A user, and what only the service may know.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    pub user: User,
    /// The hash; `None` where there is no password.
    pub password: Option<String>,
    /// Or deleted, but for its row.
    pub is_banned: bool,
    pub is_sso: bool,
}

impl Account {
    /// The columns that [`Account::of`] reads.
    pub const COLUMNS: &str = "ntier.auth_user(u), nullif(u.encrypted_password, ''), \
        coalesce(u.banned_until > now(), false) or u.deleted_at is not null, u.is_sso_user";

    fn of(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            user: user(row)?,
            password: row.text(1).map(str::to_owned),
            is_banned: row.text(2) == Some("t"),
            is_sso: row.text(3) == Some("t"),
        })
    }
}

/// The user in the first column.
fn user(row: &Row) -> Result<User, Error> {
    row.text(0).and_then(|json| serde_json::from_str(json).ok()).ok_or(Error::Incomplete)
}

/// The user that the last statement gives.
pub fn last_user(answer: &Answer) -> Result<User, Error> {
    user(answer.results.last().and_then(|result| result.rows.first()).ok_or(Error::Incomplete)?)
}

pub fn select_user(id: &str) -> Statement {
    sql("select ntier.auth_user(u) from auth.users u where u.id = $1", &[Some(id)])
}

/// Ends a user's sessions, but for one if that is named.
pub fn end_sessions(user: &str, but: Option<&str>) -> Statement {
    match but {
        Some(session) => sql("delete from auth.sessions where user_id = $1 and id <> $2", &[Some(user), Some(session)]),
        None => sql("delete from auth.sessions where user_id = $1", &[Some(user)]),
    }
}

/// How a user is looked for.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    Id(&'a str),
    Email(&'a str),
    Phone(&'a str),
}

pub async fn find(database: &Database, by: By<'_>) -> Result<Option<Account>, Error> {
    let (condition, value) = match by {
        By::Id(id) => ("u.id = $1", id),
        By::Email(email) => ("u.email = $1 and not u.is_sso_user and u.deleted_at is null", email),
        By::Phone(phone) => ("u.phone = $1 and not u.is_sso_user and u.deleted_at is null", phone),
    };
    let text = format!("select {} from auth.users u where {condition}", Account::COLUMNS);
    let answer = read(database, vec![sql(&text, &[Some(value)])]).await?;
    answer.results.first().and_then(|result| result.rows.first()).map(Account::of).transpose()
}

/// The user to whom a token was sent, with all that is out: by the address where it is known, else by the token's hash.
pub async fn with_tokens(
    database: &Database,
    hash: &str,
    email: Option<&str>,
) -> Result<Option<(Account, Tokens)>, Error> {
    let (condition, value) = match email {
        Some(email) => {
            ("(u.email = $1 or u.email_change = $1) and not u.is_sso_user order by u.email = $1 desc", email)
        }
        None => (
            "u.confirmation_token = $1 or u.recovery_token = $1 or u.email_change_token_current = $1 or u.email_change_token_new = $1",
            hash,
        ),
    };
    if value.is_empty() {
        return Ok(None);
    }
    let text = format!("select {}, {TOKENS} from auth.users u where {condition} limit 1", Account::COLUMNS);
    tokens(database, sql(&text, &[Some(value)])).await
}

/// The user with this address and all that is out.
pub async fn by_email(database: &Database, email: &str) -> Result<Option<(Account, Tokens)>, Error> {
    let text = format!(
        "select {}, {TOKENS} from auth.users u where u.email = $1 and not u.is_sso_user and u.deleted_at is null",
        Account::COLUMNS
    );
    tokens(database, sql(&text, &[Some(email)])).await
}

/// Likewise with this number.
pub async fn by_phone(database: &Database, phone: &str) -> Result<Option<(Account, Tokens)>, Error> {
    let condition = "u.phone = $1 and not u.is_sso_user and u.deleted_at is null";
    let text = format!("select {}, {TOKENS} from auth.users u where {condition}", Account::COLUMNS);
    tokens(database, sql(&text, &[Some(phone)])).await
}

/// Likewise with this number as the next one; who has asked last, where there are several.
pub async fn by_next_phone(database: &Database, phone: &str) -> Result<Option<(Account, Tokens)>, Error> {
    let condition = "u.phone_change = $1 and not u.is_sso_user and u.deleted_at is null order by u.phone_change_sent_at desc limit 1";
    let text = format!("select {}, {TOKENS} from auth.users u where {condition}", Account::COLUMNS);
    tokens(database, sql(&text, &[Some(phone)])).await
}

const TOKENS: &str = "u.confirmation_token, extract(epoch from u.confirmation_sent_at)::bigint, \
    u.recovery_token, extract(epoch from u.recovery_sent_at)::bigint, \
    u.email_change_token_current, extract(epoch from u.email_change_sent_at)::bigint, \
    u.email_change_token_new, extract(epoch from u.email_change_sent_at)::bigint, u.email_change_confirm_status, \
    u.reauthentication_token, extract(epoch from u.reauthentication_sent_at)::bigint, \
    u.phone_change_token, extract(epoch from u.phone_change_sent_at)::bigint";

async fn tokens(database: &Database, statement: Statement) -> Result<Option<(Account, Tokens)>, Error> {
    let answer = read(database, vec![statement]).await?;
    let Some(row) = answer.results.first().and_then(|result| result.rows.first()) else { return Ok(None) };
    let sent = |column: usize| Sent {
        hash: row.text(column).unwrap_or_default().to_owned(),
        at: row.text(column + 1).and_then(|text| text.parse().ok()),
    };
    let tokens = Tokens {
        confirmation: sent(4),
        recovery: sent(6),
        change_current: sent(8),
        change_new: sent(10),
        half_changed: row.text(12) == Some("1"),
        reauthentication: sent(13),
        phone_change: sent(15),
    };
    Ok(Some((Account::of(row)?, tokens)))
}

/// Somebody's session, as a token names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub account: Account,
    pub counter: i64,
    /// Seconds since 1970.
    pub created_at: i64,
    pub refreshed_at: i64,
    pub not_after: Option<i64>,
    pub ways: Vec<Way>,
    /// The application whose session it is, and what that one may know.
    pub client: Option<String>,
    pub scopes: Option<String>,
}

/// How a session came about: a method and when.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Way {
    pub method: String,
    pub timestamp: i64,
}

/// The session with its user.
pub async fn session(database: &Database, id: &str) -> Result<Option<Found>, Error> {
    let text = format!(
        "select {}, coalesce(s.refresh_token_counter, 0), extract(epoch from s.created_at)::bigint, \
         extract(epoch from coalesce(s.refreshed_at at time zone 'UTC', s.created_at))::bigint, \
         extract(epoch from s.not_after)::bigint, \
         (select json_agg(json_build_object('method', c.authentication_method, \
            'timestamp', extract(epoch from c.updated_at)::bigint) order by c.updated_at desc) \
          from auth.mfa_amr_claims c where c.session_id = s.id), s.oauth_client_id, s.scopes \
         from auth.sessions s join auth.users u on u.id = s.user_id where s.id = $1",
        Account::COLUMNS
    );
    let answer = read(database, vec![sql(&text, &[Some(id)])]).await?;
    let Some(row) = answer.results.first().and_then(|result| result.rows.first()) else { return Ok(None) };
    let number = |column: usize| row.text(column).and_then(|text| text.parse::<i64>().ok());
    Ok(Some(Found {
        account: Account::of(row)?,
        counter: number(4).ok_or(Error::Incomplete)?,
        created_at: number(5).unwrap_or_default(),
        refreshed_at: number(6).unwrap_or_default(),
        not_after: number(7),
        ways: row.text(8).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
        client: row.text(9).map(str::to_owned),
        scopes: row.text(10).map(str::to_owned),
    }))
}

/// Who did what, for `auth.audit_log_entries`. Its actor is the user itself, or whoever has this role.
pub fn audit(action: &str, kind: &str, actor: &Actor<'_>, address: &str, traits: &serde_json::Value) -> Statement {
    let mut payload = serde_json::json!({
        "action": action, "actor_id": actor.id, "actor_username": actor.name, "actor_via_sso": false, "log_type": kind,
    });
    if !traits.is_null() {
        payload["traits"] = traits.clone();
    }
    sql(
        "insert into auth.audit_log_entries (instance_id, id, payload, created_at, ip_address) \
         values ('00000000-0000-0000-0000-000000000000', gen_random_uuid(), $1::json, now(), $2)",
        &[Some(&payload.to_string()), Some(address)],
    )
}

/// Who acts.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    pub id: &'a str,
    pub name: &'a str,
}

impl<'a> Actor<'a> {
    pub const ADMIN: Actor<'static> = Actor { id: "00000000-0000-0000-0000-000000000000", name: "service_role" };

    pub fn user(user: &'a User) -> Self {
        Self { id: &user.id, name: if user.phone.is_empty() { &user.email } else { &user.phone } }
    }
}
