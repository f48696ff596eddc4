//! The providers that have a name in `config.toml`: what is known of each, as data.
//!
//! Source: each provider's own documentation, and GoTrue, `internal/api/provider`, for scopes and for what is kept of a profile.

use super::profile::{EmailShape, Shape, Verified};

/// What is known of a provider by its name.
#[derive(Debug)]
pub struct Named {
    pub name: &'static str,
    /// What is asked for in any case.
    pub scopes: &'static [&'static str],
    /// Parameters of the authorization request.
    pub parameters: &'static [(&'static str, &'static str)],
    /// It understands the proof that whoever ends the flow has begun it (RFC 7636).
    pub pkce: bool,
    pub verified: Verified,
    pub speech: Speech,
}

/// How it is talked to.
#[derive(Debug)]
pub enum Speech {
    /// OpenID Connect: everything else is found at the issuer, which the settings may name (`url`), or have to where there is none.
    OpenId { issuer: Option<&'static str>, custom: &'static [&'static str] },
    /// OAuth 2 with a profile of the provider's own form.
    OAuth(&'static Api),
}

/// The addresses of a provider's API. Where the settings name a `url`, it takes the place of all three hosts.
#[derive(Debug)]
pub struct Api {
    pub authorize: Place,
    pub token: Place,
    pub profile: Place,
    /// Where all addresses are, if not in the profile.
    pub emails: Option<(Place, EmailShape)>,
    /// Headers of requests for the profile; `{client_id}` stands for it.
    pub headers: &'static [(&'static str, &'static str)],
    /// The client's secret goes in a header when the code is exchanged (RFC 6749, 2.3.1); else in the body.
    pub basic: bool,
    pub shape: Shape,
}

/// A host, and a path there.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub host: &'static str,
    /// Where the settings name a `url`: what comes between it and the path.
    pub mount: &'static str,
    pub path: &'static str,
}

const fn at(host: &'static str, path: &'static str) -> Place {
    Place { host, mount: "", path }
}

impl Place {
    /// The whole address; `url` is what the settings say.
    pub fn address(self, url: Option<&str>) -> String {
        match url {
            Some(url) => format!("{}{}{}", url.trim_end_matches('/'), self.mount, self.path),
            None => format!("{}{}", self.host, self.path),
        }
    }
}

/// The provider of this name.
pub fn find(name: &str) -> Option<&'static Named> {
    ALL.iter().find(|named| named.name == name)
}

const CLAIM: Verified = Verified::Flag("/email_verified");

const fn open_id(name: &'static str, issuer: Option<&'static str>, scopes: &'static [&'static str]) -> Named {
    Named { name, scopes, parameters: &[], pkce: true, verified: CLAIM, speech: Speech::OpenId { issuer, custom: &[] } }
}

