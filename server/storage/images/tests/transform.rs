//! What becomes of pictures.

mod pictures;

use image::{DynamicImage, Rgb, RgbImage, RgbaImage};
use ntier_images::{Accepts, Across, Asked, Down, Error, Gravity, Image, Limits, Resize, Source, Transform, transform};
use pictures::{
    all, bmp, cmyk_jpeg, corners, drawn, exif, gif, half_clear, jpeg, jpeg_of, lossless_webp, moving_webp, png, png_of,
    png_with_profile, tiff, webp, webp_with_alpha,
};

const WEBP: Accepts = Accepts { webp: true, avif: false };

fn sized(width: u32, height: u32, resize: Resize) -> Transform {
    Transform { width: Some(width), height: Some(height), resize, ..Transform::default() }
}

fn asked(format: Asked) -> Transform {
    Transform { format, ..Transform::default() }
}

fn made(input: &[u8], wanted: &Transform) -> Image {
    transform(input, wanted, &Limits::default()).unwrap()
}

/// As another decoder than ours sees it, where there is one.
fn seen(image: &Image) -> RgbaImage {
    let decoded = image::load_from_memory(&image.bytes).unwrap().to_rgba8();
    assert_eq!(decoded.dimensions(), (image.width, image.height));
    decoded
}

fn is_near(pixel: &[u8], expected: &[u8]) -> bool {
    pixel.iter().zip(expected).all(|(is, should)| is.abs_diff(*should) <= 24)
}

#[test]
fn every_kind_of_picture_becomes_every_format() {
    for (name, input) in all(90, 60) {
        for (format, accepts) in
            [(Asked::Best, Accepts::default()), (Asked::Best, WEBP), (Asked::Origin, WEBP), (Asked::Webp, WEBP)]
        {
            let wanted = Transform { format, accepts, ..sized(30, 30, Resize::Cover) };
            let image = made(&input, &wanted);
            assert_eq!(seen(&image).dimensions(), (30, 30), "{name} {format:?}");
            let begins = |media_type| Source::sniff(&image.bytes).unwrap().media_type() == media_type;
            assert!(begins(image.media_type), "{name} {format:?} is not {}", image.media_type);
        }
    }
}

#[test]
fn the_format_follows_from_the_file_and_the_client() {
    let (opaque, clear) = (drawn(8, 8), half_clear(8, 8));
    let plain = DynamicImage::from(opaque.clone());
    for (name, input, best, with_webp, origin) in [
        ("jpeg", jpeg(&opaque), "image/jpeg", "image/webp", "image/jpeg"),
        ("png", png(&plain), "image/png", "image/webp", "image/png"),
        ("gif", gif(std::slice::from_ref(&clear)), "image/gif", "image/webp", "image/gif"),
        ("webp", webp(&opaque), "image/jpeg", "image/webp", "image/webp"),
        ("webp with alpha", webp_with_alpha(&clear), "image/png", "image/webp", "image/webp"),
        ("lossless webp", lossless_webp(&clear), "image/png", "image/webp", "image/webp"),
        ("bmp", bmp(&opaque), "image/jpeg", "image/webp", "image/jpeg"),
        ("tiff", tiff(&clear.clone().into()), "image/png", "image/webp", "image/png"),
    ] {
        let became = |format, accepts| made(&input, &Transform { accepts, ..asked(format) }).media_type;
        assert_eq!(became(Asked::Best, Accepts::default()), best, "{name}");
        assert_eq!(became(Asked::Best, WEBP), with_webp, "{name}");
        assert_eq!(became(Asked::Origin, WEBP), origin, "{name}");
        assert_eq!(became(Asked::Webp, Accepts::default()), "image/webp", "{name}");
    }
}

#[test]
fn sizes_are_kept_whole_and_never_grow() {
    let input = png(&drawn(200, 100).into());
    for (wanted, size) in [
        (sized(50, 50, Resize::Cover), (50, 50)),
        (sized(50, 50, Resize::Contain), (50, 25)),
        (sized(50, 50, Resize::Fill), (50, 50)),
        (sized(50, 0, Resize::Cover), (50, 25)),
        (sized(0, 50, Resize::Contain), (100, 50)),
        (sized(50, 0, Resize::Fill), (50, 100)),
        (sized(400, 400, Resize::Cover), (200, 100)),
        (sized(400, 50, Resize::Cover), (200, 50)),
        (sized(9999, 9999, Resize::Fill), (100, 100)),
        (Transform::default(), (200, 100)),
    ] {
        assert_eq!(seen(&made(&input, &wanted)).dimensions(), size, "{wanted:?}");
    }
}

