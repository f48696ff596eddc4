//! Pictures made smaller, cut and said in another format: bytes in, bytes out.
//!
//! It means what Supabase's storage means by its transformations, which imgproxy makes for it: nothing is ever enlarged, what the camera
//! says of orientation is applied, and the rest of what it says is left out. Everything a file declares is held against [`Limits`] before
//! anything is allocated for it. Pure and synchronous, and a call may take seconds: the caller runs it on a pool with few
//! places. Not here: fetching, caching, and what the parameters of a URL look like.

mod colour;
mod decode;
mod encode;
mod error;
mod format;
mod geometry;
mod headers;
mod picture;
mod resample;

pub use error::Error;
pub use format::{Accepts, Asked, Format, Source};
pub use geometry::{Across, Down, Gravity, Resize};

/// What is wanted of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Transform {
    /// In pixels; none or 0 follows from the height and the picture's proportions. More than [`Limits::side`] counts as that.
    pub width: Option<u32>,
    /// As the width.
    pub height: Option<u32>,
    pub resize: Resize,
    /// What stays when [`Resize::Cover`] cuts.
    pub gravity: Gravity,
    /// 1 to 100; none is the default of the format that it becomes. PNG and GIF have no such thing.
    pub quality: Option<u8>,
    pub format: Asked,
    /// What the client can show, for [`Asked::Best`].
    pub accepts: Accepts,
}

/// What one transformation may take. The defaults are those that Supabase documents for its platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest file that is looked at.
    pub input_bytes: u64,
    /// The largest picture that is looked at: its width times its height, as it declares them.
    pub pixels: u64,
    /// What decoding, resizing and encoding may take together. It is estimated from what the file declares, before.
    pub memory_bytes: u64,
    /// The largest result that becomes AVIF, which takes seconds for each million pixels; a larger one becomes WebP.
    pub avif_pixels: u64,
    /// The greatest width and height that can be asked for.
    pub side: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { input_bytes: 25 << 20, pixels: 50_000_000, memory_bytes: 512 << 20, avif_pixels: 1 << 20, side: 2500 }
    }
}

/// A picture as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub bytes: Vec<u8>,
    /// For `Content-Type`.
    pub media_type: &'static str,
    pub width: u32,
    pub height: u32,
}

/// Makes of a file what is wanted of it. What the file is, is seen from its first bytes; what anybody says that it is does not count.
///
/// Of pictures that move the first is taken, but for those of which no size is wanted: they are given back as they are, where the
/// client can show them.
pub fn transform(input: &[u8], wanted: &Transform, limits: &Limits) -> Result<Image, Error> {
    let source = decode::open(input, limits)?;
    let (width, height) = source.upright_size();
    let still = Image { bytes: Vec::new(), media_type: source.format.media_type(), width, height };
    if !wanted.has_size() && source.moves && format::shows_motion(source.format, wanted.format, wanted.accepts) {
        return Ok(Image { bytes: input.to_vec(), ..still });
    }

    let plan = geometry::plan((width, height), wanted, limits.side);
    let format = format::negotiate(wanted.format, wanted.accepts, source.format, source.has_alpha());
    let format = encode::possible(format, plan.size, source.has_alpha(), limits.avif_pixels);
    let needed = source.memory_bytes(plan.size) + encode::memory_bytes(format, plan.size);
    if needed > limits.memory_bytes {
        return Err(Error::TooMuchMemory { needed_bytes: needed, limit_bytes: limits.memory_bytes });
    }

    let orientation = source.orientation;
    let (picture, profile) = source.read(limits)?;
    let mut picture = picture.resized(&plan.before(orientation));
    if let Some(profile) = profile {
        colour::to_srgb(&mut picture, &profile);
    }
    let picture = picture.turned(orientation);
    let bytes = encode::picture(&picture, format, wanted.quality)?;
    Ok(Image { bytes, media_type: format.media_type(), width: picture.width, height: picture.height })
}

impl Transform {
    fn has_size(&self) -> bool {
        [self.width, self.height].into_iter().flatten().any(|side| side > 0)
    }
}