const fn oauth(name: &'static str, scopes: &'static [&'static str], api: &'static Api) -> Named {
    Named { name, scopes, parameters: &[], pkce: false, verified: CLAIM, speech: Speech::OAuth(api) }
}

/// All of them, in the order of their names.
pub const ALL: &[Named] = &[
    Named {
        parameters: &[("response_mode", "form_post")],
        pkce: false,
        verified: Verified::Always,
        speech: Speech::OpenId {
            issuer: Some("https://appleid.apple.com"),
            custom: &["is_private_email", "auth_time", "transfer_sub"],
        },
        ..open_id("apple", None, &["email", "name"])
    },
    Named {
        verified: Verified::DomainOwner("/xms_edov"),
        speech: Speech::OpenId {
            issuer: Some("https://login.microsoftonline.com/common/v2.0"),
            custom: &["email", "oid", "tid", "upn", "groups", "roles", "xms_edov", "login_hint", "sid"],
        },
        ..open_id("azure", None, &["openid"])
    },
    oauth(
        "bitbucket",
        &["account", "email"],
        &Api {
            authorize: at("https://bitbucket.org", "/site/oauth2/authorize"),
            token: at("https://bitbucket.org", "/site/oauth2/access_token"),
            profile: at("https://api.bitbucket.org", "/2.0/user"),
            emails: Some((
                at("https://api.bitbucket.org", "/2.0/user/emails"),
                EmailShape {
                    list: "/values",
                    email: "/email",
                    verified: Verified::Flag("/is_confirmed"),
                    primary: "/is_primary",
                },
            )),
            headers: &[],
            basic: true,
            shape: Shape {
                subject: "/uuid",
                email: "",
                verified: Verified::Never,
                claims: &[
                    ("name", &["{/display_name}"]),
                    ("picture", &["{/avatar/href}", "{/links/avatar/href}"]),
                    ("avatar_url", &["{/avatar/href}", "{/links/avatar/href}"]),
                    ("full_name", &["{/display_name}"]),
                ],
                custom: &[],
            },
        },
    ),
    oauth(
        "discord",
        &["email", "identify"],
        &Api {
            authorize: at("https://discord.com", "/api/oauth2/authorize"),
            token: at("https://discord.com", "/api/oauth2/token"),
            profile: at("https://discord.com", "/api/users/@me"),
            emails: None,
            headers: &[],
            basic: false,
            shape: Shape {
                subject: "/id",
                email: "/email",
                verified: Verified::Flag("/verified"),
                claims: &[
                    ("name", &["{/username}#{/discriminator}", "{/username}"]),
                    ("picture", &["https://cdn.discordapp.com/avatars/{/id}/{/avatar}.png"]),
                    ("avatar_url", &["https://cdn.discordapp.com/avatars/{/id}/{/avatar}.png"]),
                    ("full_name", &["{/username}"]),
                ],
                custom: &[("global_name", "/global_name")],
            },
        },
    ),
    oauth(
        "facebook",
        &["email"],
        &Api {
            authorize: at("https://www.facebook.com", "/dialog/oauth"),
            token: at("https://graph.facebook.com", "/oauth/access_token"),
            profile: at("https://graph.facebook.com", "/me?fields=email,first_name,last_name,name,picture"),
            emails: None,
            headers: &[],
            basic: false,
            shape: Shape {
                subject: "/id",
                email: "/email",
                verified: Verified::Always,
                claims: &[
                    ("name", &["{/first_name} {/last_name}", "{/name}"]),
                    ("nickname", &["{/name}"]),
                    ("picture", &["{/picture/data/url}"]),
                    ("avatar_url", &["{/picture/data/url}"]),
                    ("full_name", &["{/first_name} {/last_name}", "{/name}"]),
                ],
                custom: &[],
            },
        },
    ),
    oauth(
        "figma",
        &["current_user:read"],
        &Api {
            authorize: at("https://www.figma.com", "/oauth"),
            token: at("https://api.figma.com", "/v1/oauth/token"),
            profile: at("https://api.figma.com", "/v1/me"),
            emails: None,
            headers: &[],
            basic: true,
            shape: Shape {
                subject: "/id",
                email: "/email",
                verified: Verified::Always,
                claims: &[
                    ("name", &["{/handle}"]),
                    ("picture", &["{/img_url}"]),
                    ("avatar_url", &["{/img_url}"]),
                    ("full_name", &["{/handle}"]),
                ],
                custom: &[],
            },
        },
    ),
    oauth(
        "github",
        &["user:email"],
        &Api {
            authorize: at("https://github.com", "/login/oauth/authorize"),
            token: at("https://github.com", "/login/oauth/access_token"),
            profile: Place { host: "https://api.github.com", mount: "/api/v3", path: "/user" },
            emails: Some((
                Place { host: "https://api.github.com", mount: "/api/v3", path: "/user/emails" },
                EmailShape { list: "", email: "/email", verified: Verified::Flag("/verified"), primary: "/primary" },
            )),
            headers: &[("user-agent", "ntier")],
            basic: false,
            shape: Shape {
                subject: "/id",
                email: "",
                verified: Verified::Never,
                claims: &[
                    ("name", &["{/name}"]),
                    ("preferred_username", &["{/login}"]),
                    ("avatar_url", &["{/avatar_url}"]),
                    ("full_name", &["{/name}"]),
                    ("user_name", &["{/login}"]),
                ],
                custom: &[],
            },
        },
    ),
    oauth(
        "gitlab",
        &["read_user"],
        &Api {
            authorize: at("https://gitlab.com", "/oauth/authorize"),
            token: at("https://gitlab.com", "/oauth/token"),
            profile: at("https://gitlab.com", "/api/v4/user"),
            emails: None,
            headers: &[],
            basic: false,
            shape: Shape {
                subject: "/id",
                email: "/email",
                verified: Verified::Present("/confirmed_at"),
                claims: &[
                    ("name", &["{/name}"]),
                    ("picture", &["{/avatar_url}"]),
                    ("avatar_url", &["{/avatar_url}"]),
                    ("full_name", &["{/name}"]),
                ],
                custom: &[],
            },
        },
    ),
    Named {
        speech: Speech::OpenId { issuer: Some("https://accounts.google.com"), custom: &["hd"] },
        ..open_id("google", None, &["openid", "email", "profile"])
    },
    oauth(
        "kakao",
        &["account_email", "profile_image", "profile_nickname"],
        &Api {
            authorize: at("https://kauth.kakao.com", "/oauth/authorize"),
            token: at("https://kauth.kakao.com", "/oauth/token"),
            profile: at("https://kapi.kakao.com", "/v2/user/me"),
            emails: None,
            headers: &[],
            basic: false,
            shape: Shape {
                subject: "/id",
                email: "/kakao_account/email",
                verified: Verified::Flag("/kakao_account/is_email_verified"),
                claims: &[
                    ("name", &["{/kakao_account/profile/nickname}"]),
                    ("preferred_username", &["{/kakao_account/profile/nickname}"]),
                    ("avatar_url", &["{/kakao_account/profile/profile_image_url}"]),
                    ("full_name", &["{/kakao_account/profile/nickname}"]),
                    ("user_name", &["{/kakao_account/profile/nickname}"]),
                ],
                custom: &[],
            },
        },
    ),
    open_id("keycloak", None, &["openid", "profile", "email"]),
    Named {
        pkce: false,
        ..open_id("linkedin_oidc", Some("https://www.linkedin.com/oauth"), &["openid", "email", "profile"])
    },
    oauth(
        "notion",
        &[],
        &Api {
            authorize: at("https://api.notion.com", "/v1/oauth/authorize"),
            token: at("https://api.notion.com", "/v1/oauth/token"),
            profile: at("https://api.notion.com", "/v1/users/me"),
            emails: None,
            headers: &[("notion-version", "2021-08-16")],
            basic: true,
            shape: Shape {
                subject: "/bot/owner/user/id",
                email: "/bot/owner/user/person/email",
                verified: Verified::Always,
                claims: &[
                    ("name", &["{/bot/owner/user/name}"]),
                    ("picture", &["{/bot/owner/user/avatar_url}"]),
                    ("avatar_url", &["{/bot/owner/user/avatar_url}"]),
                    ("full_name", &["{/bot/owner/user/name}"]),
                ],
                custom: &[],
            },
        },
    ),
    Named {
        pkce: false,
        speech: Speech::OpenId {
            issuer: Some("https://slack.com"),
            custom: &["https://slack.com/team_id", "https://slack.com/user_id"],
        },
        ..open_id("slack_oidc", None, &["openid", "profile", "email"])
    },
    oauth(
        "spotify",
        &["user-read-email"],
        &Api {
            authorize: at("https://accounts.spotify.com", "/authorize"),
            token: at("https://accounts.spotify.com", "/api/token"),
            profile: at("https://api.spotify.com/v1", "/me"),
            emails: None,
            headers: &[],
            basic: true,
            shape: Shape {
                subject: "/id",
                email: "/email",
                verified: Verified::Never,
                claims: &[
                    ("name", &["{/display_name}"]),
                    ("picture", &["{/images/0/url}"]),
                    ("avatar_url", &["{/images/0/url}"]),
                    ("full_name", &["{/display_name}"]),
                ],
                custom: &[],
            },
        },
    ),
    oauth(
        "twitch",
        &["user:read:email"],
        &Api {
            authorize: at("https://id.twitch.tv", "/oauth2/authorize"),
            token: at("https://id.twitch.tv", "/oauth2/token"),
            profile: at("https://api.twitch.tv", "/helix/users"),
            emails: None,
            headers: &[("client-id", "{client_id}")],
            basic: false,
            shape: Shape {
                subject: "/data/0/id",
                email: "/data/0/email",
                verified: Verified::Always,
                claims: &[
                    ("name", &["{/data/0/login}"]),
                    ("nickname", &["{/data/0/display_name}"]),
                    ("picture", &["{/data/0/profile_image_url}"]),
                    ("avatar_url", &["{/data/0/profile_image_url}"]),
                    ("full_name", &["{/data/0/login}"]),
                ],
                custom: &[("broadcaster_type", "/data/0/broadcaster_type"), ("description", "/data/0/description")],
            },
        },
    ),
    Named {
        pkce: true,
        ..oauth(
            "x",
            &["users.email", "tweet.read", "users.read", "offline.access"],
            &Api {
                authorize: at("https://x.com", "/i/oauth2/authorize"),
                token: at("https://api.x.com", "/2/oauth2/token"),
                profile: at(
                    "https://api.x.com",
                    "/2/users/me?user.fields=confirmed_email,profile_image_url,url,created_at",
                ),
                emails: None,
                headers: &[],
                basic: true,
                shape: Shape {
                    subject: "/data/id",
                    email: "/data/confirmed_email",
                    verified: Verified::Always,
                    claims: &[
                        ("name", &["{/data/name}"]),
                        ("picture", &["{/data/profile_image_url}"]),
                        ("preferred_username", &["{/data/username}"]),
                        ("avatar_url", &["{/data/profile_image_url}"]),
                        ("full_name", &["{/data/name}"]),
                        ("user_name", &["{/data/username}"]),
                    ],
                    custom: &[],
                },
            },
        )
    },
    oauth(
        "zoom",
        &[],
        &Api {
            authorize: at("https://zoom.us", "/oauth/authorize"),
            token: at("https://zoom.us", "/oauth/token"),
            profile: at("https://api.zoom.us", "/v2/users/me"),
            emails: None,
            headers: &[],
            basic: true,
            shape: Shape {
                subject: "/id",
                email: "/email",
                verified: Verified::Flag("/verified"),
                claims: &[
                    ("name", &["{/first_name} {/last_name}", "{/display_name}"]),
                    ("picture", &["{/pic_url}"]),
                    ("avatar_url", &["{/pic_url}"]),
                    ("full_name", &["{/first_name} {/last_name}", "{/display_name}"]),
                ],
                custom: &[],
            },
        },
    ),
];

/// Supabase knows them, and they are not served here: `linkedin` and `slack` in their old form (use `linkedin_oidc`, `slack_oidc`),
/// `twitter` (OAuth 1; use `x`), `fly`, `snapchat`, `vercel_marketplace` and `workos`.
pub const NOT_SERVED: &[&str] = &["fly", "linkedin", "slack", "snapchat", "twitter", "vercel_marketplace", "workos"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_addresses_are_whole() {
        assert!(ALL.is_sorted_by(|one, other| one.name < other.name));
        for named in ALL {
            if let Speech::OAuth(api) = &named.speech {
                for place in [api.authorize, api.token, api.profile] {
                    let address = place.address(None);
                    assert!(address.starts_with("https://") && address.parse::<http::Uri>().is_ok(), "{address}");
                    let own = place.address(Some("http://localhost:1/"));
                    assert!(own.starts_with("http://localhost:1/"), "{own}");
                }
            }
        }
    }
}
