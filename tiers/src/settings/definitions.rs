//! The table: each setting's name, value, default, documentation and parser. Flags, environment names, `--help` and the
//! reference come from it.

use std::net::SocketAddr;

use ntier_backing::database;
use ntier_backing::outbound::is_private;
use ntier_security::Secret;

use super::Settings;
use super::balance;
use super::value::{self, Read, expected};

/// One setting.
pub struct Definition {
    /// In `ntier.toml`: a dot for a section.
    pub name: &'static str,
    pub kind: Kind,
    /// In words, where it is not a value.
    pub default: &'static str,
    pub doc: &'static str,
    pub(crate) set: fn(&mut Settings, &str) -> Read<()>,
}

/// What stands for the value in help texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A flag of this kind needs no value.
    Boolean,
    /// A path; relative ones in `ntier.toml` belong to the file's directory.
    Path(&'static str),
    Value(&'static str),
}

impl Definition {
    pub fn environment(&self) -> String {
        format!("NTIER_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// The definition with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        definitions().find(|definition| definition.name == name)
    }
}

use Kind::{Boolean, Path, Value};

/// All of them, in the order of the reference.
pub fn definitions() -> impl Iterator<Item = &'static Definition> + Clone {
    DEFINITIONS.iter().chain(balance::DEFINITIONS)
}

const DEFINITIONS: &[Definition] = &[
    Definition {
        name: "project",
        kind: Path("DIR"),
        default: "the current directory",
        doc: "The folder that holds supabase/ (config.toml, migrations, seed.sql)",
        set: |settings, text| {
            let _: () = settings.project = Some(text.into());
            Ok(())
        },
    },
    Definition {
        name: "data",
        kind: Path("DIR"),
        default: ".ntier in the project",
        doc: "Where the embedded database and the keys are kept; private to you",
        set: |settings, text| {
            let _: () = settings.data = text.into();
            Ok(())
        },
    },
    Definition {
        name: "database_url",
        kind: Value("URL"),
        default: "the embedded database",
        doc: "A PostgreSQL server to use instead, as postgres://user:password@host/database",
        set: |settings, text| {
            let address = database::parse_url(text).map_err(|fault| fault.to_string())?;
            let _: () = settings.database = Some(address);
            Ok(())
        },
    },
    Definition {
        name: "listen",
        kind: Value("ADDR:PORT"),
        default: "127.0.0.1:54321",
        doc: "Where to answer HTTP; port 0 picks a free one",
        set: |settings, text| {
            let address: SocketAddr =
                text.parse().map_err(|_| expected("an address and a port such as 127.0.0.1:54321", text))?;
            let _: () = settings.listen = address;
            Ok(())
        },
    },
    Definition {
        name: "public",
        kind: Path("DIR"),
        default: "public in the project",
        doc: "A folder of files to serve at /",
        set: |settings, text| {
            let _: () = settings.public = Some(text.into());
            Ok(())
        },
    },
    Definition {
        name: "public_bucket",
        kind: Value("NAME"),
        default: "none",
        doc: "A public bucket whose files to serve at /, instead of a folder",
        set: |settings, text| {
            let _: () = settings.public_bucket = Some(text.to_owned());
            Ok(())
        },
    },
    Definition {
        name: "trusted_proxy",
        kind: Value("ADDR,…"),
        default: "none",
        doc: "Addresses or ranges of proxies that end TLS in front; needed to listen on a public address",
        set: |settings, text| {
            let _: () = settings.trusted_proxy = value::networks(text)?;
            Ok(())
        },
    },
    Definition {
        name: "insecure_dev",
        kind: Boolean,
        default: "false",
        doc: "Start with a JWT secret that is short or published, and take passwords that everybody tries; loopback only",
        set: |settings, text| {
            let value = value::boolean(text)?;
            settings.insecure_dev = value;
            with_auth(settings, |auth| auth.password.takes_common = value);
            Ok(())
        },
    },
    Definition {
        name: "jwt_secret",
        kind: Value("SECRET"),
        default: "made at the first start",
        doc: "The HS256 secret of an existing project, so that its tokens stay valid (32 bytes or more)",
        set: |settings, text| {
            let _: () = settings.jwt_secret = Some(Secret::new(text.to_owned()));
            Ok(())
        },
    },
    Definition {
        name: "vault_key",
        kind: Value("SECRET"),
        default: "made at the first start, in vault.key of the data directory",
        doc: "The key that seals secrets in the database; all nodes of a database need the same",
        set: |settings, text| {
            let _: () = settings.vault_key = Some(Secret::new(text.to_owned()));
            Ok(())
        },
    },
    Definition {
        name: "advertise",
        kind: Value("URL"),
        default: "nobody is told",
        doc: "Where balancers reach this node, such as http://10.0.0.5:54321; it says so in the database",
        set: |settings, text| {
            let _: () = settings.advertise = Some(value::origin(text)?);
            Ok(())
        },
    },
    Definition {
        name: "drain",
        kind: Value("TIME"),
        default: "3s for a node that is advertised, else none",
        doc: "How long a node that is asked to stop goes on to answer, and says at /ready that it leaves",
        set: |settings, text| {
            let _: () = settings.drain = Some(value::duration(text)?);
            Ok(())
        },
    },
    Definition {
        name: "jwt_audience",
        kind: Value("NAME"),
        default: "any",
        doc: "Tokens that name audiences (aud) have to name this one",
        set: |settings, text| {
            let _: () = settings.jwt_audience = Some(text.to_owned());
            Ok(())
        },
    },
    Definition {
        name: "api.require_key",
        kind: Boolean,
        default: "true; false in dev",
        doc: "Refuse requests without an API key; otherwise they act as anon",
        set: |settings, text| {
            let _: () = settings.api.require_key = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "api.schemas",
        kind: Value("NAME,…"),
        default: "public",
        doc: "Schemas that the data API shows; the first is the default",
        set: |settings, text| {
            let _: () = settings.api.schemas = value::names(text)?;
            Ok(())
        },
    },
    Definition {
        name: "api.extra_search_path",
        kind: Value("NAME,…"),
        default: "public,extensions",
        doc: "Further schemas in the search path of each request",
        set: |settings, text| {
            let _: () = settings.api.extra_search_path = value::names(text)?;
            Ok(())
        },
    },
    Definition {
        name: "api.max_rows",
        kind: Value("COUNT"),
        default: "1000",
        doc: "No answer has more rows; 0 for no limit",
        set: |settings, text| {
            let _: () = settings.api.max_rows = Some(value::count(text, 0)?).filter(|rows| *rows > 0);
            Ok(())
        },
    },
    Definition {
        name: "api.max_embedding_depth",
        kind: Value("COUNT"),
        default: "10",
        doc: "No request embeds relations deeper",
        set: |settings, text| {
            let _: () = settings.api.limits.depth = value::count(text, 0)?;
            Ok(())
        },
    },
    Definition {
        name: "api.max_embeddings",
        kind: Value("COUNT"),
        default: "50",
        doc: "No request embeds more relations, on all levels together",
        set: |settings, text| {
            let _: () = settings.api.limits.embeds = value::count(text, 0)?;
            Ok(())
        },
    },
    Definition {
        name: "api.max_filters",
        kind: Value("COUNT"),
        default: "200",
        doc: "No request has more filters",
        set: |settings, text| {
            let _: () = settings.api.limits.filters = value::count(text, 0)?;
            Ok(())
        },
    },
    Definition {
        name: "api.max_in_values",
        kind: Value("COUNT"),
        default: "5000",
        doc: "No request has more values in the lists of `in`",
        set: |settings, text| {
            let _: () = settings.api.limits.values = value::count(text, 0)?;
            Ok(())
        },
    },
    Definition {
        name: "api.aggregates",
        kind: Boolean,
        default: "false",
        doc: "Allow count(), sum() and their like in select lists",
        set: |settings, text| {
            let _: () = settings.api.aggregates = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "api.auto_expose_new_tables",
        kind: Boolean,
        default: "false",
        doc: "Grant new tables, sequences and functions of public to the API roles at once",
        set: |settings, text| {
            let _: () = settings.api.auto_expose_new_tables = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "api.timeout",
        kind: Value("TIME"),
        default: "60s",
        doc: "No statement of a request runs longer; anon (3s) and authenticated (8s) have less by ALTER ROLE",
        set: |settings, text| {
            let _: () = settings.api.timeout = value::duration(text)?;
            Ok(())
        },
    },
    Definition {
        name: "api.max_body",
        kind: Value("SIZE"),
        default: "10MB",
        doc: "The largest request body",
        set: |settings, text| {
            let _: () = settings.api.max_body = value::bytes(text)?;
            Ok(())
        },
    },
    Definition {
        name: "auth.enable_signup",
        kind: Boolean,
        default: "true",
        doc: "Whether people may sign up by themselves",
        set: |settings, text| {
            let value = value::boolean(text)?;
            with_auth(settings, |auth| auth.signup = value);
            Ok(())
        },
    },
    Definition {
        name: "auth.enable_anonymous_sign_ins",
        kind: Boolean,
        default: "false",
        doc: "Whether people may sign in without saying who they are",
        set: |settings, text| {
            let value = value::boolean(text)?;
            with_auth(settings, |auth| auth.anonymous = value);
            Ok(())
        },
    },
    Definition {
        name: "auth.minimum_password_length",
        kind: Value("COUNT"),
        default: "8",
        doc: "Characters of a password, at least; from 6",
        set: |settings, text| {
            let value = value::count(text, 6)?;
            with_auth(settings, |auth| auth.password.shortest = value);
            Ok(())
        },
    },
    Definition {
        name: "auth.email.enable_confirmations",
        kind: Boolean,
        default: "false",
        doc: "New users have to confirm their e-mail address first",
        set: |settings, text| {
            let needed = value::boolean(text)?;
            with_auth(settings, |auth| auth.email_autoconfirm = !needed);
            Ok(())
        },
    },
    Definition {
        name: "auth.email.secure_password_change",
        kind: Boolean,
        default: "false",
        doc: "Whoever changes a password in a session older than a day has to show a code from the mailbox",
        set: |settings, text| {
            let needed = value::boolean(text)?;
            with_auth(settings, |auth| auth.reauthenticate = needed);
            Ok(())
        },
    },
    Definition {
        name: "auth.single_session",
        kind: Boolean,
        default: "false",
        doc: "Whoever signs in is signed out everywhere else",
        set: |settings, text| {
            let value = value::boolean(text)?;
            with_auth(settings, |auth| auth.single_session = value);
            Ok(())
        },
    },
    Definition {
        name: "auth.captcha.url",
        kind: Value("URL"),
        default: "the provider's own",
        doc: "The service that is asked about captcha tokens for auth.captcha, where it is another that speaks the same",
        set: |settings, text| {
            if !is_private(text) {
                return Err(expected("an https:// address", text));
            }
            with_auth(settings, |auth| {
                if let Some(captcha) = &mut auth.captcha {
                    text.clone_into(&mut captcha.url);
                }
            });
            Ok(())
        },
    },
    Definition {
        name: "auth.sms.inbox",
        kind: Boolean,
        default: "false",
        doc: "The inbox of `ntier dev` shows messages to phones too; without it and without a service they are refused",
        set: |settings, text| {
            let value = value::boolean(text)?;
            with_auth(settings, |auth| auth.sms.inbox = value);
            Ok(())
        },
    },
    Definition {
        name: "auth.sms.url",
        kind: Value("URL"),
        default: "https://api.twilio.com",
        doc: "The service that takes messages to phones for auth.sms.twilio, where it is not Twilio itself",
        set: |settings, text| {
            if !is_private(text) {
                return Err(expected("an https:// address", text));
            }
            with_auth(settings, |auth| {
                if let Some(service) = &mut auth.sms.service {
                    text.clone_into(&mut service.url);
                }
            });
            Ok(())
        },
    },
    Definition {
        name: "auth.site_url",
        kind: Value("URL"),
        default: "the address of the node",
        doc: "Where links of e-mails lead, unless the request says otherwise",
        set: |settings, text| {
            with_auth(settings, |auth| text.clone_into(&mut auth.site_url));
            Ok(())
        },
    },
    Definition {
        name: "auth.additional_redirect_urls",
        kind: Value("URL,…"),
        default: "none",
        doc: "Where else they may lead; `*` stands for anything but . and /, `**` for anything",
        set: |settings, text| {
            let list = value::names(text)?;
            with_auth(settings, |auth| auth.redirects = list);
            Ok(())
        },
    },
    Definition {
        name: "auth.jwt_expiry",
        kind: Value("TIME"),
        default: "3600s",
        doc: "How long an access token lives",
        set: |settings, text| {
            let value = value::seconds(text)?;
            with_auth(settings, |auth| auth.token_life = value);
            Ok(())
        },
    },
    Definition {
        name: "auth.external_url",
        kind: Value("URL"),
        default: "http:// and the address of listen",
        doc: "Where clients reach this node; tokens name it as their issuer",
        set: |settings, text| {
            with_auth(settings, |auth| text.clone_into(&mut auth.url));
            Ok(())
        },
    },
    Definition {
        name: "storage.enabled",
        kind: Boolean,
        default: "true",
        doc: "Whether files are kept and served under /storage/v1",
        set: |settings, text| {
            let _: () = settings.storage.enabled = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.file_size_limit",
        kind: Value("SIZE"),
        default: "50MiB",
        doc: "The largest file; a bucket may allow less",
        set: |settings, text| {
            let _: () = settings.storage.service.file_size_limit = value::bytes(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.user_quota",
        kind: Value("SIZE"),
        default: "none",
        doc: "What all files of a user may take together",
        set: |settings, text| {
            let _: () = settings.storage.service.user_quota = Some(value::bytes(text)?);
            Ok(())
        },
    },
    Definition {
        name: "storage.folder",
        kind: Path("DIR"),
        default: "files in the data directory",
        doc: "Where files are kept; nodes on one database need the same one",
        set: |settings, text| {
            let _: () = settings.storage.folder = Some(text.into());
            Ok(())
        },
    },
    Definition {
        name: "storage.upload_url_time",
        kind: Value("TIME"),
        default: "60s",
        doc: "How long a signed URL for an upload is valid",
        set: |settings, text| {
            let _: () = settings.storage.service.upload_url_seconds = value::whole_seconds(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.resumable_time",
        kind: Value("TIME"),
        default: "1h",
        doc: "How long a resumable upload waits for its client to come back",
        set: |settings, text| {
            let _: () = settings.storage.service.resumable_seconds = value::whole_seconds(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.images",
        kind: Boolean,
        default: "true",
        doc: "Pictures are made smaller, cut and said in other formats where a request asks for it",
        set: |settings, text| {
            let _: () = settings.storage.service.images = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.image_places",
        kind: Value("COUNT"),
        default: "1",
        doc: "Pictures that are worked on at the same time; each needs memory",
        set: |settings, text| {
            let _: () = settings.storage.service.image_places = value::count(text, 1)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.avif",
        kind: Boolean,
        default: "false",
        doc: "Whoever can show AVIF is given pictures as AVIF without asking for it: smaller than WebP, and many times the work",
        set: |settings, text| {
            let _: () = settings.storage.service.avif = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.webdav",
        kind: Boolean,
        default: "true",
        doc: "File managers are answered under /storage/v1/dav (WebDAV), where they sign in with e-mail and password",
        set: |settings, text| {
            let _: () = settings.storage.service.webdav = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.sweep_after",
        kind: Value("TIME"),
        default: "1h",
        doc: "Bytes that no object has are removed when they are so old; looked for as often",
        set: |settings, text| {
            let _: () = settings.storage.sweep_after = value::duration(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.s3.bucket",
        kind: Value("NAME"),
        default: "none",
        doc: "Keep files in this bucket of an S3 instead of a folder",
        set: |settings, text| {
            let _: () = settings.storage.s3.bucket = Some(text.to_owned());
            Ok(())
        },
    },
    Definition {
        name: "storage.s3.endpoint",
        kind: Value("URL"),
        default: "Amazon's of the region",
        doc: "Where that S3 is, such as https://s3.example.com",
        set: |settings, text| {
            if !text.starts_with("https://") && !text.starts_with("http://") {
                return Err(expected("an https:// address", text));
            }
            let _: () = settings.storage.s3.endpoint = Some(text.to_owned());
            Ok(())
        },
    },
    Definition {
        name: "storage.s3.region",
        kind: Value("NAME"),
        default: "us-east-1",
        doc: "Its region",
        set: |settings, text| {
            text.clone_into(&mut settings.storage.s3.region);
            Ok(())
        },
    },
    Definition {
        name: "storage.s3.prefix",
        kind: Value("TEXT"),
        default: "none",
        doc: "The beginning of all names in that bucket, such as files/",
        set: |settings, text| {
            text.clone_into(&mut settings.storage.s3.prefix);
            Ok(())
        },
    },
    Definition {
        name: "storage.s3.access_key_id",
        kind: Value("ID"),
        default: "none",
        doc: "Who ntier is there",
        set: |settings, text| {
            let _: () = settings.storage.s3.access_key_id = Some(text.to_owned());
            Ok(())
        },
    },
    Definition {
        name: "storage.s3.secret_access_key",
        kind: Value("SECRET"),
        default: "none",
        doc: "With what it shows that",
        set: |settings, text| {
            let _: () = settings.storage.s3.secret_access_key = Some(Secret::new(text.to_owned()));
            Ok(())
        },
    },
    Definition {
        name: "storage.s3.path_style",
        kind: Boolean,
        default: "false",
        doc: "The bucket's name is in the path, not in the name of the host: most S3 that are not Amazon's want it",
        set: |settings, text| {
            let _: () = settings.storage.s3.path_style = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.s3.allow_http",
        kind: Boolean,
        default: "false",
        doc: "Files may travel to that S3 without TLS, also beyond this machine",
        set: |settings, text| {
            let _: () = settings.storage.s3.allow_http = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.s3_protocol.enabled",
        kind: Boolean,
        default: "true",
        doc: "Answer S3's own clients under /storage/v1/s3",
        set: |settings, text| {
            let _: () = settings.storage.s3_protocol.enabled = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "storage.s3_protocol.access_key_id",
        kind: Value("ID"),
        default: "made at the first start",
        doc: "With what those clients sign: whoever has it may do everything; `ntier keys` shows it",
        set: |settings, text| {
            let _: () = settings.storage.s3_protocol.access_key_id = Some(text.to_owned());
            Ok(())
        },
    },
    Definition {
        name: "storage.s3_protocol.secret_access_key",
        kind: Value("SECRET"),
        default: "made at the first start",
        doc: "Likewise (32 bytes or more)",
        set: |settings, text| {
            let _: () = settings.storage.s3_protocol.secret_access_key = Some(Secret::new(text.to_owned()));
            Ok(())
        },
    },
    Definition {
        name: "realtime.enabled",
        kind: Boolean,
        default: "true",
        doc: "Whether clients meet on channels under /realtime/v1",
        set: |settings, text| {
            let _: () = settings.realtime.enabled = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.max_clients",
        kind: Value("COUNT"),
        default: "10000",
        doc: "Clients that are connected to a node at the same time; more are refused with 429",
        set: |settings, text| {
            let _: () = settings.realtime.service.limits.clients = value::count(text, 1)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.max_channels_per_client",
        kind: Value("COUNT"),
        default: "100",
        doc: "Channels that one client may have joined",
        set: |settings, text| {
            let _: () = settings.realtime.service.limits.channels_per_client = value::count(text, 1)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.max_payload_kilobytes",
        kind: Value("COUNT"),
        default: "3000",
        doc: "The largest broadcast and the largest presence, in units of 1000 bytes",
        set: |settings, text| {
            let _: () = settings.realtime.service.limits.payload_kilobytes = value::count(text, 1)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.private_only",
        kind: Boolean,
        default: "false",
        doc: "Whether there are private channels only, which policies on realtime.messages rule",
        set: |settings, text| {
            let _: () = settings.realtime.service.private_only = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.max_events_per_second",
        kind: Value("COUNT"),
        default: "1000000",
        doc: "Messages of a node, each counted as it is said and for everybody who hears it; an average over a minute",
        set: |settings, text| {
            let _: () = settings.realtime.service.limits.messages_per_second = value::count(text, 1)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.max_joins_per_second",
        kind: Value("COUNT"),
        default: "1000",
        doc: "Channels that are joined on a node; an average over a minute",
        set: |settings, text| {
            let _: () = settings.realtime.service.limits.joins_per_second = value::count(text, 1)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.max_presence_events_per_second",
        kind: Value("COUNT"),
        default: "10000",
        doc: "Changes of presences on a node; an average over a minute",
        set: |settings, text| {
            let _: () = settings.realtime.service.limits.presences_per_second = value::count(text, 1)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.session_check",
        kind: Value("TIME"),
        default: "10s",
        doc: "Channels of a session that is signed out end after this time at the latest",
        set: |settings, text| {
            let _: () = settings.realtime.service.session_check = value::duration(text)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.retention",
        kind: Value("TIME"),
        default: "1h",
        doc: "How long changes of the database are kept for clients that were away",
        set: |settings, text| {
            let _: () = settings.realtime.service.kept_for = value::duration(text)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.retention_size",
        kind: Value("SIZE"),
        default: "1GB",
        doc: "How much they may take; the older half goes before the time is over",
        set: |settings, text| {
            let _: () = settings.realtime.service.kept_bytes = value::bytes(text)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.bus",
        kind: Value("WAY"),
        default: "postgres with database_url, else local",
        doc: "How nodes hear each other: postgres (NOTIFY), nats://user:password@host:4222 or tls://… (several between commas), local (not at all)",
        set: |settings, text| {
            let _: () = settings.realtime.bus = value::bus(text)?;
            Ok(())
        },
    },
    Definition {
        name: "realtime.bus_subject",
        kind: Value("NAME"),
        default: "ntier",
        doc: "The subject on which nodes talk by NATS; projects that share its servers need different ones",
        set: |settings, text| {
            let _: () = settings.realtime.bus_subject = value::subject(text)?;
            Ok(())
        },
    },
    Definition {
        name: "defence.mode",
        kind: Value("MODE"),
        default: "on",
        doc: "What becomes of addresses that attack: on (they are slowed down, then banned), watch (only written down), off",
        set: |settings, text| {
            let _: () = settings.defence.mode = value::defence(text)?;
            Ok(())
        },
    },
    Definition {
        name: "defence.never",
        kind: Value("ADDR,…"),
        default: "127.0.0.0/8,::1",
        doc: "Networks that are never banned, slowed down or counted; declared proxies are not either",
        set: |settings, text| {
            let _: () = settings.defence.never = value::networks(text)?;
            Ok(())
        },
    },
    Definition {
        name: "defence.log",
        kind: Path("FILE"),
        default: "none",
        doc: "Where attacks are written down, one JSON object in a line, for fail2ban and CrowdSec",
        set: |settings, text| {
            let _: () = settings.defence.log = Some(text.into());
            Ok(())
        },
    },
    Definition {
        name: "defence.throttle_at",
        kind: Value("POINTS"),
        default: "60",
        doc: "From this score on an address is slowed down",
        set: |settings, text| {
            let _: () = settings.defence.policy.throttle_at = f64::from(value::count::<u32>(text, 1)?);
            Ok(())
        },
    },
    Definition {
        name: "defence.ban_at",
        kind: Value("POINTS"),
        default: "100",
        doc: "From this score on it is banned; a wrong password is 5 points",
        set: |settings, text| {
            let _: () = settings.defence.policy.ban_at = f64::from(value::count::<u32>(text, 1)?);
            Ok(())
        },
    },
    Definition {
        name: "defence.half_life",
        kind: Value("TIME"),
        default: "10min",
        doc: "A score is half of what it was after this time",
        set: |settings, text| {
            let _: () = settings.defence.policy.half_life = value::duration(text)?;
            Ok(())
        },
    },
    Definition {
        name: "defence.ban_time",
        kind: Value("TIME"),
        default: "10min",
        doc: "How long the first ban takes; each further one takes four times as long",
        set: |settings, text| {
            let _: () = settings.defence.policy.ban_time = value::duration(text)?;
            Ok(())
        },
    },
    Definition {
        name: "defence.longest_ban",
        kind: Value("TIME"),
        default: "168h",
        doc: "No ban takes longer",
        set: |settings, text| {
            let _: () = settings.defence.policy.longest_ban = value::duration(text)?;
            Ok(())
        },
    },
    Definition {
        name: "defence.requests_per_address",
        kind: Value("COUNT"),
        default: "1000",
        doc: "Requests of one address (of IPv6 a /64) in a second, and those of five seconds at once, on all nodes together; 0 for no limit",
        set: |settings, text| {
            let _: () = settings.defence.per_address = value::count(text, 0)?;
            Ok(())
        },
    },
    Definition {
        name: "defence.requests_per_user",
        kind: Value("COUNT"),
        default: "0",
        doc: "Likewise of one user to the data API; 0 for no limit",
        set: |settings, text| {
            let _: () = settings.defence.per_user = value::count(text, 0)?;
            Ok(())
        },
    },
    Definition {
        name: "defence.requests_per_key",
        kind: Value("COUNT"),
        default: "0",
        doc: "Likewise of those with one API key; 0 for no limit",
        set: |settings, text| {
            let _: () = settings.defence.per_key = value::count(text, 0)?;
            Ok(())
        },
    },
    Definition {
        name: "defence.connections_per_address",
        kind: Value("COUNT"),
        default: "1000",
        doc: "Connections of one address at once; 0 for no limit",
        set: |settings, text| {
            let _: () = settings.defence.connections = value::count(text, 0)?;
            Ok(())
        },
    },
    Definition {
        name: "defence.crowdsec_url",
        kind: Value("URL"),
        default: "none",
        doc: "The local API of a CrowdSec whose decisions are bans here",
        set: |settings, text| {
            if !is_private(text) {
                return Err("expected https://…, or http:// on this machine: a key is sent there".into());
            }
            let _: () = settings.defence.crowdsec.url = Some(text.to_owned());
            Ok(())
        },
    },
    Definition {
        name: "defence.crowdsec_key",
        kind: Value("SECRET"),
        default: "none",
        doc: "The key of a bouncer there (`cscli bouncers add ntier`)",
        set: |settings, text| {
            let _: () = settings.defence.crowdsec.key = Some(Secret::new(text.to_owned()));
            Ok(())
        },
    },
    Definition {
        name: "firewall.allow",
        kind: Value("ADDR,…"),
        default: "any",
        doc: "Networks that are let in; others are kept out",
        set: |settings, text| {
            let _: () = settings.defence.firewall.allow = value::networks(text)?;
            Ok(())
        },
    },
    Definition {
        name: "firewall.deny",
        kind: Value("ADDR,…"),
        default: "none",
        doc: "Networks that are kept out; the smallest network that is named counts",
        set: |settings, text| {
            let _: () = settings.defence.firewall.deny = value::networks(text)?;
            Ok(())
        },
    },
    Definition {
        name: "firewall.deny_file",
        kind: Path("FILE"),
        default: "none",
        doc: "A file with more of them, one in a line; it is read again when it changes",
        set: |settings, text| {
            let _: () = settings.defence.firewall.deny_file = Some(text.into());
            Ok(())
        },
    },
    Definition {
        name: "firewall.methods",
        kind: Value("NAME,…"),
        default: "any",
        doc: "Methods that are served",
        set: |settings, text| {
            let _: () = settings.defence.firewall.methods = value::names(text)?;
            Ok(())
        },
    },
    Definition {
        name: "firewall.deny_paths",
        kind: Value("PATH,…"),
        default: "none",
        doc: "Paths that nobody gets to; `*` stands for anything but /, `**` for anything",
        set: |settings, text| {
            let _: () = settings.defence.firewall.deny_paths = value::patterns(text)?;
            Ok(())
        },
    },
    Definition {
        name: "firewall.max_headers",
        kind: Value("COUNT"),
        default: "100 in all",
        doc: "No request has more headers; fewer than 100 can be said here",
        set: |settings, text| {
            let _: () = settings.defence.firewall.most_headers = Some(value::count(text, 1)?);
            Ok(())
        },
    },
    Definition {
        name: "firewall.max_header_bytes",
        kind: Value("SIZE"),
        default: "16kB in all",
        doc: "No request has longer headers, names and values together",
        set: |settings, text| {
            let _: () = settings.defence.firewall.most_header_bytes =
                Some(value::bytes(text).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))?);
            Ok(())
        },
    },
    Definition {
        name: "firewall.max_body",
        kind: Value("SIZE"),
        default: "what each API takes",
        doc: "No request announces a longer body, files included",
        set: |settings, text| {
            let _: () = settings.defence.firewall.most_body_bytes = Some(value::bytes(text)?);
            Ok(())
        },
    },
    Definition {
        name: "database.connections",
        kind: Value("COUNT"),
        default: "twice the processors, at least 4",
        doc: "Connections to a PostgreSQL server; requests share them",
        set: |settings, text| {
            let _: () = settings.connections = value::count(text, 1)?;
            Ok(())
        },
    },
    Definition {
        name: "database.max_waiting",
        kind: Value("COUNT"),
        default: "1000",
        doc: "Requests that may wait for the database; one more is answered with 503",
        set: |settings, text| {
            let _: () = settings.max_waiting = value::count(text, 1)?;
            Ok(())
        },
    },
    Definition {
        name: "log",
        kind: Value("WHAT"),
        default: "faults",
        doc: "What is told on standard error while it runs: nothing but what it cannot do, faults and news, or requests (each of them too)",
        set: |settings, text| {
            let _: () = settings.log = value::log(text)?;
            Ok(())
        },
    },
];

/// Where sign-in is switched off there is nothing to set.
fn with_auth(settings: &mut Settings, set: impl FnOnce(&mut ntier_auth::Settings)) {
    if let Some(auth) = &mut settings.auth {
        set(auth);
    }
}

/// The page `docs/reference/settings.md`.
#[cfg(test)]
fn reference() -> String {
    let mut page = String::from(
        "# Settings\n\nMade from the tables in `tiers/src/settings/definitions.rs` and `balance.rs`; `cargo test -p ntier` says when it is not.\n\n\
         A later source wins: the defaults, the project's `supabase/config.toml`, `ntier.toml` beside the folder `supabase/`, the \
         environment, the flags. All faults are told together, with the file and the line.\n\n\
         | in `ntier.toml` | flag | environment | default | meaning |\n|---|---|---|---|---|\n",
    );
    for definition in definitions() {
        let value = match definition.kind {
            Boolean => String::new(),
            Path(value) | Value(value) => format!(" {value}"),
        };
        let (name, flag, environment) = (definition.name, definition.flag(), definition.environment());
        page.push_str(&format!(
            "| `{name}` | `--{flag}{value}` | `{environment}` | {} | {} |\n",
            definition.default, definition.doc
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Mode;

    #[test]
    fn the_reference_has_every_setting() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/settings.md");
        if std::env::var_os("NTIER_WRITE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            reference(),
            "NTIER_WRITE_DOCS=1 cargo test -p ntier writes it"
        );
    }

    #[test]
    fn the_defaults_in_the_table_are_the_defaults() {
        let fresh = Settings::new(Mode::Serve);
        for definition in definitions() {
            let mut settings = fresh.clone();
            if definition.default.contains(' ') || ["none", "any"].contains(&definition.default) {
                continue;
            }
            (definition.set)(&mut settings, definition.default.split(';').next().unwrap()).unwrap();
            assert_eq!(settings, fresh, "{}", definition.name);
        }
    }

    #[test]
    fn names_become_flags_and_environment() {
        let definition = Definition::find("api.max_rows").unwrap();
        assert_eq!(
            (definition.flag().as_str(), definition.environment().as_str()),
            ("api-max-rows", "NTIER_API_MAX_ROWS")
        );
    }
}
