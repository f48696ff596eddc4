//! What a file says of itself that its decoder tells too late, or not at all: whether it moves, and what would be allocated beside
//! the picture. Only lengths and markers are walked over; a file that is broken is left to the decoder to refuse.

/// What a JPEG says before its first scan.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Jpeg {
    /// How many samples of each pixel are kept, as an i16, until the last scan is read; none where a row at a time is enough.
    pub kept_samples: u64,
    /// It is not progressive, and yet has a scan for each colour. The decoder shows such a picture in wrong colours.
    pub is_in_parts: bool,
}

pub fn jpeg(bytes: &[u8]) -> Jpeg {
    let mut samples = 4;
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let Some((marker, content, after)) = segment(rest) {
        let declared = content.get(5).map_or(4, |count| u64::from(*count)).min(4);
        match marker {
            0xc0 | 0xc1 => samples = declared,
            // Progressive.
            0xc2 => return Jpeg { kept_samples: declared, is_in_parts: false },
            0xda => {
                let is_in_parts = content.first().is_some_and(|in_first_scan| u64::from(*in_first_scan) < samples);
                return Jpeg { kept_samples: if is_in_parts { samples } else { 0 }, is_in_parts };
            }
            _ => {}
        }
        rest = after;
    }
    Jpeg { kept_samples: samples, is_in_parts: false }
}

/// The next marker that has a content, its content, and what follows.
fn segment(mut rest: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    loop {
        match rest {
            // Filled up with any number of them; and markers without a content.
            [0xff, 0xff | 0x00 | 0x01 | 0xd0..=0xd9, ..] => rest = &rest[1..],
            [0xff, marker, after @ ..] => {
                let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
                return Some((*marker, after.get(2..length)?, &after[length..]));
            }
            [_, after @ ..] => rest = after,
            [] => return None,
        }
    }
}

/// Whether a PNG is an animation: the chunk that says so comes before the picture.
pub fn png_moves(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, name @ ..] = *head;
        match &name {
            b"acTL" => return true,
            b"IDAT" | b"IEND" => return false,
            _ => {}
        }
        // The checksum is the last four bytes.
        let next = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_add(4);
        rest = after.get(next..).unwrap_or_default();
    }
    false
}

/// The most values that a field of a TIFF's first picture has; `None` where they are not all in the file. The decoder makes room for
/// each as it is said, before it reads.
/// Source: TIFF 6.0, 2; for `BigTIFF` the same in eight bytes.
pub fn tiff_values(bytes: &[u8]) -> Option<u64> {
    let is_little = bytes.first() == Some(&b'I');
    let number = |at: usize, length: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if is_little { field.iter().rev().fold(0, join) } else { field.iter().fold(0, join) })
    };
    // The bytes of a count and an offset, and those that say how many fields there are.
    let (word, counts, begin) = if number(2, 2)? == 43 { (8, 8, 8) } else { (4, 2, 4) };
    let directory = usize::try_from(number(begin, word)?).ok()?;
    let fields = usize::try_from(number(directory, counts)?).ok()?;
    let mut most = 0;
    for field in 0..fields {
        let at = directory.checked_add(counts + field * (4 + 2 * word))?;
        let each = match number(at + 2, 2)? {
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => 1,
        };
        let values = number(at + 4, word)?;
        if values.checked_mul(each)? > bytes.len() as u64 {
            return None;
        }
        most = values.max(most);
    }
    Some(most)
}

/// Whether a GIF has a second picture.
pub fn gif_moves(bytes: &[u8]) -> bool {
    gif_pictures(bytes).is_some_and(|pictures| pictures > 1)
}

fn gif_pictures(bytes: &[u8]) -> Option<usize> {
    let colours = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut rest = bytes.get(13 + colours(*bytes.get(10)?)..)?;
    let mut pictures = 0;
    while pictures < 2 {
        match rest {
            [0x21, _, blocks @ ..] => rest = after_blocks(blocks)?,
            [0x2c, head @ ..] => {
                pictures += 1;
                // Place, size, flags; the colours; the code's least length.
                rest = after_blocks(head.get(9 + colours(*head.get(8)?) + 1..).unwrap_or_default()).unwrap_or_default();
            }
            _ => break,
        }
    }
    Some(pictures)
}

/// After blocks that each begin with their length, up to one that is empty.
fn after_blocks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, after) = rest.split_first()?;
        rest = after.get(usize::from(*length)..)?;
        if *length == 0 {
            return Some(rest);
        }
    }
}

/// What the chunks of a WebP say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Webp {
    pub moves: bool,
    /// Width and height of the largest frame, whatever the canvas has.
    pub frame: (u32, u32),
    /// A chunk says that it goes on behind the file's end.
    pub is_cut: bool,
}

pub fn webp(bytes: &[u8]) -> Webp {
    let mut found = Webp::default();
    webp_chunks(bytes.get(12..).unwrap_or_default(), &mut found);
    found
}

