//! A blob that goes to another store and keeps its name.

use http_body_util::BodyExt;
use md5::{Digest, Md5};

use super::{BlobId, Blobs, Error, Written};

/// Copies a blob, and reads what has come of it: the error says where that is something else. Done twice it is the same as once.
pub async fn carry(from: &Blobs, to: &Blobs, id: &BlobId) -> Result<Written, Error> {
    let size_bytes = from.size(id).await?;
    let mut reader = from.read(id, 0..size_bytes).await?;
    let mut writer = to.writer_of(*id);
    while let Some(frame) = reader.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            writer.write(bytes).await?;
        }
    }
    let written = writer.finish().await?;
    if written.size_bytes == size_bytes && Some(md5_of(to, id, size_bytes).await?) == written.md5 {
        Ok(written)
    } else {
        Err(Error::Differs(*id))
    }
}

/// Of a blob as it is read.
async fn md5_of(blobs: &Blobs, id: &BlobId, size_bytes: u64) -> Result<[u8; 16], Error> {
    let mut reader = blobs.read(id, 0..size_bytes).await?;
    let mut md5 = Md5::new();
    while let Some(frame) = reader.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            md5.update(&bytes);
        }
    }
    Ok(md5.finalize().into())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Disk;
    use super::*;

    #[tokio::test]
    async fn a_blob_keeps_its_name_and_its_bytes() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [from, to] = folders.each_ref().map(|folder| Blobs::Disk(Disk::open(folder.path()).unwrap()));
        for bytes in [Bytes::new(), Bytes::from_static(b"a"), Bytes::from(vec![7; 1 << 20])] {
            let mut writer = from.writer().await.unwrap();
            writer.write(bytes.clone()).await.unwrap();
            let id = writer.finish().await.unwrap().id;
            for _ in 0..2 {
                let carried = carry(&from, &to, &id).await.unwrap();
                assert_eq!((carried.id, carried.size_bytes), (id, bytes.len() as u64));
            }
            assert_eq!(to.size(&id).await.unwrap(), bytes.len() as u64);
        }
        assert!(matches!(carry(&from, &to, &BlobId::random()).await, Err(Error::Missing(_))));
        assert_eq!(to.list(None, 10).await.unwrap().len(), 3);
        assert_eq!(to.clean(std::time::Duration::ZERO).await.unwrap(), 0, "nothing unfinished is left");
    }
}
