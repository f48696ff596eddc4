//! The keys of Supabase's `config.toml`, so that a misspelt one is told from one that has no effect yet.
//!
//! Source: the template and the types of the Supabase CLI. `*` stands for one name of the user's own.

/// Sections with the keys that may stand in them.
const SECTIONS: &[(&str, &str)] = &[
    ("", "project_id"),
    ("api", "enabled port schemas extra_search_path max_rows auto_expose_new_tables external_url"),
    ("api.tls", "enabled cert_path key_path"),
    ("db", "port shadow_port health_timeout major_version root_key"),
    ("db.pooler", "enabled port pool_mode default_pool_size max_client_conn"),
    ("db.vault", "*"),
    ("db.settings", "*"),
    ("db.migrations", "enabled schema_paths"),
    ("db.seed", "enabled sql_paths"),
    ("db.network_restrictions", "enabled allowed_cidrs allowed_cidrs_v6"),
    ("db.ssl_enforcement", "enabled"),
    ("realtime", "enabled ip_version max_header_length"),
    ("studio", "enabled port api_url openai_api_key pgmeta_port"),
    ("inbucket", "enabled port smtp_port pop3_port admin_email sender_name"),
    ("local_smtp", "enabled port smtp_port pop3_port admin_email sender_name"),
    ("storage", "enabled file_size_limit"),
    ("storage.buckets.*", "public file_size_limit allowed_mime_types objects_path"),
    ("storage.s3_protocol", "enabled"),
    ("storage.image_transformation", "enabled"),
    ("storage.analytics", "enabled max_namespaces max_tables max_catalogs"),
    ("storage.analytics.buckets.*", ""),
    ("storage.vector", "enabled max_buckets max_indexes"),
    ("storage.vector.buckets.*", ""),
    (
        "auth",
        "enabled site_url external_url additional_redirect_urls jwt_expiry jwt_issuer signing_keys_path \
         enable_refresh_token_rotation refresh_token_reuse_interval enable_signup enable_anonymous_sign_ins \
         enable_manual_linking minimum_password_length password_requirements publishable_key secret_key jwt_secret \
         anon_key service_role_key",
    ),
    ("auth.passkey", "enabled"),
    ("auth.webauthn", "rp_display_name rp_id rp_origins"),
    ("auth.rate_limit", "email_sent sms_sent anonymous_users token_refresh sign_in_sign_ups token_verifications web3"),
    ("auth.captcha", "enabled provider secret"),
    ("auth.sessions", "timebox inactivity_timeout"),
    (
        "auth.email",
        "enable_signup double_confirm_changes enable_confirmations secure_password_change max_frequency otp_length \
         otp_expiry",
    ),
    ("auth.email.smtp", "enabled host port user pass admin_email sender_name"),
    ("auth.email.template.confirmation", "subject content content_path"),
    ("auth.email.template.recovery", "subject content content_path"),
    ("auth.email.template.magic_link", "subject content content_path"),
    ("auth.email.template.invite", "subject content content_path"),
    ("auth.email.template.email_change", "subject content content_path"),
    ("auth.email.template.reauthentication", "subject content content_path"),
    ("auth.email.notification.password_changed", "enabled subject content content_path"),
    ("auth.email.notification.email_changed", "enabled subject content content_path"),
    ("auth.email.notification.phone_changed", "enabled subject content content_path"),
    ("auth.email.notification.identity_linked", "enabled subject content content_path"),
    ("auth.email.notification.identity_unlinked", "enabled subject content content_path"),
    ("auth.email.notification.mfa_factor_enrolled", "enabled subject content content_path"),
    ("auth.email.notification.mfa_factor_unenrolled", "enabled subject content content_path"),
    ("auth.sms", "enable_signup enable_confirmations template max_frequency"),
    ("auth.sms.test_otp", "*"),
    ("auth.sms.twilio", "enabled account_sid message_service_sid auth_token"),
    ("auth.sms.twilio_verify", "enabled account_sid message_service_sid auth_token"),
    ("auth.sms.messagebird", "enabled originator access_key"),
    ("auth.sms.textlocal", "enabled sender api_key"),
    ("auth.sms.vonage", "enabled from api_key api_secret"),
    ("auth.hook.*", "enabled uri secrets"),
    ("auth.mfa", "max_enrolled_factors"),
    ("auth.mfa.totp", "enroll_enabled verify_enabled"),
    ("auth.mfa.web_authn", "enroll_enabled verify_enabled"),
    ("auth.mfa.phone", "enroll_enabled verify_enabled otp_length template max_frequency"),
    ("auth.external.*", "enabled client_id secret url redirect_uri skip_nonce_check email_optional"),
    ("auth.web3.*", "enabled"),
    ("auth.third_party.firebase", "enabled project_id"),
    ("auth.third_party.auth0", "enabled tenant tenant_region"),
    ("auth.third_party.aws_cognito", "enabled user_pool_id user_pool_region"),
    ("auth.third_party.clerk", "enabled domain"),
    ("auth.third_party.workos", "enabled issuer_url"),
    ("auth.oauth_server", "enabled authorization_url_path allow_dynamic_registration"),
    ("edge_runtime", "enabled policy inspector_port deno_version"),
    ("edge_runtime.secrets", "*"),
    ("functions.*", "enabled verify_jwt import_map entrypoint static_files"),
    ("analytics", "enabled port vector_port backend gcp_project_id gcp_project_number gcp_jwt_path"),
    ("experimental", "orioledb_version s3_host s3_region s3_access_key s3_secret_key"),
    ("experimental.*", "*"),
    // A branch's own values may be any of the above.
    ("remotes", "*"),
];

