//! Pictures that the tests draw themselves, in each format that is read.
#![allow(dead_code, reason = "each suite uses its part")]

use std::io::Cursor;

use image::codecs::bmp::BmpEncoder;
use image::codecs::gif::GifEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::tiff::TiffEncoder;
use image::{DynamicImage, ExtendedColorType, Frame, ImageEncoder, Rgb, RgbImage, Rgba, RgbaImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// Soft and with an edge, so that neither codecs nor resizing have it too easy.
pub fn drawn(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let part = |at: u32, of: u32| u8::try_from(at * 255 / of.max(1)).unwrap_or(255);
        let edge = if (x + y) % 32 < 16 { 40 } else { 200 };
        Rgb([part(x, width), part(y, height), edge])
    })
}

/// Its left half can be seen through, and is red there.
pub fn half_clear(width: u32, height: u32) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, _| if x < width / 2 { Rgba([255, 0, 0, 0]) } else { Rgba([0, 0, 255, 255]) })
}

/// Upper left red, upper right green, lower left blue, lower right white.
pub fn corners(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| match (x < width / 2, y < height / 2) {
        (true, true) => Rgb([255, 0, 0]),
        (false, true) => Rgb([0, 255, 0]),
        (true, false) => Rgb([0, 0, 255]),
        (false, false) => Rgb([255, 255, 255]),
    })
}

pub fn jpeg(picture: &RgbImage) -> Vec<u8> {
    jpeg_of(picture, |_| {})
}

pub fn jpeg_of(picture: &RgbImage, change: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 95);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    change(&mut encoder);
    let (width, height) = jpeg_size(picture.dimensions());
    encoder.encode(picture.as_raw(), width, height, ColorType::Rgb).unwrap();
    bytes
}

/// As programs for print write it: four colours, said by Adobe's marker.
pub fn cmyk_jpeg(width: u32, height: u32, colour: [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = jpeg_size((width, height));
    let pixels = colour.repeat(usize::from(width) * usize::from(height));
    Encoder::new(&mut bytes, 95).encode(&pixels, width, height, ColorType::Cmyk).unwrap();
    bytes
}

fn jpeg_size((width, height): (u32, u32)) -> (u16, u16) {
    (u16::try_from(width).unwrap(), u16::try_from(height).unwrap())
}

/// What a camera says: an orientation alone.
pub fn exif(orientation: u8) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    bytes.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

pub fn png(picture: &DynamicImage) -> Vec<u8> {
    png_of(picture, |_| {})
}

pub fn png_of(picture: &DynamicImage, change: impl FnOnce(&mut PngEncoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = PngEncoder::new(&mut bytes);
    change(&mut encoder);
    encoder.write_image(picture.as_bytes(), picture.width(), picture.height(), picture.color().into()).unwrap();
    bytes
}

/// With a colour profile.
pub fn png_with_profile(picture: &DynamicImage, profile: Vec<u8>) -> Vec<u8> {
    png_of(picture, |encoder| encoder.set_icc_profile(profile).unwrap())
}

/// With as many pictures as are given.
pub fn gif(pictures: &[RgbaImage]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
    for picture in pictures {
        encoder.encode_frame(Frame::new(picture.clone())).unwrap();
    }
    drop(encoder);
    bytes
}

pub fn webp(picture: &RgbImage) -> Vec<u8> {
    webp::Encoder::from_rgb(picture.as_raw(), picture.width(), picture.height()).encode(90.0).to_vec()
}

pub fn webp_with_alpha(picture: &RgbaImage) -> Vec<u8> {
    webp::Encoder::from_rgba(picture.as_raw(), picture.width(), picture.height()).encode(90.0).to_vec()
}

pub fn lossless_webp(picture: &RgbaImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = picture.dimensions();
    image::codecs::webp::WebPEncoder::new_lossless(&mut bytes)
        .write_image(picture.as_raw(), width, height, ExtendedColorType::Rgba8)
        .unwrap();
    bytes
}

/// Two pictures.
pub fn moving_webp(picture: &RgbaImage) -> Vec<u8> {
    let config = webp::WebPConfig::new().unwrap();
    let mut encoder = webp::AnimEncoder::new(picture.width(), picture.height(), &config);
    let mut other = picture.clone();
    image::imageops::invert(&mut other);
    for (picture, milliseconds) in [(picture, 0), (&other, 100)] {
        encoder.add_frame(webp::AnimFrame::from_rgba(
            picture.as_raw(),
            picture.width(),
            picture.height(),
            milliseconds,
        ));
    }
    encoder.encode().to_vec()
}

pub fn bmp(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = picture.dimensions();
    BmpEncoder::new(&mut bytes).encode(picture.as_raw(), width, height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

pub fn tiff(picture: &DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let colours = picture.color().into();
    TiffEncoder::new(&mut bytes).write_image(picture.as_bytes(), picture.width(), picture.height(), colours).unwrap();
    bytes.into_inner()
}

/// One of each kind, with its name.
pub fn all(width: u32, height: u32) -> Vec<(&'static str, Vec<u8>)> {
    let opaque = drawn(width, height);
    let plain = DynamicImage::from(opaque.clone());
    let clear = half_clear(width, height);
    vec![
        ("jpeg", jpeg_of(&opaque, |encoder| encoder.add_exif_metadata(&exif(6)).unwrap())),
        ("jpeg with half the colours", jpeg_of(&opaque, |encoder| encoder.set_sampling_factor(SamplingFactor::F_2_2))),
        ("progressive jpeg", jpeg_of(&opaque, |encoder| encoder.set_progressive(true))),
        ("jpeg for print", cmyk_jpeg(width, height, [10, 200, 30, 0])),
        ("png", png(&plain)),
        ("png with alpha", png(&clear.clone().into())),
        ("grey png of 16 bits", png(&plain.to_luma16().into())),
        ("png of 16 bits", png(&plain.to_rgba16().into())),
        ("png with a profile", png_with_profile(&plain, moxcms::ColorProfile::new_display_p3().encode().unwrap())),
        ("gif", gif(std::slice::from_ref(&clear))),
        ("moving gif", gif(&[clear.clone(), plain.to_rgba8()])),
        ("webp", webp(&opaque)),
        ("webp with alpha", webp_with_alpha(&clear)),
        ("lossless webp", lossless_webp(&clear)),
        ("moving webp", moving_webp(&clear)),
        ("bmp", bmp(&opaque)),
        ("tiff", tiff(&plain)),
        ("tiff of 16 bits", tiff(&plain.to_rgba16().into())),
    ]
}
