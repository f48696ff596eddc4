//! Which part of a picture is taken, and how large it becomes. The arithmetic is imgproxy's (its resizing types `fill`, `fit` and
//! `force`, without enlarging), so that a page looks the same on either.

use image::metadata::Orientation;

use crate::Transform;

/// How a picture is brought into the wanted width and height where its proportions are others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resize {
    /// It fills them, and what projects is cut off.
    #[default]
    Cover,
    /// It fits into them whole, and one side may be shorter.
    Contain,
    /// It is stretched.
    Fill,
}

/// What stays where something is cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gravity {
    /// A side, a corner or the middle, and a distance from it: pixels of the result from 1 on, below 1 a part of the side.
    Towards { across: Across, down: Down, x: f64, y: f64 },
    /// A point that shall be in the middle, as parts of width and height from the upper left.
    Focus { x: f64, y: f64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Across {
    Left,
    Middle,
    Right,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    Top,
    Middle,
    Bottom,
}

impl Default for Gravity {
    fn default() -> Gravity {
        Gravity::Towards { across: Across::Middle, down: Down::Middle, x: 0.0, y: 0.0 }
    }
}

/// The part of a picture that is taken, and what it becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Width and height of the whole.
    pub of: (u32, u32),
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
    /// Width and height of the result, at least 1.
    pub size: (u32, u32),
}

/// What becomes of a picture of `source` pixels, as one sees it: turned as its orientation says. Both sides are at least 1.
pub fn plan(source: (u32, u32), wanted: &Transform, side: u32) -> Plan {
    let limited = |pixels: Option<u32>| pixels.filter(|pixels| *pixels > 0).map(|pixels| pixels.min(side.max(1)));
    let (width, height) = (limited(wanted.width), limited(wanted.height));
    let shrink = shrink(source, width, height, wanted.resize);
    let scaled = (shrunk(source.0, shrink.0), shrunk(source.1, shrink.1));
    let size = (width.unwrap_or(scaled.0).min(scaled.0), height.unwrap_or(scaled.1).min(scaled.1));
    let (left, top) = position(scaled, size, wanted.gravity);
    let part = |of: u32, pixels: f64, all: u32| pixels * f64::from(of) / f64::from(all);
    Plan {
        of: source,
        left: part(source.0, left, scaled.0),
        top: part(source.1, top, scaled.1),
        width: part(source.0, f64::from(size.0), scaled.0),
        height: part(source.1, f64::from(size.1), scaled.1),
        size,
    }
}