/// Whether Supabase has this key.
pub fn is_known(path: &[&str]) -> bool {
    if path.first() == Some(&"remotes") {
        return true;
    }
    let Some((key, section)) = path.split_last() else { return true };
    SECTIONS.iter().any(|(name, keys)| {
        matches(name, section) && keys.split_ascii_whitespace().any(|known| known == "*" || known == *key)
    })
}

/// Whether it is a section, or leads to one.
pub fn is_section(path: &[&str]) -> bool {
    path.first() == Some(&"remotes")
        || SECTIONS.iter().any(|(name, _)| {
            let parts: Vec<&str> = name.split('.').collect();
            parts.len() >= path.len() && matches_parts(&parts[..path.len()], path)
        })
}

/// The known key of the same section that looks most like this one.
pub fn near(path: &[&str]) -> Option<&'static str> {
    let (key, section) = path.split_last()?;
    let keys = SECTIONS.iter().filter(|(name, _)| matches(name, section));
    let keys = keys.flat_map(|(_, keys)| keys.split_ascii_whitespace());
    let sections = SECTIONS.iter().filter_map(|(name, _)| {
        let parts: Vec<&str> = name.split('.').collect();
        matches_parts(&parts, section).then(|| parts.get(section.len()).copied()).flatten()
    });
    let candidates = keys.chain(sections).filter(|known| !matches!(*known, "*" | ""));
    let distances = candidates.map(|known| (distance(known, key), known));
    distances.min().filter(|(distance, _)| *distance <= 2 && *distance < key.len()).map(|(_, known)| known)
}

fn matches(name: &str, section: &[&str]) -> bool {
    let parts: Vec<&str> = name.split('.').filter(|part| !part.is_empty()).collect();
    parts.len() == section.len() && matches_parts(&parts, section)
}

fn matches_parts(parts: &[&str], path: &[&str]) -> bool {
    parts.iter().zip(path).all(|(part, given)| *part == "*" || part == given)
}

/// Levenshtein's.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_their_section() {
        for (path, known) in [
            ("project_id", true),
            ("api.port", true),
            ("port", false),
            ("api.max_row", false),
            ("auth.external.apple.client_id", true),
            ("auth.external.client_id", false),
            ("auth.sms.test_otp.4152127777", true),
            ("remotes.staging.api.max_rows", true),
        ] {
            assert_eq!(is_known(&path.split('.').collect::<Vec<_>>()), known, "{path}");
        }
        assert!(is_section(&["auth", "external", "x"]) && is_section(&["auth"]) && !is_section(&["auht"]));
    }

    #[test]
    fn a_misspelt_key_has_a_neighbour() {
        assert_eq!(near(&["api", "max_row"]), Some("max_rows"));
        assert_eq!(near(&["api", "schmeas"]), Some("schemas"));
        assert_eq!(near(&["api", "zebra"]), None);
    }
}
