//! `/admin/users`: what whoever has the secret key may do with all users.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use ntier_backing::database;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, AdminDelete, AdminUser};
use ntier_protocol::auth::user::User;
use ntier_security::password;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::signup::{self, Confirmed, NewUser};
use crate::store::{self, Account, Actor, By, end_sessions, sql};
use crate::user::{exists, merge, set_email, set_password, set_phone};
use crate::visitor::Visitor;
use crate::{Auth, mfa, respond};

/// Users on a page, unless the request says otherwise; and at most.
const PAGE: u64 = 50;
const LONGEST_PAGE: u64 = 1000;

impl Auth {
    pub(crate) async fn admin(
        &self,
        method: &Method,
        path: &[&str],
        visitor: &Visitor,
        body: &Bytes,
    ) -> Result<Response<Bytes>, Error> {
        match (method, path) {
            (&Method::GET, ["users"]) => self.list_users(visitor).await,
            (&Method::POST, ["users"]) => self.create_user(visitor, &request::read(body)?).await,
            (&Method::GET, ["users", id]) => Ok(respond::json(200, &self.account(id).await?.user)),
            (&Method::PUT, ["users", id]) => {
                let account = self.account(id).await?;
                self.change_user(visitor, &account, &request::read(body)?).await
            }
            (&Method::DELETE, ["users", id]) => {
                let account = self.account(id).await?;
                self.delete_user(visitor, &account, request::read(body)?).await
            }
            (&Method::GET, ["users", id, "factors"]) => Ok(respond::json(200, &self.account(id).await?.user.factors)),
            (&Method::DELETE, ["users", id, "factors", factor]) => {
                let account = self.account(id).await?;
                let factor = mfa::find(&account.user.factors, factor)?;
                let mut all = mfa::remove(&factor.id);
                let traits = json!({ "user_id": account.user.id, "factor_id": factor.id });
                all.push(store::audit("factor_deleted", "factor", &Actor::ADMIN, &visitor.address, &traits));
                store::write(&self.database, all).await?;
                Ok(respond::json(200, factor))
            }
            (&Method::GET, ["users", id, "passkeys"]) => {
                let account = self.account(id).await?;
                Ok(respond::json(200, &self.passkeys_of(&account.user.id).await?))
            }
            (&Method::DELETE, ["users", id, "passkeys", passkey]) => {
                let account = self.account(id).await?;
                self.remove_passkey(visitor, &account.user.id, passkey, &Actor::ADMIN).await
            }
            (method, ["oauth", "clients", rest @ ..]) => self.oauth_clients(method, rest, visitor, body).await,
            (method, ["custom-providers", rest @ ..]) => self.custom_providers(method, rest, visitor, body).await,
            (&Method::POST, ["generate_link"]) => self.generate_link(visitor, &request::read(body)?).await,
            _ => Ok(respond::not_found()),
        }
    }

    async fn account(&self, id: &str) -> Result<Account, Error> {
        let invalid = |_| Refused::new(404, Code::ValidationFailed, "user_id must be an UUID");
        let id = Uuid::try_parse(id).map_err(invalid)?.to_string();
        let found = store::find(&self.database, By::Id(&id)).await?;
        found.ok_or_else(|| Refused::new(404, Code::UserNotFound, "User not found").into())
    }

    async fn list_users(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let page = paging(visitor)?;
        let filter = visitor.parameter("filter").map(|text| format!("%{text}%"));
        let condition =
            "u.aud = $1 and ($2::text is null or u.email like $2 or u.raw_user_meta_data ->> 'full_name' ilike $2)";
        let fits = [Some(store::AUDIENCE), filter.as_deref()];
        let count = sql(&format!("select count(*) from auth.users u where {condition}"), &fits);
        let text = format!(
            "select ntier.auth_user(u) from auth.users u where {condition} order by u.created_at desc, u.id \
             limit $3::bigint offset $4::bigint"
        );
        let rows = sql(&text, &[fits[0], fits[1], Some(&page.limit()), Some(&page.offset())]);
        let answer = store::read(&self.database, vec![count, rows]).await?;
        let total = answer.results.first().and_then(|result| result.rows.first()?.text(0)?.parse().ok());
        let total: u64 = total.ok_or(Error::Incomplete)?;
        let rows = &answer.results.get(1).ok_or(Error::Incomplete)?.rows;
        let user = |row: &database::Row| row.text(0).and_then(|json| serde_json::from_str::<User>(json).ok());
        let users: Vec<User> = rows.iter().map(user).collect::<Option<_>>().ok_or(Error::Incomplete)?;
        let mut response = respond::json(200, &json!({ "users": users, "aud": store::AUDIENCE }));
        let links = HeaderValue::from_str(&page.links("/admin/users", total)).map_err(|_| Error::Incomplete)?;
        response.headers_mut().insert(header::LINK, links);
        response.headers_mut().insert("x-total-count", total.into());
        Ok(response)
    }