/// How many times smaller the sides become; 1 is the least, which is never to enlarge.
fn shrink(source: (u32, u32), width: Option<u32>, height: Option<u32>, resize: Resize) -> (f64, f64) {
    let times = |of: u32, to: Option<u32>| to.map_or(1.0, |to| f64::from(of) / f64::from(to));
    let (across, down) = (times(source.0, width), times(source.1, height));
    let (across, down) = match (resize, width, height) {
        (Resize::Fill, ..) => (across, down),
        (_, None, _) => (down, down),
        (_, _, None) => (across, across),
        (Resize::Contain, ..) => (across.max(down), across.max(down)),
        (Resize::Cover, ..) => (across.min(down), across.min(down)),
    };
    // A stretched picture that would grow on one side shrinks more on the other: it keeps the wanted proportions.
    let least = across.min(down).min(1.0);
    (across / least, down / least)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and a side of the source")]
fn shrunk(side: u32, times: f64) -> u32 {
    ((f64::from(side) / times).round() as u32).clamp(1, side)
}

/// The upper left corner of what is taken of the scaled picture, in its pixels.
fn position(scaled: (u32, u32), size: (u32, u32), gravity: Gravity) -> (f64, f64) {
    let (wide, high) = (f64::from(scaled.0), f64::from(scaled.1));
    let (spare_x, spare_y) = (f64::from(scaled.0 - size.0), f64::from(scaled.1 - size.1));
    let (left, top) = match gravity {
        Gravity::Focus { x, y } => {
            let half = |side: u32| f64::from(side / 2);
            ((wide * x).round_ties_even() - half(size.0), (high * y).round_ties_even() - half(size.1))
        }
        Gravity::Towards { across, down, x, y } => {
            let distance = |of: f64, said: f64| (if said.abs() >= 1.0 { said } else { of * said }).round_ties_even();
            let middle = |spare: f64| f64::midpoint(spare, 1.0).round_ties_even();
            let left = match across {
                Across::Left => distance(wide, x),
                Across::Middle => middle(spare_x) + distance(wide, x),
                Across::Right => spare_x - distance(wide, x),
            };
            let top = match down {
                Down::Top => distance(high, y),
                Down::Middle => middle(spare_y) + distance(high, y),
                Down::Bottom => spare_y - distance(high, y),
            };
            (left, top)
        }
    };
    // The one that is not a number, as a caller's offset may be, becomes the corner.
    (left.min(spare_x).max(0.0), top.min(spare_y).max(0.0))
}

impl Plan {
    /// The same of the picture as it is stored: what is taken of it first is turned afterwards.
    pub fn before(self, orientation: Orientation) -> Plan {
        let turn = Turn::of(orientation);
        let (wide, high) = (f64::from(self.of.0), f64::from(self.of.1));
        let left = if turn.mirrored { wide - self.left - self.width } else { self.left };
        let top = if turn.upside_down { high - self.top - self.height } else { self.top };
        if turn.transposed {
            let (of, size) = ((self.of.1, self.of.0), (self.size.1, self.size.0));
            return Plan { of, left: top, top: left, width: self.height, height: self.width, size };
        }
        Plan { left, top, ..self }
    }
}

/// Each orientation is an exchange of rows and columns or none, and then mirrors.
struct Turn {
    transposed: bool,
    mirrored: bool,
    upside_down: bool,
}

impl Turn {
    fn of(orientation: Orientation) -> Turn {
        let (transposed, mirrored, upside_down) = match orientation {
            Orientation::NoTransforms => (false, false, false),
            Orientation::FlipHorizontal => (false, true, false),
            Orientation::Rotate180 => (false, true, true),
            Orientation::FlipVertical => (false, false, true),
            Orientation::Rotate90FlipH => (true, false, false),
            Orientation::Rotate90 => (true, true, false),
            Orientation::Rotate270FlipH => (true, true, true),
            Orientation::Rotate270 => (true, false, true),
        };
        Turn { transposed, mirrored, upside_down }
    }
}

/// The size that a picture has when it is turned; turning it again gives the size before.
pub fn turned((width, height): (u32, u32), orientation: Orientation) -> (u32, u32) {
    if Turn::of(orientation).transposed { (height, width) } else { (width, height) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(source: (u32, u32), width: u32, height: u32, resize: Resize) -> (u32, u32) {
        let wanted = Transform { width: Some(width), height: Some(height), resize, ..Transform::default() };
        plan(source, &wanted, 2500).size
    }

    #[test]
    fn sizes_are_those_of_imgproxy() {
        use Resize::{Contain, Cover, Fill};
        for (source, width, height, resize, becomes) in [
            // Both sides, landscape and portrait.
            ((1000, 500), 100, 100, Cover, (100, 100)),
            ((1000, 500), 100, 100, Contain, (100, 50)),
            ((1000, 500), 100, 100, Fill, (100, 100)),
            ((500, 1000), 100, 100, Cover, (100, 100)),
            ((500, 1000), 100, 100, Contain, (50, 100)),
            ((500, 1000), 100, 40, Fill, (100, 40)),
            // One side: the other follows, but for what is stretched, which keeps it.
            ((1000, 500), 100, 0, Cover, (100, 50)),
            ((1000, 500), 100, 0, Contain, (100, 50)),
            ((1000, 500), 100, 0, Fill, (100, 500)),
            ((1000, 500), 0, 100, Cover, (200, 100)),
            ((1000, 500), 0, 100, Contain, (200, 100)),
            ((1000, 500), 0, 100, Fill, (1000, 100)),
            // None.
            ((1000, 500), 0, 0, Cover, (1000, 500)),
            ((3000, 500), 0, 0, Cover, (3000, 500)),
            // Nothing grows.
            ((100, 50), 200, 200, Cover, (100, 50)),
            ((100, 50), 200, 200, Contain, (100, 50)),
            ((100, 50), 200, 200, Fill, (50, 50)),
            ((100, 50), 200, 0, Cover, (100, 50)),
            ((100, 50), 200, 0, Fill, (100, 25)),
            ((400, 100), 200, 200, Cover, (200, 100)),
            ((400, 100), 200, 200, Contain, (200, 50)),
            ((400, 100), 200, 200, Fill, (100, 100)),
            // What is asked for is limited, and nothing vanishes.
            ((9000, 9000), 5000, 4000, Cover, (2500, 2500)),
            ((10_000, 10), 100, 0, Cover, (100, 1)),
            ((10_000, 1), 10, 0, Contain, (10, 1)),
            ((1, 1), 1, 1, Cover, (1, 1)),
        ] {
            assert_eq!(size(source, width, height, resize), becomes, "{source:?} to {width}x{height} {resize:?}");
        }
    }

    #[test]
    fn what_is_cut_off_follows_from_the_gravity() {
        let towards = |across, down, x, y| Gravity::Towards { across, down, x, y };
        for (gravity, left, top) in [
            (Gravity::default(), 250.0, 0.0),
            (towards(Across::Left, Down::Top, 0.0, 0.0), 0.0, 0.0),
            (towards(Across::Right, Down::Bottom, 0.0, 0.0), 500.0, 0.0),
            (towards(Across::Left, Down::Middle, 10.0, 0.0), 100.0, 0.0),
            (towards(Across::Right, Down::Middle, 0.1, 9.0), 400.0, 0.0),
            (towards(Across::Middle, Down::Middle, -900.0, 0.0), 0.0, 0.0),
            (Gravity::Focus { x: 0.0, y: 1.0 }, 0.0, 0.0),
            (Gravity::Focus { x: 1.0, y: 0.0 }, 500.0, 0.0),
            (Gravity::Focus { x: 0.4, y: f64::NAN }, 150.0, 0.0),
        ] {
            let wanted = Transform { width: Some(50), height: Some(50), gravity, ..Transform::default() };
            let plan = plan((1000, 500), &wanted, 2500);
            // To within the half pixel of the result by which the middle may be missed.
            assert!((plan.left - left).abs() <= 10.0 && (plan.top - top).abs() <= 10.0, "{gravity:?}: {plan:?}");
            assert_eq!((plan.width, plan.height, plan.size), (500.0, 500.0, (50, 50)), "{gravity:?}");
        }
    }
}
