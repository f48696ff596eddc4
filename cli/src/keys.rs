//! `ntier keys`: shows what clients need to connect, and the secrets, to whoever may read the file; `ntier keys rotate` lets
//! another key sign, and shows no secrets.

use clap::ArgMatches;
use ntier::keys::Rotation;
use ntier::settings::Mode;
use ntier_security::signing::{Algorithm, Pair};
use serde_json::json;

use crate::arguments;
use crate::failure::Failure;

pub fn run(flags: &ArgMatches) -> Result<(), Failure> {
    if let Some(("rotate", flags)) = flags.subcommand() {
        return rotate(flags);
    }
    let loaded = arguments::settings(flags, Mode::Serve)?;
    let keys = ntier::keys::existing(&loaded.settings)?;
    if flags.get_flag("json") {
        let keys = json!({
            "publishable_key": keys.publishable_key,
            "secret_key": keys.secret_key.expose(),
            "anon_key": keys.anon_key,
            "service_role_key": keys.service_role_key.expose(),
            "jwt_secret": keys.jwt_secret.expose(),
            "s3_access_key_id": keys.s3.as_ref().map(|key| &key.access_key_id),
            "s3_secret_access_key": keys.s3.as_ref().map(|key| key.secret_access_key.expose()),
        });
        println!("{keys:#}");
        return Ok(());
    }
    println!(
        "For browsers and apps: row level security decides what they may do\n  \
         publishable key   {}\n  \
         anon key          {}\n\n\
         For servers only: whoever has one of these may do everything\n  \
         secret key        {}\n  \
         service_role key  {}\n  \
         JWT secret        {}",
        keys.publishable_key,
        keys.anon_key,
        keys.secret_key.expose(),
        keys.service_role_key.expose(),
        keys.jwt_secret.expose(),
    );
    if let Some(key) = &keys.s3 {
        let (id, secret) = (&key.access_key_id, key.secret_access_key.expose());
        println!("  S3 access key     {id}\n  S3 secret key     {secret}");
    }
    Ok(())
}

fn rotate(flags: &ArgMatches) -> Result<(), Failure> {
    let loaded = arguments::settings(flags, Mode::Serve)?;
    let algorithm = flags.get_one::<String>("algorithm").and_then(|name| Algorithm::named(name));
    let rotation = ntier::keys::rotate(&loaded.settings, algorithm)?;
    for line in told(&rotation) {
        println!("{line}");
    }
    let signing = &rotation.after.signing_key_id;
    if !rotation.before.standby.iter().any(|pair| pair.id == *signing) {
        eprintln!(
            "note: {signing} was not published before: whoever keeps the public keys for a while does not know it yet"
        );
    }
    Ok(())
}

/// What a rotation has done, in ids and algorithms.
fn told(rotation: &Rotation) -> Vec<String> {
    let Rotation { before, after, at, token_life } = rotation;
    let line = |what: &str, pair: &Pair| format!("{what:<13} {} {}", pair.algorithm, pair.id);
    let mut lines = vec![line("signs now", &after.signing())];
    lines.extend(after.standby.iter().map(|pair| line("signs next", pair)));
    for retired in &after.previous {
        let minutes = (retired.ends(*token_life) - at).div_euclid(60) + 1;
        lines.push(format!("{} for {minutes} more minutes", line("verifies", &retired.pair)));
    }
    let known = |id: &str| after.previous.iter().any(|retired| retired.pair.id == id);
    let dropped = before.previous.iter().filter(|retired| !known(&retired.pair.id));
    lines.extend(dropped.map(|retired| line("dropped", &retired.pair)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use ntier_security::keys::Keys;

    #[test]
    fn a_rotation_tells_ids_and_no_secrets() {
        let keys = |now| Keys::generate(now).unwrap();
        let before = keys(0).rotate(Algorithm::Rs256, 0, 60).unwrap();
        let after = before.clone().rotate(Algorithm::EdDsa, 3600, 3600 - 90).unwrap();
        let rotation = Rotation { before, after, at: 3600, token_life: 3600 - 90 };
        let Rotation { before, after, .. } = &rotation;
        let expected = [
            format!("signs now     EdDSA {}", after.signing_key_id),
            format!("signs next    EdDSA {}", after.standby[0].id),
            format!("verifies      RS256 {} for 61 more minutes", before.signing_key_id),
            format!("verifies      ES256 {} for 1 more minutes", before.previous[0].pair.id),
        ];
        assert_eq!(told(&rotation), expected);
        let later = before.clone().rotate(Algorithm::EdDsa, 3601, 3600 - 90).unwrap();
        let rotation = Rotation { before: before.clone(), after: later, at: 3601, token_life: 3600 - 90 };
        let dropped = format!("dropped       ES256 {}", before.previous[0].pair.id);
        assert_eq!(told(&rotation).last(), Some(&dropped));
    }
}
