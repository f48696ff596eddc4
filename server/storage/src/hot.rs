//! Small blobs that are asked for often, in memory. A blob never changes, and who may have it is asked each time; so nothing that is kept here
//! gets old. It saves a few system calls for each download from the disk, and a request where blobs are on S3.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ntier_backing::blobs::BlobId;

/// Bytes of a blob that is kept, at most.
pub const LARGEST: u64 = 64 << 10;
/// Bytes of one of the two generations: 32 MB in all.
const GENERATION: usize = 16 << 20;

/// Two generations: what is asked for moves to the young one, and when that is full it becomes the old one, which is forgotten.
#[derive(Debug, Default)]
pub struct Hot(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<BlobId, Bytes>,
    young_bytes: usize,
    old: HashMap<BlobId, Bytes>,
}

impl Hot {
    pub fn get(&self, id: &BlobId) -> Option<Bytes> {
        let mut all = self.all();
        if let Some(bytes) = all.young.get(id) {
            return Some(bytes.clone());
        }
        let bytes = all.old.remove(id)?;
        all.put(*id, bytes.clone());
        Some(bytes)
    }

    pub fn put(&self, id: BlobId, bytes: Bytes) {
        self.all().put(id, bytes);
    }

    fn all(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn put(&mut self, id: BlobId, bytes: Bytes) {
        // An entry of the map counts too, or many empty blobs would be free.
        let length = bytes.len() + 128;
        if self.young_bytes + length > GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(id, bytes).is_none() {
            self.young_bytes += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays() {
        let hot = Hot::default();
        let ids: Vec<BlobId> = (0..2000).map(|_| BlobId::random()).collect();
        for id in &ids {
            hot.put(*id, Bytes::from(vec![0; 60 << 10]));
            assert!(hot.get(&ids[0]).is_some());
        }
        assert!(hot.get(&ids[1]).is_none());
        assert!(hot.get(&ids[1999]).is_some());
        let all = hot.all();
        let bytes: usize = all.young.values().chain(all.old.values()).map(Bytes::len).sum();
        assert!(bytes <= 2 * GENERATION, "{bytes}");
    }
}
