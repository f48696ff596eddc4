//! What strangers send on purpose: nothing panics, and nothing takes more memory than it may.

mod pictures;

use std::sync::{Mutex, PoisonError};

use image::{DynamicImage, RgbImage};
use ntier_images::{Asked, Error, Image, Limits, Resize, Transform, transform};
use peak_alloc::PeakAlloc;
use pictures::{all, drawn, gif, half_clear, jpeg, lossless_webp, png, png_with_profile, tiff, webp_with_alpha};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One at a time, so that what is measured is its own.
static TURN: Mutex<()> = Mutex::new(());

const SMALL: Limits =
    Limits { input_bytes: 1 << 20, pixels: 1 << 20, memory_bytes: 24 << 20, avif_pixels: 1 << 20, side: 1000 };

/// The answer, and the bytes that were allocated for it at once.
fn measured(input: &[u8], wanted: &Transform, limits: &Limits) -> (Result<Image, Error>, usize) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let made = transform(input, wanted, limits);
    (made, MEMORY.peak_usage().saturating_sub(before))
}

fn small() -> Transform {
    Transform { width: Some(20), height: Some(20), ..Transform::default() }
}

#[test]
fn what_declares_more_than_it_has_is_refused_for_little() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let opaque = drawn(16, 16);
    let plain = DynamicImage::from(opaque.clone());
    let clear = half_clear(16, 16);
    let mut webp_canvas = lossless_webp(&clear);
    let lossless = webp_canvas.windows(4).position(|name| name == b"VP8L").unwrap();
    overwrite(&mut webp_canvas, lossless + 9, &[0xff; 3]);
    let lossy = webp_with_alpha(&clear);
    let frame = lossy.windows(4).position(|name| name == b"VP8 ").unwrap() + 8;
    let profiled = {
        let mut bytes = lossy.clone();
        bytes.splice(30..30, *b"ICCP\xf0\xff\xff\xff");
        bytes
    };
    let picture = jpeg(&opaque);
    let start = picture.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    let tiff = tiff(&plain);
    let width = tiff.windows(4).rposition(|tag| tag == [0, 1, 4, 0] || tag == [0, 1, 3, 0]).unwrap();
    for (name, input) in [
        ("png", overwritten(&png(&plain), 16, &[0, 1, 0, 0, 0, 1, 0, 0])),
        ("jpeg", overwritten(&picture, start + 5, &[0xff; 4])),
        ("gif", overwritten(&gif(std::slice::from_ref(&clear)), 6, &[0xff; 4])),
        ("webp", webp_canvas),
        ("webp's canvas", overwritten(&lossy, 24, &[0xff; 6])),
        ("webp's frame", overwritten(&lossy, frame + 6, &[0xff, 0x3f, 0xff, 0x3f])),
        ("webp's profile", profiled),
        ("bmp", overwritten(&pictures::bmp(&opaque), 18, &[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0])),
        ("tiff", overwritten(&tiff, width + 2, &[4, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0x00])),
    ] {
        let (made, peak) = measured(&input, &small(), &Limits::default());
        assert!(made.is_err(), "{name}");
        assert!(peak < 1 << 20, "{name}: {peak} bytes for {:?}", made.unwrap_err());
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..at + with.len()].copy_from_slice(with);
}

fn overwritten(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    overwrite(&mut bytes, at, with);
    bytes
}

#[test]
fn a_small_file_is_not_unpacked_into_a_large_profile() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let input = png_with_profile(&drawn(16, 16).into(), vec![0; 64 << 20]);
    assert!(input.len() < 1 << 20);
    let (_, peak) = measured(&input, &small(), &Limits::default());
    assert!(peak < 16 << 20, "{peak} bytes");
}

#[test]
fn a_frame_that_is_larger_than_its_gif_is_not_read() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let input = gif(&[half_clear(16, 16)]);
    let frame = input.windows(9).position(|block| block == [0x2c, 0, 0, 0, 0, 16, 0, 16, 0]).unwrap();
    let (made, peak) = measured(&overwritten(&input, frame + 5, &[0xff; 4]), &small(), &SMALL);
    assert!(made.is_err());
    assert!(peak as u64 <= SMALL.memory_bytes, "{peak} bytes");
}