fn webp_chunks(mut rest: &[u8], found: &mut Webp) {
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [name @ .., a, b, c, d] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        found.is_cut |= length > after.len();
        let content = &after[..length.min(after.len())];
        let frame = match &name {
            b"ANMF" => {
                found.moves = true;
                webp_chunks(content.get(16..).unwrap_or_default(), found);
                None
            }
            b"VP8 " => lossy_size(content),
            b"VP8L" => lossless_size(content),
            _ => None,
        };
        if let Some(frame) = frame.filter(|frame| pixels(*frame) > pixels(found.frame)) {
            found.frame = frame;
        }
        // Chunks begin at even places.
        rest = after.get(length.saturating_add(length & 1)..).unwrap_or_default();
    }
}

/// None of these sides has more than 32 bits, so their product has no more than 64.
pub fn pixels((width, height): (u32, u32)) -> u64 {
    u64::from(width) * u64::from(height)
}

fn lossy_size(content: &[u8]) -> Option<(u32, u32)> {
    let [a, b, c, d] = *content.get(6..10)?.first_chunk()?;
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    Some((side(a, b), side(c, d)))
}

fn lossless_size(content: &[u8]) -> Option<(u32, u32)> {
    let bits = u32::from_le_bytes(*content.get(1..5)?.first_chunk()?);
    Some(((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without checksums, which are not looked at here.
    fn png(names: &[&[u8; 4]]) -> Vec<u8> {
        let chunks = names.iter().flat_map(|name| [&[0, 0, 0, 2], &name[..], &[7; 6]].concat());
        b"\x89PNG\r\n\x1a\n".iter().copied().chain(chunks).collect()
    }

    #[test]
    fn a_png_moves_where_it_says_so_before_its_picture() {
        assert!(png_moves(&png(&[b"IHDR", b"acTL", b"IDAT"])));
        assert!(!png_moves(&png(&[b"IHDR", b"IDAT", b"acTL"])));
        assert!(!png_moves(&png(&[b"IHDR"])));
        assert!(!png_moves(b""));
    }

    #[test]
    fn a_gif_moves_from_its_second_picture_on() {
        // No colours of its own, but two of the first picture's; an extension between them.
        let head = b"GIF89a\x01\0\x01\0\0\0\0";
        let picture = b"\x2c\0\0\0\0\x01\0\x01\0\x80ABCDEF\x02\x02\x4c\x01\0";
        let extension = b"\x21\xf9\x01x\x02yz\0";
        assert!(!gif_moves(&[&head[..], picture, b"\x3b", picture].concat()));
        assert!(gif_moves(&[&head[..], extension, picture, extension, picture].concat()));
        for cut in 0..head.len() + picture.len() {
            assert!(!gif_moves(&[&head[..], picture].concat()[..cut]), "{cut}");
        }
    }

    #[test]
    fn a_webp_is_as_large_as_its_largest_frame() {
        let lossy = b"VP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a\x10\0\x20\0";
        let lossless = b"VP8L\x05\0\0\0\x2f\x0f\xc0\x0f\0\0";
        let file = |chunks: &[u8]| [b"RIFF\0\0\0\0WEBP", chunks].concat();
        assert_eq!(webp(&file(lossy)), Webp { frame: (16, 32), ..Webp::default() });
        assert_eq!(webp(&file(lossless)), Webp { frame: (16, 64), ..Webp::default() });
        let moving = [&b"ANMF\x22\0\0\0"[..], &[0; 16], lossy].concat();
        assert_eq!(
            webp(&file(&[lossless, &moving[..]].concat())),
            Webp { moves: true, frame: (16, 64), is_cut: false }
        );
        assert!(webp(&file(&lossy[..17])).is_cut);
        assert!(webp(&file(b"ICCP\xff\xff\xff\xff")).is_cut);
    }

    #[test]
    fn a_jpeg_is_kept_whole_where_its_scans_are_many() {
        let start = |marker: u8, samples: u8| vec![0xff, marker, 0, 8, 8, 0, 1, 0, 1, samples];
        let scan = |samples: u8| vec![0xff, 0xda, 0, 3, samples];
        for (parts, kept_samples, is_in_parts) in [
            (vec![start(0xc0, 3), scan(3)], 0, false),
            (vec![start(0xc0, 3), scan(1)], 3, true),
            (vec![start(0xc2, 3), scan(3)], 3, false),
            (vec![start(0xc2, 1), scan(1)], 1, false),
            (vec![vec![0xff, 0xe0, 0, 2, 0xff], start(0xc0, 1), scan(1)], 0, false),
            (vec![vec![0xff, 0xe1, 0, 6, 0xff, 0xc2, 0, 9], start(0xc0, 3), scan(3)], 0, false),
            (vec![start(0xc0, 200), scan(4)], 0, false),
            (vec![start(0xc0, 3)], 3, false),
            (vec![vec![0xff, 0xc0, 0xff, 0xff, 0]], 4, false),
            (vec![], 4, false),
        ] {
            let file = [vec![0xff, 0xd8], parts.concat()].concat();
            assert_eq!(jpeg(&file), Jpeg { kept_samples, is_in_parts }, "{file:x?}");
        }
    }
}