#[test]
fn what_is_stored_turned_is_shown_upright() {
    let upright = corners(64, 32);
    for orientation in 1..=8 {
        let stored = stored(&upright, orientation);
        let told = [
            ("jpeg", jpeg_of(&stored, |encoder| encoder.add_exif_metadata(&exif(orientation)).unwrap())),
            (
                "png",
                png_of(&stored.into(), |encoder| {
                    image::ImageEncoder::set_exif_metadata(encoder, exif(orientation)).unwrap();
                }),
            ),
        ];
        for (name, input) in told {
            let whole = seen(&made(&input, &Transform::default()));
            assert_eq!(whole.dimensions(), (64, 32), "{name} {orientation}");
            let small = seen(&made(&input, &sized(32, 0, Resize::Cover)));
            assert_eq!(small.dimensions(), (32, 16), "{name} {orientation}");
            for picture in [whole, small] {
                assert_corners(
                    &picture,
                    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3]],
                    &format!("{name} {orientation}"),
                );
            }
            // What is cut off is told of the picture as one sees it.
            let gravity = Gravity::Towards { across: Across::Right, down: Down::Top, x: 0.0, y: 0.0 };
            let right = seen(&made(&input, &Transform { gravity, ..sized(16, 16, Resize::Cover) }));
            assert_corners(
                &right,
                [[0, 255, 0], [0, 255, 0], [255; 3], [255; 3]],
                &format!("{name} {orientation} right"),
            );
        }
    }
}

/// What a camera stores so that `orientation` makes `upright` of it.
fn stored(upright: &RgbImage, orientation: u8) -> RgbImage {
    use image::imageops::{flip_horizontal, flip_vertical, rotate90, rotate180, rotate270};
    match orientation {
        2 => flip_horizontal(upright),
        3 => rotate180(upright),
        4 => flip_vertical(upright),
        5 => flip_horizontal(&rotate90(upright)),
        6 => rotate270(upright),
        7 => flip_horizontal(&rotate270(upright)),
        8 => rotate90(upright),
        _ => upright.clone(),
    }
}

fn assert_corners(picture: &RgbaImage, expected: [[u8; 3]; 4], what: &str) {
    let (right, bottom) = (picture.width() - 3, picture.height() - 3);
    for ((x, y), colour) in [(2, 2), (right, 2), (2, bottom), (right, bottom)].into_iter().zip(expected) {
        let pixel = picture.get_pixel(x, y).0;
        assert!(is_near(&pixel, &colour), "{what}: {pixel:?} at {x}, {y} is not {colour:?}");
    }
}

#[test]
fn gravity_says_what_stays() {
    let input = png(&corners(80, 40).into());
    let towards = |across, down| Gravity::Towards { across, down, x: 0.0, y: 0.0 };
    for (gravity, upper_left) in [
        (towards(Across::Left, Down::Top), [255, 0, 0]),
        (towards(Across::Right, Down::Top), [0, 255, 0]),
        (Gravity::Focus { x: 0.1, y: 0.5 }, [255, 0, 0]),
        (Gravity::Focus { x: 0.9, y: 0.5 }, [0, 255, 0]),
    ] {
        let picture = seen(&made(&input, &Transform { gravity, ..sized(20, 20, Resize::Cover) }));
        assert!(is_near(&picture.get_pixel(1, 1).0, &upper_left), "{gravity:?}");
    }
}

#[test]
fn what_one_can_see_through_stays_so_and_colours_nothing() {
    let clear = half_clear(64, 64);
    for (name, input) in [
        ("png", png(&clear.clone().into())),
        ("webp", webp_with_alpha(&clear)),
        ("lossless webp", lossless_webp(&clear)),
    ] {
        for format in [Asked::Origin, Asked::Webp] {
            let picture = seen(&made(&input, &Transform { format, ..sized(31, 31, Resize::Fill) }));
            assert_eq!(picture.get_pixel(2, 15).0[3], 0, "{name} {format:?}");
            assert_eq!(picture.get_pixel(28, 15).0[3], 255, "{name} {format:?}");
            // The hidden red does not shine through at the edge.
            let reddest = picture.pixels().filter(|pixel| pixel.0[3] > 64).map(|pixel| pixel.0[0]).max();
            assert!(reddest < Some(60), "{name} {format:?}: {reddest:?}");
        }
    }
}

