//! From a file to a picture: what it declares first, and its pixels only when that is within the limits. All decoders are Rust.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::error::LimitErrorKind;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError};

use crate::Limits;
use crate::error::Error;
use crate::format::Source as Format;
use crate::geometry::turned;
use crate::headers;
use crate::picture::Picture;

/// What a picture may carry beside its pixels, unpacked: a colour profile above all. More is a bomb.
const METADATA_BYTES: u64 = 4 << 20;

/// Of these, what is left for what decoders do not count: tables, names, reasons.
const SPARE_BYTES: u64 = 1 << 20;

/// A file whose beginning was read.
pub struct Source<'a> {
    pub format: Format,
    pub orientation: Orientation,
    /// It is an animation, of which only the first picture is read.
    pub moves: bool,
    decoder: Box<dyn ImageDecoder + 'a>,
    /// What the decoder allocates beside the pixels that it gives.
    beside_bytes: u64,
}

pub fn open<'a>(input: &'a [u8], limits: &Limits) -> Result<Source<'a>, Error> {
    let bytes = input.len() as u64;
    if bytes > limits.input_bytes {
        return Err(Error::TooManyBytes { bytes, limit_bytes: limits.input_bytes });
    }
    let format = Format::sniff(input).ok_or(Error::Unknown)?;
    let moves = check(input, format, limits)?;
    let mut decoder = decoder(input, format).map_err(|cause| refused(cause, format, limits))?;

    let pixels = within(decoder.dimensions(), limits)?;
    if pixels == 0 {
        return Err(Error::Broken(None));
    }
    let beside_bytes = METADATA_BYTES
        + match format {
            // It keeps a copy of the file.
            Format::Jpeg => bytes + pixels * 2 * headers::jpeg(input).kept_samples,
            // The samples of a lossy frame and its alpha; or all four channels, of which three are given.
            Format::Webp => pixels * 4,
            // A frame that is smaller than the canvas. The picture as it is stored, and its strips or tiles.
            Format::Gif => pixels.saturating_mul(8).min(decoder.total_bytes() * 2),
            Format::Tiff => tiff_values_bytes(input) + pixels.saturating_mul(8).min(decoder.total_bytes() * 2),
            Format::Png | Format::Bmp | Format::Heif | Format::Svg => 0,
        };
    // Where it cannot be read it is none, as programs that show pictures have it.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok(Source { format, orientation, moves, decoder, beside_bytes })
}

fn within((width, height): (u32, u32), limits: &Limits) -> Result<u64, Error> {
    let pixels = headers::pixels((width, height));
    if pixels > limits.pixels {
        return Err(Error::TooManyPixels { width, height, limit: limits.pixels });
    }
    Ok(pixels)
}

/// What must be known before a decoder sees the file. Says whether it moves.
fn check(input: &[u8], format: Format, limits: &Limits) -> Result<bool, Error> {
    match format {
        Format::Webp => {
            let webp = headers::webp(input);
            // The decoder allocates what a chunk says before it reads, and a frame before it compares it with the canvas.
            if webp.is_cut {
                return Err(Error::Broken(None));
            }
            within(webp.frame, limits)?;
            Ok(webp.moves)
        }
        Format::Gif => Ok(headers::gif_moves(input)),
        Format::Png => Ok(headers::png_moves(input)),
        Format::Jpeg if headers::jpeg(input).is_in_parts => {
            Err(Error::UnsupportedKind { format, what: "a scan for each colour".to_owned() })
        }
        Format::Tiff if headers::tiff_values(input).is_none() => Err(Error::Broken(None)),
        Format::Tiff if tiff_values_bytes(input) > limits.memory_bytes => {
            Err(Error::TooMuchMemory { needed_bytes: tiff_values_bytes(input), limit_bytes: limits.memory_bytes })
        }
        Format::Jpeg | Format::Bmp | Format::Tiff => Ok(false),
        Format::Heif | Format::Svg => Err(Error::Unsupported(format)),
    }
}

/// Of the longest field: as it is read, and as numbers.
fn tiff_values_bytes(input: &[u8]) -> u64 {
    headers::tiff_values(input).unwrap_or_default().saturating_mul(32)
}

fn decoder(input: &[u8], format: Format) -> Result<Box<dyn ImageDecoder + '_>, ImageError> {
    let file = Cursor::new(input);
    Ok(match format {
        Format::Jpeg => Box::new(JpegDecoder::new(file)?),
        Format::Png => {
            let limits = limited(METADATA_BYTES);
            Box::new(PngDecoder::with_limits(file, limits)?)
        }
        Format::Gif => Box::new(GifDecoder::new(file)?),
        Format::Webp => Box::new(WebPDecoder::new(file)?),
        Format::Bmp => Box::new(BmpDecoder::new(file)?),
        Format::Tiff => Box::new(TiffDecoder::new(file)?),
        Format::Heif | Format::Svg => unreachable!("these are refused before"),
    })
}

fn limited(bytes: u64) -> image::Limits {
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(bytes);
    limits
}

impl Source<'_> {
    /// Width and height of the picture as one sees it.
    pub fn upright_size(&self) -> (u32, u32) {
        turned(self.decoder.dimensions(), self.orientation)
    }

    pub fn has_alpha(&self) -> bool {
        self.decoder.color_type().has_alpha()
    }

    /// What reading takes, and resizing to that size.
    pub fn memory_bytes(&self, size: (u32, u32)) -> u64 {
        let (width, height) = self.decoder.dimensions();
        let channels = if self.has_alpha() { 4 } else { 3 };
        let pixels = headers::pixels((width, height));
        let converted = if self.is_plain() { 0 } else { pixels.saturating_mul(channels) };
        let beside = self.beside_bytes.max(converted);
        // The result, the same turned, and a row of sums.
        let resized = channels * (2 * headers::pixels(size) + 8 * u64::from(width.max(height)));
        self.decoder.total_bytes().saturating_add(beside.max(resized))
    }

    /// The picture, and the profile of its colours if it has one.
    pub fn read(mut self, limits: &Limits) -> Result<(Picture, Option<Vec<u8>>), Error> {
        let format = self.format;
        let profile =
            self.decoder.icc_profile().ok().flatten().filter(|profile| profile.len() as u64 <= METADATA_BYTES);
        // What was estimated holds: the decoder refuses what would take more, as frames larger than their canvas.
        let beside = limited(self.beside_bytes - SPARE_BYTES);
        self.decoder.set_limits(beside).map_err(|cause| refused(cause, format, limits))?;
        let image = DynamicImage::from_decoder(self.decoder).map_err(|cause| refused(cause, format, limits))?;
        Ok((Picture::from(image), profile))
    }

    /// As a [`Picture`] has it, so that nothing is converted.
    fn is_plain(&self) -> bool {
        matches!(self.decoder.color_type(), ColorType::Rgb8 | ColorType::Rgba8)
    }
}

fn refused(cause: ImageError, format: Format, limits: &Limits) -> Error {
    match cause {
        ImageError::Unsupported(kind) => Error::UnsupportedKind { format, what: kind.to_string() },
        ImageError::Limits(limit) if matches!(limit.kind(), LimitErrorKind::InsufficientMemory) => {
            Error::TooMuchMemory {
                needed_bytes: limits.memory_bytes.saturating_add(1),
                limit_bytes: limits.memory_bytes,
            }
        }
        cause => Error::Broken(Some(cause)),
    }
}
