//! What realtime-js promises of itself, with a server that is there, is cut off, is silent, and goes and comes again.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ntier_tests::wire::Wire;
use ntier_tests::{World, directory, npm, on_both};

on_both!(clients_behave_as_they_promise, clients_come_back_to_a_node_that_was_away);

fn client(world: &World, url: &str, vsn: &str) -> Command {
    let folder = directory::repository().join("tests/clients/realtime");
    npm::install(&folder);
    let mut command = npm::command("node", &folder);
    command.arg("behaviour.mjs").env("URL", url).env("KEY", world.key("publishable_key")).env("VSN", vsn);
    command
}

fn clients_behave_as_they_promise(world: &mut World) {
    for vsn in ["1.0.0", "2.0.0"] {
        let said = npm::output(&mut client(world, &world.node.url, vsn));
        assert_eq!(said.lines().count(), 15, "{vsn}: {said}");
    }
}

/// It may stop with a word, or be killed.
fn clients_come_back_to_a_node_that_was_away(world: &mut World) {
    let wire = Wire::new(&world.node.url);
    wire.pass(u64::MAX);
    for (vsn, is_killed) in [("1.0.0", true), ("2.0.0", true), ("2.0.0", false)] {
        let mut client = client(world, &wire.url, vsn);
        let mut running = client.arg("stays").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(running.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("joined"), "{vsn}");
        if is_killed {
            world.node.kill();
        } else {
            world.node.stop();
        }
        world.restart();
        wire.lead(&world.node.url, true);
        assert_eq!(lines.next().as_deref(), Some("joined again"), "{vsn}");
        assert!(running.wait().unwrap().success(), "{vsn}");
    }
}