    async fn create_user(&self, visitor: &Visitor, asked: &AdminUser) -> Result<Response<Bytes>, Error> {
        if asked.email.is_empty() && asked.phone.is_empty() {
            return Err(Refused::invalid("Cannot create a user without either an email or phone").into());
        }
        let email = if asked.email.is_empty() { None } else { Some(signup::email(&asked.email)?) };
        let phone = if asked.phone.is_empty() { None } else { Some(signup::phone(&asked.phone)?) };
        if asked.password.is_some() && !asked.password_hash.is_empty() {
            return Err(Refused::invalid("Only a password or a password hash should be provided").into());
        }
        let id = match asked.id.as_str() {
            "" => Uuid::new_v4(),
            id => match Uuid::try_parse(id) {
                Ok(id) if id.is_nil() => return Err(Refused::invalid("ID cannot be a nil uuid").into()),
                Ok(id) => id,
                Err(_) => return Err(Refused::invalid("ID must conform to the uuid v4 format").into()),
            },
        };
        let id = id.to_string();
        let ban = ban(&asked.ban_duration)?;
        for (by, refused) in
            [(email.as_deref().map(By::Email), exists("email")), (phone.as_deref().map(By::Phone), exists("phone"))]
        {
            if let Some(by) = by
                && store::find(&self.database, by).await?.is_some()
            {
                return Err(refused.into());
            }
        }
        let hash = match (asked.password.as_deref().filter(|password| !password.is_empty()), &*asked.password_hash) {
            (Some(password), _) => Some(self.hash_any(password).await?),
            (None, "") => None,
            (None, hash) if password::is_hash(hash) => Some(hash.to_owned()),
            (None, _) => return Err(Refused::invalid("The password hash is of no known kind").into()),
        };
        let providers: Vec<&str> =
            [email.as_ref().map(|_| "email"), phone.as_ref().map(|_| "phone")].into_iter().flatten().collect();
        let mut user_metadata = asked.user_metadata.clone().unwrap_or_default();
        if asked.email_confirm {
            user_metadata.insert("email_verified".into(), true.into());
        }
        let user = NewUser {
            id: id.clone(),
            aud: if asked.aud.is_empty() { store::AUDIENCE } else { &asked.aud },
            role: if asked.role.is_empty() { "authenticated" } else { asked.role.trim() },
            email: email.as_deref(),
            phone: phone.as_deref(),
            password: hash.as_deref(),
            app_metadata: json!({ "provider": providers[0], "providers": providers }),
            user_metadata,
            is_anonymous: false,
            email_confirmed: if asked.email_confirm && email.is_some() { Confirmed::Proven } else { Confirmed::No },
            phone_confirmed: asked.phone_confirm && phone.is_some(),
            ..NewUser::default()
        };
        let mut all = user.statements();
        if let Some(more) = &asked.app_metadata {
            all.push(merge("raw_app_meta_data", &id, more));
        }
        all.extend(ban.map(|seconds| set_ban(&id, seconds)));
        let traits = json!({ "user_id": id, "user_email": email, "user_phone": phone, "provider": providers[0] });
        all.push(store::audit("user_signedup", "team", &Actor::ADMIN, &visitor.address, &traits));
        all.push(store::select_user(&id));
        self.apply(all).await
    }

    async fn change_user(
        &self,
        visitor: &Visitor,
        account: &Account,
        asked: &AdminUser,
    ) -> Result<Response<Bytes>, Error> {
        let id = &account.user.id;
        let mut all = Vec::new();
        if !asked.role.is_empty() {
            all.push(sql("update auth.users set role = $2 where id = $1", &[Some(id), Some(asked.role.trim())]));
        }
        if let Some(password) = &asked.password {
            self.check_password(password)?;
            all.push(set_password(id, &self.hash_any(password).await?));
            all.push(end_sessions(id, None));
        }
        if !asked.email.is_empty() {
            let confirmed = if asked.email_confirm { Confirmed::Proven } else { Confirmed::No };
            all.extend(set_email(id, &signup::email(&asked.email)?, confirmed));
        } else if asked.email_confirm {
            all.push(sql(
                "update auth.users set email_confirmed_at = now(), confirmation_token = '', \
                 raw_user_meta_data = coalesce(raw_user_meta_data, '{}') || '{\"email_verified\": true}' where id = $1",
                &[Some(id)],
            ));
        }
        if !asked.phone.is_empty() {
            all.extend(set_phone(id, &signup::phone(&asked.phone)?, asked.phone_confirm));
        } else if asked.phone_confirm {
            all.push(sql("update auth.users set phone_confirmed_at = now() where id = $1", &[Some(id)]));
        }
        let merges: [(&str, &Option<Map<String, Value>>); 2] =
            [("raw_app_meta_data", &asked.app_metadata), ("raw_user_meta_data", &asked.user_metadata)];
        for (column, with) in merges {
            all.extend(with.as_ref().map(|with| merge(column, id, with)));
        }
        if let Some(seconds) = ban(&asked.ban_duration)? {
            all.push(set_ban(id, seconds));
            // Whoever is banned is out at once.
            if seconds > 0.0 {
                all.push(end_sessions(id, None));
            }
        }
        all.push(sql("update auth.users set updated_at = now() where id = $1", &[Some(id)]));
        all.push(store::audit("user_modified", "user", &Actor::ADMIN, &visitor.address, &about(&account.user)));
        all.push(store::select_user(id));
        self.apply(all).await
    }

