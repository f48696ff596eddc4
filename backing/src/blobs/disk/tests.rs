//! What is particular to blobs as files.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::BodyExt;

use super::*;
use crate::blobs::Blobs;
use crate::blobs::tests::{bytes, ids, on_disk, read, runtime, write};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_folder_that_somebody_else_has_just_made_is_as_good() {
    let root = tempfile::tempdir().unwrap();
    let (folder, id) = (Folder::open(root.path()).unwrap(), BlobId::random());
    let is_again = std::cell::Cell::new(false);
    let put = |path: &Path| {
        if is_again.replace(true) {
            return fs::write(path, "a blob");
        }
        fs::create_dir(path.parent().unwrap())?;
        Err(io::ErrorKind::NotFound.into())
    };
    folder.place(&id, put).unwrap();
    assert!(folder.blob(&id).exists());
}

#[test]
fn what_is_given_up_leaves_nothing() {
    for size in [0, 10, 300_000, 2_000_000] {
        for finishing in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            // At its end everything that was begun has been done.
            let runtime = runtime();
            runtime.block_on(async {
                let blobs = Blobs::Disk(Disk::open(folder.path()).unwrap());
                let mut writer = blobs.writer().await.unwrap();
                writer.write(bytes(size)).await.unwrap();
                if finishing {
                    let mut finish = Box::pin(writer.finish());
                    let polled = finish.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    // A disk that is faster than this thread has nothing to give up.
                    if let Poll::Ready(written) = polled {
                        blobs.remove(&[written.unwrap().id]).await.unwrap();
                    }
                }
            });
            drop(runtime);
            assert_eq!(files(folder.path()), [""; 0].map(PathBuf::from), "{size} {finishing}");
        }
    }
}

#[test]
fn what_nobody_writes_any_more_is_cleaned() {
    on_disk(async |blobs, folder| {
        let mut writer = blobs.writer().await.unwrap();
        writer.write(bytes(600_000)).await.unwrap();
        let old = folder.join("tmp").join(BlobId::random().as_str());
        fs::write(&old, "abandoned").unwrap();
        File::open(&old).unwrap().set_modified(SystemTime::now() - Duration::from_hours(2)).unwrap();
        assert_eq!(blobs.clean(Duration::from_hours(1)).await.unwrap(), 1);
        assert!(!old.exists());
        let id = writer.finish().await.unwrap().id;
        assert!(read(blobs, &id, 0..600_000).await == bytes(600_000));
    });
}

#[test]
fn nobody_else_may_read_blobs() {
    on_disk(async |blobs, folder| {
        write(blobs, &bytes(10), 10).await;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for file in files(folder) {
            assert_eq!(mode(&file), 0o600, "{file:?}");
            assert_eq!(mode(file.parent().unwrap()), 0o700, "{file:?}");
        }
    });
}

#[test]
fn a_copy_takes_no_space_and_is_young() {
    on_disk(async |blobs, folder| {
        let first = write(blobs, &bytes(10), 10).await.id;
        let path = folder.join("blobs").join(&first.as_str()[..2]).join(first.as_str());
        File::open(&path).unwrap().set_modified(UNIX_EPOCH).unwrap();
        let before = SystemTime::now() - Duration::from_secs(5);
        let second = blobs.copy(&first).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
        let listed = blobs.list(None, 10).await.unwrap();
        let copy = listed.iter().find(|listed| listed.id == second).unwrap();
        assert!(copy.modified >= before, "the sweeper would take it before a row names it: {copy:?}");
    });
}

#[test]
fn where_there_are_no_links_bytes_are_copied() {
    on_disk(async |blobs, folder| {
        let first = write(blobs, &bytes(300_000), 300_000).await.id;
        let folder = Folder::open(folder).unwrap();
        let second = write::duplicate(&folder, &folder.blob(&first)).unwrap();
        assert!(read(blobs, &second, 0..300_000).await == bytes(300_000));
    });
}

#[test]
fn strangers_in_the_folder_are_not_listed() {
    on_disk(async |blobs, folder| {
        let id = write(blobs, &bytes(10), 10).await.id;
        fs::write(folder.join("blobs").join(&id.as_str()[..2]).join("README"), "hello").unwrap();
        fs::create_dir_all(folder.join("blobs/lost+found")).unwrap();
        assert_eq!(ids(blobs).await, [id]);
    });
}

#[test]
fn a_blob_that_somebody_has_cut_is_an_error() {
    on_disk(async |blobs, folder| {
        let id = write(blobs, &bytes(1_000_000), 1_000_000).await.id;
        let mut reader = blobs.read(&id, 0..1_000_000).await.unwrap();
        let path = folder.join("blobs").join(&id.as_str()[..2]).join(id.as_str());
        OpenOptions::new().write(true).open(path).unwrap().set_len(200_000).unwrap();
        let mut read = 0;
        let cause = loop {
            match reader.frame().await.expect("an error before the end") {
                Ok(frame) => read += frame.into_data().unwrap().len(),
                Err(cause) => break cause,
            }
        };
        assert_eq!((read, cause.kind()), (200_000, io::ErrorKind::UnexpectedEof));
        assert!(reader.frame().await.is_none());
    });
}

#[test]
fn what_is_not_in_the_page_cache_is_read_by_another_thread() {
    on_disk(async |blobs, folder| {
        let id = write(blobs, &bytes(3_000_000), 3_000_000).await.id;
        let path = folder.join("blobs").join(&id.as_str()[..2]).join(id.as_str());
        rustix::fs::fadvise(File::open(path).unwrap(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert!(read(blobs, &id, 100..3_000_000).await == bytes(3_000_000)[100..]);
    });
}

#[test]
fn a_folder_that_cannot_be_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = Disk::open(file.path().join("files")).unwrap_err();
    assert!(matches!(&refused, Error::Unwritable { .. }), "{refused}");
    on_disk(async |blobs, folder| {
        fs::remove_dir(folder.join("tmp")).unwrap();
        let mut writer = blobs.writer().await.unwrap();
        writer.write(Bytes::from_static(b"lost")).await.unwrap();
        assert!(matches!(writer.finish().await, Err(Error::Io(_))));
        fs::write(folder.join("tmp"), "").unwrap();
        assert!(matches!(blobs.check().await, Err(Error::Unwritable { .. })));
    });
}
