//! Text made shorter once, and kept for whoever asks next.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Bytes that are kept; beyond them all is forgotten, and comes again as it is needed.
const KEPT: usize = 16 << 20;

/// Files that were compressed, by what they are called and their `ETag`.
#[derive(Debug, Default)]
pub struct Compressed(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    files: HashMap<String, Bytes>,
    bytes: usize,
}

impl Compressed {
    /// The bytes, compressed.
    pub async fn gzip(&self, key: &str, bytes: Bytes) -> Option<Bytes> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).files.get(key).cloned();
        if found.is_some() {
            return found;
        }
        let made = tokio::task::spawn_blocking(move || gzip(&bytes)).await.ok()?.ok()?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + made.len() > KEPT {
            *kept = Kept::default();
        }
        if kept.files.insert(key.to_owned(), made.clone()).is_none() {
            kept.bytes += made.len();
        }
        Some(made)
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 3), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}

/// Whether it becomes shorter.
pub fn is_text(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.starts_with("text/")
        || essence.ends_with("+xml")
        || essence.ends_with("+json")
        || matches!(
            essence,
            "application/json" | "application/javascript" | "application/xml" | "application/wasm" | "font/ttf"
        )
}
