//! Colours as everybody shows them: profiles are applied here and left out of what is sent.

use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

use crate::picture::Picture;

/// Turns the colours of a profile into sRGB. A profile that cannot be read, or that is of something else than red, green and blue (of a
/// printer, where decoding has made RGB of it already), is as none: the picture is shown in sRGB, as browsers do.
pub fn to_srgb(picture: &mut Picture, profile: &[u8]) {
    let Ok(profile) = ColorProfile::new_from_slice(profile) else { return };
    if profile.color_space != DataColorSpace::Rgb {
        return;
    }
    let layout = if picture.has_alpha { Layout::Rgba } else { Layout::Rgb };
    let srgb = ColorProfile::new_srgb();
    let Ok(transform) = profile.create_transform_8bit(layout, &srgb, layout, TransformOptions::default()) else {
        return;
    };
    // By rows: a second picture would take as much memory as the first.
    let bytes = picture.width as usize * picture.channels();
    let mut converted = vec![0; bytes];
    for row in picture.pixels.chunks_exact_mut(bytes) {
        if transform.transform(row, &mut converted).is_err() {
            return;
        }
        row.copy_from_slice(&converted);
    }
}