#[test]
fn a_picture_takes_no_more_memory_than_was_estimated() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, input) in all(1024, 1000) {
        let large = |format| Transform { format, ..Transform::default() };
        let middling = |format| Transform { width: Some(256), format, ..Transform::default() };
        for wanted in [small(), large(Asked::Origin), large(Asked::Webp), middling(Asked::Avif)] {
            let limits = |memory_bytes| Limits { memory_bytes, ..Limits::default() };
            // What is needed to look at the file is said first.
            let mut needed = 0;
            let (made, peak) = loop {
                match measured(&input, &wanted, &limits(needed)) {
                    (Err(Error::TooMuchMemory { needed_bytes, .. }), _) => {
                        assert!(needed_bytes > needed);
                        needed = needed_bytes;
                    }
                    (made, peak) => break (made.unwrap(), peak),
                }
            };
            // One that is given as it is needs nothing but its copy.
            let given = made.bytes.len() as u64;
            let allowed = needed.max(given) + given;
            assert!(peak as u64 <= allowed, "{name} {wanted:?}: {peak} of {allowed}");
        }
    }
}

/// What happens to a file on its way: bytes are changed, and it is cut off.
#[derive(Clone, Debug)]
struct Harm {
    bytes: Vec<(prop::sample::Index, u8)>,
    cut: Option<prop::sample::Index>,
}

fn harm() -> impl Strategy<Value = Harm> {
    let bytes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12);
    // Headers are short and say the most: half of the changes are made there.
    (bytes, prop::option::weighted(0.2, any::<prop::sample::Index>())).prop_map(|(bytes, cut)| Harm { bytes, cut })
}

impl Harm {
    fn done_to(&self, file: &[u8]) -> Vec<u8> {
        let mut file = file.to_vec();
        for (turn, (index, byte)) in self.bytes.iter().enumerate() {
            let part = if turn % 2 == 0 { file.len().min(200) } else { file.len() };
            file[index.index(part)] = *byte;
        }
        file.truncate(self.cut.map_or(file.len(), |cut| cut.index(file.len())));
        file
    }
}

#[test]
fn whatever_happens_to_a_picture_it_is_answered_within_its_memory() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, input) in all(48, 40) {
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let resizes = prop::sample::select(vec![Resize::Cover, Resize::Contain, Resize::Fill]);
        let wanted = (prop::option::of(0..100_u32), prop::option::of(0..100_u32), resizes)
            .prop_map(|(width, height, resize)| Transform { width, height, resize, ..Transform::default() });
        runner
            .run(&(harm(), wanted), |(harm, wanted)| {
                let (_, peak) = measured(&harm.done_to(&input), &wanted, &SMALL);
                prop_assert!(peak as u64 <= SMALL.memory_bytes, "{} took {} bytes", name, peak);
                Ok(())
            })
            .unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}

#[test]
fn whatever_a_profile_says_it_is_answered() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let picture = DynamicImage::from(RgbImage::new(4, 4));
    let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    runner
        .run(&harm(), |harm| {
            let (_, peak) = measured(&png_with_profile(&picture, harm.done_to(&profile)), &small(), &SMALL);
            prop_assert!(peak as u64 <= SMALL.memory_bytes, "{} bytes", peak);
            Ok(())
        })
        .unwrap_or_else(|fault| panic!("{fault}"));
}

#[test]
fn scratch() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let input = all(48, 40).into_iter().find(|(name, _)| *name == "tiff").unwrap().1;
    println!("{} {:?}", input.len(), input[..60].escape_ascii().to_string());
    println!("{:?}", input[input.len() - 230..].escape_ascii().to_string());
    let mut seen = 0;
    for at in (0..300).chain(input.len() - 300..input.len()) {
        for byte in [0, 1, 2, 12, 16, 64, 255] {
            let harmed = overwritten(&input, at.min(input.len() - 1), &[byte]);
            let (made, peak) = measured(&harmed, &Transform::default(), &SMALL);
            if peak > 8 << 20 {
                seen += 1;
                if seen < 30 {
                    println!("{at} {byte}: {peak} {:?}", made.map(|m| (m.width, m.height, m.bytes.len())));
                }
            }
        }
    }
}
