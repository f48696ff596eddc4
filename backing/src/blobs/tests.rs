//! What every kind of store must do, by one table.

use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use md5::{Digest, Md5};
use proptest::prelude::*;

use super::*;

pub mod server;

/// Around what a disk takes at once: small reads, chunks, batches.
const DISK_SIZES: [usize; 11] = [
    0,
    1,
    (16 << 10) - 1,
    (16 << 10) + 1,
    (128 << 10) - 1,
    128 << 10,
    (128 << 10) + 1,
    (256 << 10) - 1,
    256 << 10,
    (256 << 10) + 1,
    3_000_000,
];
/// Around a block, and a part.
const S3_SIZES: [usize; 7] = [0, 1, (256 << 10) + 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 30_000_000];

#[test]
fn a_disk_keeps_blobs() {
    on_disk(async |blobs, _| keeps_blobs(blobs, &DISK_SIZES).await);
}

#[test]
fn an_s3_keeps_blobs() {
    on_s3(async |blobs, _| keeps_blobs(blobs, &S3_SIZES).await);
}

async fn keeps_blobs(blobs: &Blobs, sizes: &[usize]) {
    blobs.check().await.unwrap();
    assert_eq!(ids(blobs).await, []);
    assert_eq!(blobs.clean(Duration::ZERO).await.unwrap(), 0);
    blobs_are_listed_in_order_and_in_pages(blobs).await;
    a_copy_stays_when_the_first_goes(blobs).await;
    what_is_not_there_is_missing(blobs).await;
    what_is_written_is_read(blobs, sizes).await;
    a_range_is_read(blobs).await;
    a_blob_is_seen_after_it_has_finished(blobs).await;
    the_price_of_md5_may_be_saved(blobs).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pieces_and_ranges_of_any_size_are_kept(
        pieces in prop::collection::vec(0..400_000_usize, 0..8),
        from in 0..=1000_usize,
        to in 0..=1000_usize,
    ) {
        on_disk(async |blobs, _| {
            let expected = bytes(pieces.iter().sum());
            let mut writer = blobs.writer().await.unwrap();
            let mut left = expected.clone();
            for piece in &pieces {
                writer.write(left.split_to(*piece)).await.unwrap();
            }
            let id = writer.finish().await.unwrap().id;
            let place = |thousandths: usize| expected.len() * thousandths / 1000;
            let (from, to) = (place(from.min(to)), place(from.max(to)));
            assert!(read(blobs, &id, from as u64..to as u64).await == expected[from..to]);
        });
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Returns after everything has come to rest, also what blocking threads do.
pub fn on_disk(test: impl AsyncFnOnce(&Blobs, &std::path::Path)) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::Disk(Disk::open(folder.path()).unwrap());
    runtime().block_on(test(&blobs, folder.path()));
}

pub fn on_s3(test: impl AsyncFnOnce(&Blobs, &mut server::Server)) {
    runtime().block_on(async {
        let mut server = server::start().await;
        let blobs = Blobs::S3(S3::open(&server.settings()).unwrap());
        test(&blobs, &mut server).await;
    });
}

/// Bytes that differ from place to place.
pub fn bytes(size: usize) -> Bytes {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(next).collect()
}

pub async fn write(blobs: &Blobs, bytes: &Bytes, piece: usize) -> Written {
    let mut writer = blobs.writer().await.unwrap();
    for piece in bytes.chunks(piece.max(1)) {
        writer.write(bytes.slice_ref(piece)).await.unwrap();
    }
    writer.finish().await.unwrap()
}

pub async fn read(blobs: &Blobs, id: &BlobId, range: Range<u64>) -> Bytes {
    let reader = blobs.read(id, range.clone()).await.unwrap();
    assert_eq!(reader.size_hint().exact(), Some(range.end - range.start));
    reader.collect().await.unwrap().to_bytes()
}

pub async fn ids(blobs: &Blobs) -> Vec<BlobId> {
    blobs.list(None, 1000).await.unwrap().into_iter().map(|listed| listed.id).collect()
}

async fn what_is_written_is_read(blobs: &Blobs, sizes: &[usize]) {
    for &size in sizes {
        let expected = bytes(size);
        let written = write(blobs, &expected, 100_000).await;
        assert_eq!(written.size_bytes, size as u64);
        assert_eq!(written.md5, Some(Md5::digest(&expected).into()), "{size}");
        assert!(read(blobs, &written.id, 0..size as u64).await == expected, "{size}");
    }
}

async fn a_range_is_read(blobs: &Blobs) {
    let expected = bytes(1_000_000);
    let id = write(blobs, &expected, 400_000).await.id;
    for (from, to) in [(0, 0), (0, 1), (999_999, 1_000_000), (1_000_000, 1_000_000), (5, 500_000), (131_072, 262_144)] {
        assert!(read(blobs, &id, from as u64..to as u64).await == expected[from..to], "{from}..{to}");
    }
    for beyond in [0..1_000_001, 1_000_000..1_000_001, 2_000_000..2_000_000] {
        let refused = blobs.read(&id, beyond.clone()).await;
        assert!(matches!(refused, Err(Error::Beyond { size_bytes: 1_000_000, .. })), "{beyond:?}: {refused:?}");
    }
}

async fn what_is_not_there_is_missing(blobs: &Blobs) {
    let id = BlobId::random();
    assert!(matches!(blobs.read(&id, 0..0).await, Err(Error::Missing(missing)) if missing == id));
    assert!(matches!(blobs.read(&id, 0..1).await, Err(Error::Missing(missing)) if missing == id));
    assert!(matches!(blobs.copy(&id).await, Err(Error::Missing(missing)) if missing == id));
    blobs.remove(&[id]).await.unwrap();
    blobs.remove(&[]).await.unwrap();
}

async fn a_blob_is_seen_after_it_has_finished(blobs: &Blobs) {
    let before = SystemTime::now() - Duration::from_secs(5);
    for size in [10, 1_000_000, 9_000_000] {
        let seen = ids(blobs).await.len();
        let mut writer = blobs.writer().await.unwrap();
        writer.write(bytes(size)).await.unwrap();
        assert_eq!(ids(blobs).await.len(), seen, "{size}");
        let written = writer.finish().await.unwrap();
        let listed = blobs.list(None, 1000).await.unwrap();
        let listed = listed.iter().find(|listed| listed.id == written.id).expect("it is listed");
        assert_eq!(listed.size_bytes, size as u64);
        assert!(listed.modified >= before, "{listed:?}");
    }
}

async fn a_copy_stays_when_the_first_goes(blobs: &Blobs) {
    let expected = bytes(200_000);
    let first = write(blobs, &expected, 200_000).await.id;
    let second = blobs.copy(&first).await.unwrap();
    assert_ne!(first, second);
    blobs.remove(&[first, BlobId::random()]).await.unwrap();
    assert!(matches!(blobs.read(&first, 0..1).await, Err(Error::Missing(_))));
    assert!(read(blobs, &second, 0..200_000).await == expected);
    assert_eq!(ids(blobs).await, [second]);
    blobs.remove(&[second]).await.unwrap();
}

async fn blobs_are_listed_in_order_and_in_pages(blobs: &Blobs) {
    let mut expected = Vec::new();
    for size in 0..25 {
        expected.push(write(blobs, &bytes(size), size).await.id);
    }
    expected.sort();
    for limit in [1, 7, 25, 100] {
        let mut found: Vec<BlobId> = Vec::new();
        loop {
            let page = blobs.list(found.last(), limit).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit);
            found.extend(page.iter().map(|listed| listed.id));
        }
        assert_eq!(found, expected, "{limit}");
    }
    blobs.remove(&expected).await.unwrap();
    assert_eq!(ids(blobs).await, []);
}

