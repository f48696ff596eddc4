//! Clients meet on channels, by the unmodified supabase-js.

mod behaviour;
mod changes;
mod nodes;
mod private;

use ntier_tests::{World, directory, npm, on_both};

on_both!(clients_meet_on_channels);

fn clients_meet_on_channels(world: &mut World) {
    let folder = directory::repository().join("tests/clients/realtime");
    npm::install(&folder);
    for vsn in ["1.0.0", "2.0.0"] {
        let mut command = npm::command("node", &folder);
        command.arg("meet.mjs").env("URL", &world.node.url).env("KEY", world.key("publishable_key")).env("VSN", vsn);
        let said = npm::output(&mut command);
        assert_eq!(said.lines().count(), 7, "{vsn}: {said}");
    }
}