#[test]
fn pictures_for_print_are_shown() {
    for (ink, colour) in [([0; 4], [255, 255, 255]), ([255, 0, 0, 0], [0, 255, 255]), ([0, 0, 0, 255], [0, 0, 0])] {
        let picture = seen(&made(&cmyk_jpeg(32, 32, ink), &sized(16, 16, Resize::Cover)));
        assert!(is_near(&picture.get_pixel(8, 8).0, &colour), "{ink:?}: {:?}", picture.get_pixel(8, 8));
    }
}

#[test]
fn colours_of_a_profile_become_everybody_s() {
    let grey_red = DynamicImage::from(RgbImage::from_pixel(16, 16, Rgb([200, 100, 100])));
    let profile = |profile: moxcms::ColorProfile| profile.encode().unwrap();
    let wide = profile(moxcms::ColorProfile::new_display_p3());
    for (name, profile, expected) in [
        // As computed by hand from the primaries of both (IEC 61966-2-1, SMPTE EG 432-1).
        ("Display P3", wide.clone(), [214, 95, 97]),
        ("sRGB", profile(moxcms::ColorProfile::new_srgb()), [200, 100, 100]),
        ("grey", profile(moxcms::ColorProfile::new_gray_with_gamma(1.0)), [200, 100, 100]),
        ("half of one", wide[..wide.len() / 2].to_vec(), [200, 100, 100]),
        ("none at all", b"nothing".to_vec(), [200, 100, 100]),
    ] {
        let picture = seen(&made(&png_with_profile(&grey_red, profile), &sized(8, 8, Resize::Cover)));
        let pixel = picture.get_pixel(4, 4).0;
        assert!(pixel.iter().zip(expected).all(|(is, should)| is.abs_diff(should) <= 3), "{name}: {pixel:?}");
    }
}

#[test]
fn nothing_but_the_picture_is_sent() {
    let mut told = exif(1);
    told.extend(b"52.5200 N, 13.4050 E");
    let camera = jpeg_of(&drawn(32, 32), |encoder| {
        encoder.add_exif_metadata(&told).unwrap();
        encoder.add_icc_profile(&moxcms::ColorProfile::new_srgb().encode().unwrap()).unwrap();
    });
    let drawn = png_of(&drawn(32, 32).into(), |encoder| {
        image::ImageEncoder::set_exif_metadata(encoder, told).unwrap();
    });
    for input in [camera, drawn] {
        for format in [Asked::Origin, Asked::Webp] {
            let bytes = made(&input, &asked(format)).bytes;
            for word in ["Exif", "EXIF", "eXIf", "52.5200", "ICC", "iCC"] {
                assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word} {format:?}");
            }
        }
    }
}

#[test]
fn what_moves_stays_as_it_is_unless_a_size_or_format_is_wanted() {
    let (clear, opaque) = (half_clear(32, 32), DynamicImage::from(drawn(32, 32)).to_rgba8());
    let moving = gif(&[clear.clone(), opaque.clone()]);
    for wanted in [asked(Asked::Best), asked(Asked::Origin), Transform { accepts: WEBP, ..asked(Asked::Best) }] {
        let image = made(&moving, &wanted);
        assert!(image.bytes == moving && image.media_type == "image/gif", "{wanted:?}");
    }
    for wanted in [asked(Asked::Webp), sized(16, 0, Resize::Cover)] {
        let image = made(&moving, &wanted);
        assert!(image.bytes != moving, "{wanted:?}");
        // The first picture.
        assert_eq!(seen(&image).get_pixel(2, 2).0[3], 0, "{wanted:?}");
    }
    let still = gif(std::slice::from_ref(&clear));
    assert_eq!(made(&still, &Transform { accepts: WEBP, ..Transform::default() }).media_type, "image/webp");

    let moving = moving_webp(&opaque);
    assert!(made(&moving, &asked(Asked::Webp)).bytes == moving);
    assert!(made(&moving, &Transform { accepts: WEBP, ..asked(Asked::Best) }).bytes == moving);
    assert_eq!(made(&moving, &asked(Asked::Best)).media_type, "image/jpeg");
}

