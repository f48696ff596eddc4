//! Whatever bytes are taken for a picture, they are answered with one or refused. A good corpus is a small picture of each kind; run it
//! with `-- -max_len=4096 -rss_limit_mb=512`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntier_images::{Accepts, Limits, Resize, Transform, transform};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { input_bytes: 1 << 20, pixels: 1 << 20, memory_bytes: 64 << 20, avif_pixels: 0, side: 256 };
    for resize in [Resize::Cover, Resize::Fill] {
        let wanted = Transform { width: Some(24), height: Some(17), resize, ..Transform::default() };
        if let Ok(image) = transform(bytes, &Transform { accepts: Accepts { webp: true, avif: false }, ..wanted }, &limits) {
            assert!(image.width <= 24 && image.height <= 17);
        }
    }
});
