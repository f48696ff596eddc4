//! The files of a folder: nothing generated, nothing outside the folder.

use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use ntier_protocol::storage::media_type;
use ntier_storage::Body;
use tokio::fs::File as Opened;
use tokio::io::{AsyncRead, AsyncSeekExt, ReadBuf};

use super::{File, Place};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// The file of this name.
pub async fn find(folder: &Path, name: &str) -> Option<File> {
    let path = folder.join(name);
    let metadata = tokio::fs::metadata(&path).await.ok().filter(std::fs::Metadata::is_file)?;
    // A link may point anywhere; what it points to must still be inside.
    let inside = match (tokio::fs::canonicalize(folder).await, tokio::fs::canonicalize(&path).await) {
        (Ok(folder), Ok(path)) => path.starts_with(folder),
        _ => false,
    };
    if !inside {
        return None;
    }
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(File {
        size_bytes: metadata.len(),
        modified,
        etag: format!("\"{:x}-{:x}\"", metadata.len(), since.as_nanos()),
        media_type: media_type::of_name(name).to_owned(),
        place: Place::Folder(path),
    })
}

/// The bytes of a file, as they are asked for.
pub async fn open(path: &Path, range: Range<u64>) -> io::Result<Body> {
    let mut file = Opened::open(path).await?;
    file.seek(SeekFrom::Start(range.start)).await?;
    Ok(Body::new(Pieces { file, left: range.end - range.start, buffer: BytesMut::new() }))
}

struct Pieces {
    file: Opened,
    left: u64,
    buffer: BytesMut,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let wanted = PIECE.min(usize::try_from(this.left).unwrap_or(PIECE));
        if wanted == 0 {
            return Poll::Ready(None);
        }
        this.buffer.resize(wanted, 0);
        let mut buffer = ReadBuf::new(&mut this.buffer);
        ready!(Pin::new(&mut this.file).poll_read(context, &mut buffer))?;
        let read = buffer.filled().len();
        if read == 0 {
            // It has become shorter since it was looked at.
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        this.left -= read as u64;
        Poll::Ready(Some(Ok(Frame::data(this.buffer.split_to(read).freeze()))))
    }
}