#[test]
fn less_quality_is_fewer_bytes() {
    let input = jpeg(&drawn(200, 200));
    for format in [Asked::Origin, Asked::Webp] {
        let bytes = |quality| made(&input, &Transform { quality, ..asked(format) }).bytes.len();
        assert!(bytes(Some(20)) < bytes(Some(60)) && bytes(Some(60)) < bytes(Some(95)), "{format:?}");
        assert_eq!(bytes(None), bytes(Some(80)), "{format:?}");
        assert_eq!((bytes(Some(0)), bytes(Some(255))), (bytes(Some(1)), bytes(Some(100))), "{format:?}");
    }
}

#[test]
fn one_pixel_is_a_picture() {
    for (name, input) in all(1, 1) {
        for format in [Asked::Best, Asked::Webp, Asked::Avif] {
            let image = made(&input, &Transform { format, ..sized(1, 1, Resize::Cover) });
            assert_eq!((image.width, image.height), (1, 1), "{name}");
        }
    }
}

#[test]
fn avif_is_written_for_who_wants_it_and_is_never_large() {
    let wanted = |accepts, format| Transform { accepts, format, ..sized(24, 24, Resize::Cover) };
    let both = Accepts { webp: true, avif: true };
    for (name, input) in [("opaque", jpeg(&drawn(64, 64))), ("clear", png(&half_clear(64, 64).into()))] {
        for wanted in [wanted(both, Asked::Best), wanted(Accepts::default(), Asked::Avif)] {
            let image = made(&input, &wanted);
            assert_eq!((image.media_type, image.width, image.height), ("image/avif", 24, 24), "{name}");
            assert_eq!(&image.bytes[4..12], b"ftypavif", "{name}");
            // Each auxiliary picture is alpha.
            let has_alpha = image.bytes.windows(4).any(|kind| kind == b"auxC");
            assert_eq!(has_alpha, name == "clear", "{name}");
            let few = Limits { avif_pixels: 24 * 24 - 1, ..Limits::default() };
            assert_eq!(transform(&input, &wanted, &few).unwrap().media_type, "image/webp", "{name}");
        }
    }
    let bytes = |quality| {
        let wanted = Transform { quality, ..wanted(both, Asked::Best) };
        made(&jpeg(&drawn(64, 64)), &wanted).bytes
    };
    assert!(bytes(Some(20)).len() < bytes(Some(90)).len());
    assert!(bytes(None) == bytes(Some(62)));
}

#[test]
fn pictures_too_wide_for_webp_become_something_else() {
    let input = png(&drawn(16_384, 2).into());
    assert_eq!(made(&input, &asked(Asked::Webp)).media_type, "image/jpeg");
    let input = png(&half_clear(16_384, 2).into());
    assert_eq!(made(&input, &asked(Asked::Webp)).media_type, "image/png");
}

#[test]
fn what_cannot_be_shown_is_refused_for_its_reason() {
    let picture = png(&drawn(100, 100).into());
    let small = Limits { input_bytes: 30_000, pixels: 5_000, ..Limits::default() };
    let poor = Limits { memory_bytes: 30_000, ..Limits::default() };
    let is = |input: &[u8], limits: &Limits| transform(input, &sized(10, 10, Resize::Cover), limits).unwrap_err();
    let defaults = Limits::default();
    assert!(matches!(is(b"", &defaults), Error::Unknown));
    assert!(matches!(is(b"<html><script>", &defaults), Error::Unknown));
    assert!(matches!(is(b"<svg onload='alert(1)'>", &defaults), Error::Unsupported(Source::Svg)));
    assert!(matches!(is(b"\0\0\0\x10ftypmif1\0\0\0\0", &defaults), Error::Unsupported(Source::Heif)));
    let in_parts = jpeg_of(&drawn(32, 32), |encoder| encoder.set_optimized_huffman_tables(true));
    assert!(matches!(is(&in_parts, &defaults), Error::UnsupportedKind { format: Source::Jpeg, .. }));
    assert!(matches!(is(&picture, &small), Error::TooManyPixels { width: 100, height: 100, limit: 5_000 }));
    assert!(matches!(is(&vec![0; 30_001], &small), Error::TooManyBytes { bytes: 30_001, limit_bytes: 30_000 }));
    assert!(matches!(is(&picture, &poor), Error::TooMuchMemory { limit_bytes: 30_000, .. }));
    for (name, input) in all(64, 64) {
        let error = is(&input[..12], &defaults);
        assert!(matches!(error, Error::Broken(_)), "{name}: {error:?}");
    }
}
