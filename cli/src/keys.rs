//! `ntier keys`: shows what clients need to connect, and the secrets, to whoever may read the file.

use clap::ArgMatches;
use ntier::settings::Mode;
use serde_json::json;

use crate::arguments;
use crate::failure::Failure;

pub fn run(flags: &ArgMatches) -> Result<(), Failure> {
    let loaded = arguments::settings(flags, Mode::Serve)?;
    let keys = ntier::keys::existing(&loaded.settings)?;
    if flags.get_flag("json") {
        let keys = json!({
            "publishable_key": keys.publishable_key,
            "secret_key": keys.secret_key.expose(),
            "anon_key": keys.anon_key,
            "service_role_key": keys.service_role_key.expose(),
            "jwt_secret": keys.jwt_secret.expose(),
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
    Ok(())
}