async fn the_price_of_md5_may_be_saved(blobs: &Blobs) {
    let mut writer = blobs.writer().await.unwrap().without_md5();
    writer.write(bytes(600_000)).await.unwrap();
    let written = writer.finish().await.unwrap();
    assert_eq!((written.size_bytes, written.md5), (600_000, None));
    assert!(read(blobs, &written.id, 0..600_000).await == bytes(600_000));
}

#[test]
fn a_full_disk_is_told_from_a_broken_one() {
    use rustix::io::Errno;
    for (errno, full) in [(Errno::NOSPC, true), (Errno::DQUOT, true), (Errno::IO, false), (Errno::ROFS, false)] {
        assert_eq!(matches!(Error::from(io::Error::from(errno)), Error::NoSpace(_)), full, "{errno}");
    }
}

/// Whoever serves requests boxes what they do, and may do it on another thread.
#[test]
fn everything_may_be_sent() {
    fn sent<T: Send>(_: Option<T>) {}
    fn may_be_sent(blobs: &Blobs, id: &BlobId, writer: &mut Writer, done: Writer) {
        sent(Some(blobs.writer()));
        sent(Some(blobs.read(id, 0..1)));
        sent(Some(blobs.copy(id)));
        sent(Some(blobs.remove(&[])));
        sent(Some(blobs.list(None, 1)));
        sent(Some(blobs.clean(Duration::ZERO)));
        sent(Some(blobs.check()));
        sent(Some(writer.write(Bytes::new())));
        sent(Some(done.finish()));
    }
    sent(Some(may_be_sent));
    sent::<Reader>(None);
}
