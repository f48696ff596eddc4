//! A decoded picture: eight bits a channel, with or without alpha.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage, RgbaImage};

use crate::geometry::Plan;
use crate::resample;

pub struct Picture {
    /// Row by row, red, green, blue and, where there is one, alpha.
    pub pixels: Vec<u8>,
    pub width: u32,
    pub height: u32,
    pub has_alpha: bool,
}

impl Picture {
    /// The part of the plan in the plan's size. Nothing is done where that is all as it is.
    pub fn resized(mut self, plan: &Plan) -> Picture {
        if plan.size == (self.width, self.height) {
            return self;
        }
        let (width, height) = plan.size;
        if !self.has_alpha {
            return Picture { pixels: resample::smaller(&self, plan), width, height, has_alpha: false };
        }
        // What cannot be seen must not shine through at the edges.
        for [colours @ .., alpha] in self.pixels.as_chunks_mut::<4>().0 {
            *colours = colours.map(|colour| scaled(colour, *alpha, 255));
        }
        let mut pixels = resample::smaller(&self, plan);
        for [colours @ .., alpha] in pixels.as_chunks_mut::<4>().0 {
            *colours = colours.map(|colour| scaled(colour, 255, *alpha));
        }
        Picture { pixels, width, height, has_alpha: true }
    }

    /// As its orientation says that it be looked at.
    pub fn turned(self, orientation: Orientation) -> Picture {
        if orientation == Orientation::NoTransforms {
            return self;
        }
        let mut image = self.into_image();
        image.apply_orientation(orientation);
        Picture::from(image)
    }

    pub fn channels(&self) -> usize {
        if self.has_alpha { 4 } else { 3 }
    }

    fn into_image(self) -> DynamicImage {
        let Picture { pixels, width, height, has_alpha } = self;
        let image = if has_alpha {
            RgbaImage::from_raw(width, height, pixels).map(DynamicImage::from)
        } else {
            RgbImage::from_raw(width, height, pixels).map(DynamicImage::from)
        };
        image.expect("a picture has as many pixels as its sides say")
    }
}

/// A channel times `by` through `of`; nothing where that is nothing.
fn scaled(channel: u8, by: u8, of: u8) -> u8 {
    let product = u32::from(channel) * u32::from(by) + u32::from(of) / 2;
    u8::try_from(product.checked_div(u32::from(of)).unwrap_or(0)).unwrap_or(u8::MAX)
}

impl From<DynamicImage> for Picture {
    fn from(image: DynamicImage) -> Picture {
        let (width, height, has_alpha) = (image.width(), image.height(), image.color().has_alpha());
        let pixels = if has_alpha { image.into_rgba8().into_raw() } else { image.into_rgb8().into_raw() };
        Picture { pixels, width, height, has_alpha }
    }
}
