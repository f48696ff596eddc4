//! Files with S3's own clients: boto3, aws-cli and rclone, unmodified (`tests/clients/s3.py`). By hand the same with a thousand files and
//! a hundred megabytes.

use ntier_tests::{Backend, World, directory, npm, python};

/// What the clients are told to send, and so what the project allows.
const FILES: &str = "40";
const LARGE_MB: &str = "20";
const LIMIT: &str = "40000000";

const POLICIES: &str = "create policy own on storage.objects for all to authenticated
    using (bucket_id = 'people' and (storage.foldername(name))[1] = auth.uid()::text)
    with check (bucket_id = 'people' and (storage.foldername(name))[1] = auth.uid()::text)";

fn clients_of_s3(backend: Backend) {
    let clients = directory::repository().join("tests/clients");
    python::install(&clients.join("requirements.txt"));
    let world = World::start_with(backend, &["--storage-file-size-limit", LIMIT]);
    world.sql(POLICIES);
    let mut command = python::command();
    command.arg(clients.join("s3.py")).env("NTIER_URL", &world.node.url).env("FILES", FILES).env("LARGE_MB", LARGE_MB);
    for (name, key) in [
        ("S3_ACCESS_KEY_ID", "s3_access_key_id"),
        ("S3_SECRET_ACCESS_KEY", "s3_secret_access_key"),
        ("ANON_KEY", "anon_key"),
        ("JWT_SECRET", "jwt_secret"),
    ] {
        command.env(name, world.key(key));
    }
    let said = npm::output(&mut command);
    // Whoever runs the suite has aws and rclone.
    assert!(said.ends_with("all is well\n") && !said.contains("in the path"), "{said}");
    println!("{said}");
}

#[test]
fn clients_of_s3_embedded() {
    clients_of_s3(Backend::Embedded);
}

#[test]
fn clients_of_s3_server() {
    clients_of_s3(Backend::Server);
}
