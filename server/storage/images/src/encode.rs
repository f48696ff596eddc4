//! From a picture to a file.

use std::io::Cursor;

use image::codecs::gif::GifEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use jpeg_encoder::{ChromaSubsamplingMethod, ImageBuffer, JpegColorType, SamplingFactor, rgb_to_ycbcr};
use ravif::{BitDepth, Img, RGBA8};

use crate::error::Error;
use crate::format::{Format, opaque_or_not};
use crate::headers;
use crate::picture::Picture;

/// The greatest side that the format has numbers for.
const JPEG_SIDE: u32 = 65_535;
const WEBP_SIDE: u32 = 16_383;
/// From here on colours are kept as sharp as brightness, as libvips has it.
const SHARP_COLOURS: u8 = 90;
/// How hard libwebp tries, of 0 to 6; its own default.
const WEBP_EFFORT: i32 = 4;
/// Of 1 to 10, which is the fastest: a fifth more bytes than at 8, in a third of the time.
const AVIF_SPEED: u8 = 10;
/// Each how many pixels count for the palette of a GIF, of 1 to 30.
const GIF_STEPS: i32 = 10;

/// The format, or the one that can do it instead where the picture is too large for it.
pub fn possible(format: Format, size: (u32, u32), has_alpha: bool, avif_pixels: u64) -> Format {
    let format = if format == Format::Avif && headers::pixels(size) > avif_pixels { Format::Webp } else { format };
    let longest = size.0.max(size.1);
    let format = if format == Format::Webp && longest > WEBP_SIDE { opaque_or_not(has_alpha) } else { format };
    if matches!(format, Format::Jpeg | Format::Gif) && longest > JPEG_SIDE { Format::Png } else { format }
}

/// What writing a picture takes beside the picture, at most.
pub fn memory_bytes(format: Format, size: (u32, u32)) -> u64 {
    let bytes_per_pixel = match format {
        Format::Jpeg => 6,
        Format::Png | Format::Gif => 10,
        Format::Webp => 12,
        Format::Avif => 64,
    };
    headers::pixels(size).saturating_mul(bytes_per_pixel)
}

pub fn picture(picture: &Picture, format: Format, quality: Option<u8>) -> Result<Vec<u8>, Error> {
    // As Supabase has imgproxy set up.
    let usual = if format == Format::Avif { 62 } else { 80 };
    let quality = quality.unwrap_or(usual).clamp(1, 100);
    match format {
        Format::Jpeg => jpeg(picture, quality),
        Format::Png => png(picture),
        Format::Gif => gif(picture),
        Format::Webp => webp(picture, quality),
        Format::Avif => avif(picture, quality),
    }
}

fn jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>, Error> {
    let side = |side: u32| u16::try_from(side).map_err(Error::encode);
    let rows = Rows { picture, width: side(picture.width)?, height: side(picture.height)? };
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
    let sampling = if quality < SHARP_COLOURS { SamplingFactor::F_2_2 } else { SamplingFactor::F_1_1 };
    encoder.set_sampling_factor(sampling);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    encoder.encode_image(rows).map_err(Error::encode)?;
    Ok(bytes)
}

/// A picture as the encoder takes it. The encoder's own kinds would all be compiled, where one is needed.
struct Rows<'a> {
    picture: &'a Picture,
    width: u16,
    height: u16,
}

impl ImageBuffer for Rows<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, [luma, blue, red, _]: &mut [Vec<u8>; 4]) {
        let bytes = usize::from(self.width) * self.picture.channels();
        let row = &self.picture.pixels[usize::from(y) * bytes..][..bytes];
        for pixel in row.chunks_exact(self.picture.channels()) {
            let [r, g, b] = on_white(pixel);
            let (y, cb, cr) = rgb_to_ycbcr(r, g, b);
            luma.push(y);
            blue.push(cb);
            red.push(cr);
        }
    }
}

/// There is no alpha in JPEG; pages are white.
fn on_white(pixel: &[u8]) -> [u8; 3] {
    match *pixel {
        [r, g, b] => [r, g, b],
        [r, g, b, alpha] => [r, g, b].map(|colour| {
            let mixed = u16::from(colour) * u16::from(alpha) + 255 * u16::from(255 - alpha);
            u8::try_from((mixed + 127) / 255).unwrap_or(u8::MAX)
        }),
        _ => unreachable!("a picture has three or four channels"),
    }
}

fn png(picture: &Picture) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let kind = if picture.has_alpha { ExtendedColorType::Rgba8 } else { ExtendedColorType::Rgb8 };
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
        .write_image(&picture.pixels, picture.width, picture.height, kind)
        .map_err(Error::encode)?;
    Ok(bytes)
}

fn gif(picture: &Picture) -> Result<Vec<u8>, Error> {
    let mut bytes = Cursor::new(Vec::new());
    let kind = if picture.has_alpha { ExtendedColorType::Rgba8 } else { ExtendedColorType::Rgb8 };
    GifEncoder::new_with_speed(&mut bytes, GIF_STEPS)
        .encode(&picture.pixels, picture.width, picture.height, kind)
        .map_err(Error::encode)?;
    Ok(bytes.into_inner())
}

fn webp(picture: &Picture, quality: u8) -> Result<Vec<u8>, Error> {
    let Picture { pixels, width, height, has_alpha } = picture;
    let layout = if *has_alpha { webp::PixelLayout::Rgba } else { webp::PixelLayout::Rgb };
    let refused = |what: &str| Error::encode(what.to_owned());
    let mut config = webp::WebPConfig::new().map_err(|()| refused("libwebp has no defaults"))?;
    config.quality = f32::from(quality);
    config.method = WEBP_EFFORT;
    let encoder = webp::Encoder::new(pixels, layout, *width, *height);
    let bytes = encoder.encode_advanced(&config).map_err(|cause| refused(&format!("{cause:?}")))?;
    Ok(bytes.to_vec())
}

fn avif(picture: &Picture, quality: u8) -> Result<Vec<u8>, Error> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let encoder = ravif::Encoder::new()
        .with_quality(f32::from(quality))
        .with_alpha_quality(f32::from(quality))
        .with_speed(AVIF_SPEED)
        .with_bit_depth(BitDepth::Eight)
        // The caller has a bound on how many pictures are made at once; threads of another pool would not heed it.
        .with_num_threads(Some(1));
    // Also what is opaque, which it sees: the way for that alone is inlined, and with it the whole encoder compiled here once more.
    let pixel = |pixel: &[u8]| RGBA8::new(pixel[0], pixel[1], pixel[2], pixel.get(3).map_or(u8::MAX, |alpha| *alpha));
    let pixels: Vec<RGBA8> = picture.pixels.chunks_exact(picture.channels()).map(pixel).collect();
    let written = encoder.encode_rgba(Img::new(&pixels, width, height)).map_err(Error::encode)?;
    Ok(written.avif_file)
}
