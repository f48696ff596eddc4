//! Scratch: how long pictures take.
use ntier_images::{Asked, Limits, Transform, transform};
use std::time::Instant;
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let v: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (v[11].parse::<f64>().unwrap() + v[12].parse::<f64>().unwrap()) / 100.0
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let input = std::fs::read(&args[1]).unwrap();
    let size: u32 = args[2].parse().unwrap();
    for (name, format) in [("origin", Asked::Origin), ("webp", Asked::Webp), ("avif", Asked::Avif)] {
        if args.len() > 3 && args[3] != name {
            continue;
        }
        let wanted = Transform { width: Some(size), height: Some(size), format, ..Transform::default() };
        let (t, c) = (Instant::now(), cpu());
        let made =
            transform(&input, &wanted, &Limits { memory_bytes: 4 << 30, pixels: 100_000_000, ..Limits::default() });
        match made {
            Ok(image) => {
                println!(
                    "{name}: {}x{} {} {} bytes, wall {:?}, cpu {:.2}",
                    image.width,
                    image.height,
                    image.media_type,
                    image.bytes.len(),
                    t.elapsed(),
                    cpu() - c
                );
                std::fs::write(format!("{}/out-{name}", args.get(4).map_or("/tmp/h5/images-out", |s| s)), image.bytes)
                    .unwrap();
            }
            Err(e) => println!("{name}: {e} {e:?}"),
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|l| l.starts_with("VmHWM")).unwrap());
}
