//! Lanczos' filter over three lobes, which keeps lines sharp. First down the columns and then along the row: so there is never more than
//! one row beside source and result.
//!
//! It is ours because the crates that do it with SIMD are compiled for every kind of pixel: a minute and more, for a step that takes a
//! fraction of decoding.

use std::f64::consts::PI;

use crate::geometry::Plan;
use crate::picture::Picture;

/// How far the filter reaches, in pixels of the result.
const LOBES: f64 = 3.0;

/// The plan's part of a picture in the plan's size. Where pixels have alpha, their colours must be multiplied by it.
pub fn smaller(picture: &Picture, plan: &Plan) -> Vec<u8> {
    let across = taps(plan.left, plan.width, picture.width, plan.size.0);
    let down = taps(plan.top, plan.height, picture.height, plan.size.1);
    if picture.has_alpha { filter::<4>(picture, &across, &down) } else { filter::<3>(picture, &across, &down) }
}

/// The source pixels that one pixel of the result is made of.
struct Taps {
    first: usize,
    /// Together 1.
    weights: Vec<f32>,
}

impl Taps {
    fn end(&self) -> usize {
        self.first + self.weights.len()
    }
}

/// `length` pixels from `start` on, of a side of `of`, become `to`. At the edges of what is cut, the pixels behind them count too.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the side; weights need no more"
)]
fn taps(start: f64, length: f64, of: u32, to: u32) -> Vec<Taps> {
    let scale = length / f64::from(to);
    let reach = LOBES * scale.max(1.0);
    let tap = |at: u32| {
        let centre = (f64::from(at) + 0.5).mul_add(scale, start);
        let first = (centre - reach).floor().max(0.0) as u32;
        let last = ((centre + reach).ceil() as u32).min(of).max(first + 1);
        let weight = |pixel: u32| lanczos((f64::from(pixel) + 0.5 - centre) / scale.max(1.0));
        let sum: f64 = (first..last).map(weight).sum();
        Taps { first: first as usize, weights: (first..last).map(|pixel| (weight(pixel) / sum) as f32).collect() }
    };
    (0..to).map(tap).collect()
}

fn lanczos(distance: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    if distance.abs() < LOBES { sinc(distance) * sinc(distance / LOBES) } else { 0.0 }
}

fn filter<const CHANNELS: usize>(picture: &Picture, across: &[Taps], down: &[Taps]) -> Vec<u8> {
    let stride = picture.width as usize * CHANNELS;
    // The columns that count at all.
    let left = across.first().map_or(0, |taps| taps.first);
    let right = across.last().map_or(0, Taps::end);
    let mut column_sums = vec![0.0; (right - left) * CHANNELS];
    let mut pixels = Vec::with_capacity(across.len() * down.len() * CHANNELS);
    for taps in down {
        column_sums.fill(0.0);
        let rows = picture.pixels[taps.first * stride..].chunks_exact(stride);
        for (row, weight) in rows.zip(&taps.weights) {
            for (sum, channel) in column_sums.iter_mut().zip(&row[left * CHANNELS..]) {
                *sum += weight * f32::from(*channel);
            }
        }
        let columns = column_sums.as_chunks::<CHANNELS>().0;
        for taps in across {
            let mut sums = [0.0; CHANNELS];
            for (column, weight) in columns[taps.first - left..].iter().zip(&taps.weights) {
                for (sum, channel) in sums.iter_mut().zip(column) {
                    *sum += weight * channel;
                }
            }
            pixels.extend(sums.map(byte));
        }
    }
    pixels
}

/// The filter overshoots at edges.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of floats saturates, which is meant"
)]
fn byte(channel: f32) -> u8 {
    (channel + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(of: (u32, u32), left: f64, width: f64, size: (u32, u32)) -> Plan {
        Plan { of, left, top: 0.0, width, height: f64::from(of.1), size }
    }

    fn picture(width: u32, height: u32, colour: impl Fn(u32, u32) -> [u8; 3]) -> Picture {
        let pixels =
            (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| colour(x, y)).collect();
        Picture { pixels, width, height, has_alpha: false }
    }

    #[test]
    fn one_colour_stays_the_same() {
        let grey = picture(97, 61, |_, _| [200, 100, 3]);
        for size in [(96, 60), (40, 61), (97, 1), (1, 1)] {
            let small = smaller(&grey, &plan((97, 61), 0.0, 97.0, size));
            assert_eq!(small, [200, 100, 3].repeat(size.0 as usize * size.1 as usize), "{size:?}");
        }
    }

    #[test]
    fn a_slope_stays_a_slope() {
        let slope = picture(250, 4, |x, _| [u8::try_from(x).unwrap(); 3]);
        let small = smaller(&slope, &plan((250, 4), 50.0, 150.0, (15, 2)));
        for (at, pixel) in small.chunks_exact(3).enumerate() {
            let middle = 50 + at % 15 * 10 + 5;
            assert!(usize::from(pixel[0]).abs_diff(middle) <= 1, "{at}: {pixel:?}");
        }
    }

    #[test]
    fn what_is_finer_than_the_result_becomes_grey() {
        let lines = picture(256, 256, |x, y| if (x + y) % 2 == 0 { [255; 3] } else { [0; 3] });
        let small = smaller(&lines, &plan((256, 256), 0.0, 256.0, (32, 32)));
        assert!(small.iter().all(|channel| (124..=131).contains(channel)), "{small:?}");
    }
}
