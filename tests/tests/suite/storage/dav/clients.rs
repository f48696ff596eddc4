//! Programs of others against a bucket: litmus, which tests servers of WebDAV, and rclone.

use std::fs;
use std::path::Path;
use std::process::Command;

use ntier_tests::{World, npm, on_both};
use serde_json::json;

use super::super::bucket;
use super::{OPEN, sign_up};

on_both!(litmus_is_content, rclone_brings_a_tree_there_and_back);

fn litmus_is_content(world: &mut World) {
    bucket(world, "files", json!({}));
    world.sql(OPEN);
    sign_up(world, "ada@example.com", "correct horse battery");
    let url = format!("{}/storage/v1/dav/files/", world.node.url);
    for (name, password) in [("ada@example.com", "correct horse battery"), ("anything", world.key("secret_key"))] {
        let mut litmus = Command::new("litmus");
        let said = npm::output(litmus.args([&url, name, password]).current_dir(world.scratch()));
        let (passed, failed) = (said.matches(" 0 failed. 100.0%").count(), said.matches("WARNING").count());
        assert_eq!((passed, failed), (5, 0), "{said}");
    }
}

fn rclone_brings_a_tree_there_and_back(world: &mut World) {
    bucket(world, "files", json!({}));
    world.sql(OPEN);
    sign_up(world, "ada@example.com", "correct horse battery");
    let (from, back) = (world.scratch().join("from"), world.scratch().join("back"));
    for number in 0..40_usize {
        let folder = from.join(format!("folder {}/ö{}", number % 4, number % 3));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{number}.bin")), vec![b'x'; number * number * 37]).unwrap();
    }
    let url = format!("{}/storage/v1/dav/files", world.node.url);
    let rclone = |arguments: &[&str], (name, password): (&str, &str)| {
        let obscured = npm::output(Command::new("rclone").args(["obscure", password]));
        let mut command = Command::new("rclone");
        command.args(arguments).env("RCLONE_CONFIG", world.scratch().join("rclone.conf"));
        command.env("RCLONE_WEBDAV_URL", &url).env("RCLONE_WEBDAV_VENDOR", "other");
        command.env("RCLONE_WEBDAV_USER", name).env("RCLONE_WEBDAV_PASS", obscured.trim());
        npm::output(&mut command)
    };
    fs::write(world.scratch().join("rclone.conf"), "").unwrap();
    let (user, key) = (("ada@example.com", "correct horse battery"), ("anything", world.key("secret_key")));
    rclone(&["copy", &from.to_string_lossy(), ":webdav:tree", "--transfers", "16"], user);
    rclone(&["copy", ":webdav:tree", &back.to_string_lossy(), "--transfers", "16"], key);
    npm::output(Command::new("diff").arg("-r").args([&from, &back]));
    // The same again is nothing; what is gone here goes there.
    fs::remove_dir_all(from.join("folder 1")).unwrap();
    fs::write(from.join("folder 2/new.txt"), "new").unwrap();
    rclone(&["sync", &from.to_string_lossy(), ":webdav:tree"], key);
    assert!(Path::new(&back.join("folder 1")).exists());
    rclone(&["sync", ":webdav:tree", &back.to_string_lossy()], user);
    npm::output(Command::new("diff").arg("-r").args([&from, &back]));
    assert_eq!(world.sql("select count(*) from auth.sessions")[0]["count"], 1, "that of signing up");
}
