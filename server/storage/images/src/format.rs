//! Which format a file is in, and which one it becomes.

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Jpeg,
    Png,
    Gif,
    Webp,
    Bmp,
    Tiff,
    /// AVIF, HEIC and their relatives: known, but not read.
    Heif,
    /// Known, but never drawn: it is a program that may fetch, and it is as sharp at any size.
    Svg,
}

/// What a picture is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Jpeg,
    Png,
    Gif,
    Webp,
    Avif,
}

/// What the caller says of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Asked {
    /// Nothing: the smallest that the client can show.
    #[default]
    Best,
    /// As the file is.
    Origin,
    Webp,
    Avif,
}

/// What a client can show beside JPEG, PNG and GIF, and may be given. A cached result belongs to one value of this, not to one `Accept`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Accepts {
    pub webp: bool,
    /// Set it to false where the time that AVIF takes is dear: about 30 times that of WebP.
    pub avif: bool,
}

impl Accepts {
    /// Of the header `Accept`. A wildcard says nothing: browsers that cannot show WebP send it too.
    pub fn parse(accept: &str) -> Accepts {
        let mut accepts = Accepts::default();
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let refused = parts.filter_map(|part| part.strip_prefix("q=")).any(|q| q.parse() == Ok(0.0_f32));
            accepts.webp |= !refused && name.eq_ignore_ascii_case("image/webp");
            accepts.avif |= !refused && name.eq_ignore_ascii_case("image/avif");
        }
        accepts
    }
}

/// What a picture becomes. The formats that only some programs write, and those that the client cannot show, become JPEG, or PNG where
/// one can see through them.
pub fn negotiate(asked: Asked, accepts: Accepts, source: Source, has_alpha: bool) -> Format {
    match (asked, source) {
        (Asked::Avif, _) => Format::Avif,
        (Asked::Best, _) if accepts.avif => Format::Avif,
        (Asked::Best, _) if accepts.webp => Format::Webp,
        (Asked::Webp, _) | (Asked::Origin, Source::Webp) => Format::Webp,
        (_, Source::Jpeg) => Format::Jpeg,
        (_, Source::Png) => Format::Png,
        (_, Source::Gif) => Format::Gif,
        (_, Source::Webp | Source::Bmp | Source::Tiff | Source::Heif | Source::Svg) => opaque_or_not(has_alpha),
    }
}

/// For what has no better format.
pub fn opaque_or_not(has_alpha: bool) -> Format {
    if has_alpha { Format::Png } else { Format::Jpeg }
}

/// Whether a picture that moves may be given as it is.
pub fn shows_motion(source: Source, asked: Asked, accepts: Accepts) -> bool {
    match (source, asked) {
        (Source::Webp, Asked::Best) => accepts.webp,
        (Source::Webp, Asked::Origin | Asked::Webp) | (Source::Gif | Source::Png, Asked::Best | Asked::Origin) => true,
        _ => false,
    }
}

impl Format {
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Jpeg => "image/jpeg",
            Format::Png => "image/png",
            Format::Gif => "image/gif",
            Format::Webp => "image/webp",
            Format::Avif => "image/avif",
        }
    }
}

impl Source {
    pub fn media_type(self) -> &'static str {
        match self {
            Source::Jpeg => "image/jpeg",
            Source::Png => "image/png",
            Source::Gif => "image/gif",
            Source::Webp => "image/webp",
            Source::Bmp => "image/bmp",
            Source::Tiff => "image/tiff",
            Source::Heif => "image/heif",
            Source::Svg => "image/svg+xml",
        }
    }

    /// None where the bytes begin like nothing that is known.
    pub fn sniff(bytes: &[u8]) -> Option<Source> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Source::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Source::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Source::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Source::Webp),
            [b'B', b'M', ..] => Some(Source::Bmp),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Source::Tiff),
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some(Source::Heif),
            _ => is_svg(bytes).then_some(Source::Svg),
        }
    }
}

/// Markup that has an `<svg` near its beginning.
fn is_svg(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    bytes.starts_with(b"<") && bytes[..bytes.len().min(4096)].windows(4).any(|four| four.eq_ignore_ascii_case(b"<svg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Accepts = Accepts { webp: false, avif: false };
    const WEBP: Accepts = Accepts { webp: true, avif: false };
    const BOTH: Accepts = Accepts { webp: true, avif: true };

    #[test]
    fn a_file_is_what_it_begins_like() {
        for (bytes, source) in [
            (&b"\xff\xd8\xff\xe0"[..], Some(Source::Jpeg)),
            (b"\x89PNG\r\n\x1a\n", Some(Source::Png)),
            (b"GIF89a", Some(Source::Gif)),
            (b"GIF90a", None),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some(Source::Webp)),
            (b"RIFF\0\0\0\0WAVEfmt ", None),
            (b"BM", Some(Source::Bmp)),
            (b"II*\0", Some(Source::Tiff)),
            (b"MM\0*", Some(Source::Tiff)),
            (b"\0\0\0\x1cftypavif", Some(Source::Heif)),
            (b"\0\0\0\x10ftypmif1", Some(Source::Heif)),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Some(Source::Svg)),
            (b"\xef\xbb\xbf\n<?xml version='1.0'?><!-- a --><SVG/>", Some(Source::Svg)),
            (b"<html></html>", None),
            (b"%PDF-1.7", None),
            (b"", None),
        ] {
            assert_eq!(Source::sniff(bytes), source, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn accept_is_read_as_a_list() {
        for (accept, accepts) in [
            ("image/avif,image/webp,image/apng,*/*;q=0.8", BOTH),
            ("text/html, IMAGE/WEBP ;q=0.9", WEBP),
            ("image/webp;q=0.1, image/avif;q=0", WEBP),
            ("image/webp; q=0.000, */*", NONE),
            ("image/webpage", NONE),
            ("*/*", NONE),
            ("image/*", NONE),
            ("", NONE),
        ] {
            assert_eq!(Accepts::parse(accept), accepts, "{accept}");
        }
    }

    #[test]
    fn a_format_follows_from_what_is_asked_and_accepted() {
        for (asked, accepts, source, has_alpha, format) in [
            (Asked::Best, BOTH, Source::Jpeg, false, Format::Avif),
            (Asked::Best, WEBP, Source::Jpeg, false, Format::Webp),
            (Asked::Best, WEBP, Source::Png, true, Format::Webp),
            (Asked::Best, NONE, Source::Jpeg, false, Format::Jpeg),
            (Asked::Best, NONE, Source::Png, false, Format::Png),
            (Asked::Best, NONE, Source::Gif, true, Format::Gif),
            (Asked::Best, NONE, Source::Webp, false, Format::Jpeg),
            (Asked::Best, NONE, Source::Webp, true, Format::Png),
            (Asked::Best, NONE, Source::Bmp, false, Format::Jpeg),
            (Asked::Origin, WEBP, Source::Jpeg, false, Format::Jpeg),
            (Asked::Origin, NONE, Source::Webp, false, Format::Webp),
            (Asked::Origin, WEBP, Source::Tiff, true, Format::Png),
            (Asked::Webp, BOTH, Source::Gif, true, Format::Webp),
            (Asked::Avif, NONE, Source::Png, true, Format::Avif),
        ] {
            let became = negotiate(asked, accepts, source, has_alpha);
            assert_eq!(became, format, "{asked:?} {accepts:?} {source:?} {has_alpha}");
        }
    }
}