    async fn delete_user(
        &self,
        visitor: &Visitor,
        account: &Account,
        asked: AdminDelete,
    ) -> Result<Response<Bytes>, Error> {
        let id = &account.user.id;
        let mut all =
            vec![store::audit("user_deleted", "team", &Actor::ADMIN, &visitor.address, &about(&account.user))];
        if asked.should_soft_delete {
            // The row stays for those who refer to it; nothing in it says who that was.
            all.push(sql(
                "update auth.users set email = encode(sha256(convert_to(id || email, 'UTF8')), 'hex'), \
                 phone = encode(sha256(convert_to(id || phone, 'UTF8')), 'hex'), email_change = '', phone_change = '', \
                 encrypted_password = null, confirmation_token = '', recovery_token = '', email_change_token_current = '', \
                 email_change_token_new = '', phone_change_token = '', reauthentication_token = '', \
                 raw_user_meta_data = '{}', raw_app_meta_data = '{}', deleted_at = now() where id = $1 and deleted_at is null",
                &[Some(id)],
            ));
            all.push(sql(
                "update auth.identities set provider_id = encode(sha256(convert_to(user_id || provider_id, 'UTF8')), 'hex'), \
                 identity_data = '{}' where user_id = $1 and identity_data <> '{}'",
                &[Some(id)],
            ));
            all.push(end_sessions(id, None));
            for table in [
                "mfa_factors",
                "webauthn_credentials",
                "webauthn_challenges",
                "flow_state",
                "oauth_authorizations",
                "oauth_consents",
            ] {
                all.push(sql(&format!("delete from auth.{table} where user_id = $1"), &[Some(id)]));
            }
        } else {
            all.push(sql("delete from auth.users where id = $1", &[Some(id)]));
        }
        store::write(&self.database, all).await?;
        Ok(respond::json(200, &json!({})))
    }

    /// Only the length counts: an admin may give a first password that is to be changed.
    async fn hash_any(&self, password: &str) -> Result<String, Error> {
        if password.len() > password::LONGEST {
            return Err(signup::too_long().into());
        }
        self.hashing.hash(password).await
    }

    /// Runs what ends with a look at the user.
    async fn apply(&self, all: Vec<database::Statement>) -> Result<Response<Bytes>, Error> {
        let answer = store::write(&self.database, all).await?;
        Ok(respond::json(200, &store::last_user(&answer)?))
    }
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    number: u64,
    size: u64,
}

impl Page {
    pub fn limit(self) -> String {
        self.size.to_string()
    }

    pub fn offset(self) -> String {
        (self.number - 1).saturating_mul(self.size).min(i64::MAX as u64).to_string()
    }

    /// What the header `Link` says (RFC 8288).
    pub fn links(self, path: &str, total: u64) -> String {
        let last = total.div_ceil(self.size);
        let link = |page: u64, rel: &str| format!("<{path}?page={page}&per_page={}>; rel=\"{rel}\"", self.size);
        let next = if last > self.number { format!("{}, ", link(self.number + 1, "next")) } else { String::new() };
        format!("{next}{}", link(last, "last"))
    }
}

pub fn paging(visitor: &Visitor) -> Result<Page, Error> {
    let number = |name: &str, usual: u64| match visitor.parameter(name).map(str::parse::<u64>) {
        None => Ok(usual),
        Some(Ok(number)) => Ok(number),
        Some(Err(cause)) => Err(Refused::invalid(format!("Bad Pagination Parameters: {cause}"))),
    };
    Ok(Page { number: number("page", 1)?.max(1), size: number("per_page", PAGE)?.clamp(1, LONGEST_PAGE) })
}

/// Seconds from now; nothing where nothing was said, and 0 for `none`.
fn ban(text: &str) -> Result<Option<f64>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid =
        || Refused::invalid(format!("invalid format for ban duration: time: invalid duration {text:?}")).into();
    request::duration(text).map(Some).ok_or_else(invalid)
}

fn set_ban(id: &str, seconds: f64) -> database::Statement {
    sql(
        "update auth.users set banned_until = case when $2::float8 = 0 then null else now() + make_interval(secs => $2::float8) end \
         where id = $1",
        &[Some(id), Some(&seconds.to_string())],
    )
}

fn about(user: &User) -> Value {
    json!({ "user_id": user.id, "user_email": user.email, "user_phone": user.phone })
}
