//! Sixel (DEC STD 070, VT330/340 programmer reference, chapter 14): bands of six rows, one pass a
//! colour. A terminal does not scale it, so that it is made for the pixels of its cells.
//!
//! Few terminals have more than 256 colours for it: 64 greys, and a coarse cube for what is marked.
//! Where that takes too many bytes, fewer greys are tried.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::ui::raster::Raster;

/// Greys, from the best on.
const GREYS: [u16; 4] = [64, 32, 16, 8];
/// Steps of each side of the cube of colours.
const STEPS: u16 = 5;
/// Pixels of a picture on the screen: 4K's, of which an image has at most half.
const PIXELS_MAX: usize = 4_000_000;

/// A picture where the cursor stands, for cells of so many pixels. None where it would take too many
/// bytes.
pub(super) fn encode(
    raster: &Raster,
    cell: (u16, u16),
    bytes_max: usize,
) -> io::Result<Option<Vec<u8>>> {
    let width = usize::from(raster.area.width) * usize::from(cell.0);
    let height = usize::from(raster.area.height) * usize::from(cell.1);
    if width * height == 0 || width * height > PIXELS_MAX || raster.rgb.is_empty() {
        return Ok(None);
    }
    for greys in GREYS {
        let bytes = with_greys(raster, (width, height), greys, bytes_max)?;
        if bytes.is_some() {
            return Ok(bytes);
        }
    }
    Ok(None)
}

/// The same with so many greys, given up once it takes too many bytes.
fn with_greys(
    raster: &Raster,
    (width, height): (usize, usize),
    greys: u16,
    bytes_max: usize,
) -> io::Result<Option<Vec<u8>>> {
    let colours: Vec<u16> =
        raster.rgb.chunks_exact(3).map(|rgb| colour([rgb[0], rgb[1], rgb[2]], greys)).collect();
    let columns: Vec<usize> = (0..width).map(|x| x * raster.width / width).collect();
    let mut bytes = Vec::new();
    write!(bytes, "\x1bP0;1;0q\"1;1;{width};{height}")?;
    let mut used = colours.clone();
    used.sort_unstable();
    used.dedup();
    for colour in used {
        let [red, green, blue] = percent(colour, greys);
        write!(bytes, "#{colour};2;{red};{green};{blue}")?;
    }
    for top in (0..height).step_by(6) {
        let mut passes: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        for bit in 0..(height - top).min(6) {
            let line = (top + bit) * raster.height / height * raster.width;
            for (x, column) in columns.iter().enumerate() {
                let pass = passes.entry(colours[line + column]).or_default();
                pass.resize(x.max(pass.len()), 0);
                match pass.get_mut(x) {
                    Some(bits) => *bits |= 1 << bit,
                    None => pass.push(1 << bit),
                }
            }
        }
        for (n, (colour, pass)) in passes.iter().enumerate() {
            if n > 0 {
                bytes.push(b'$');
            }
            write!(bytes, "#{colour}")?;
            for run in pass.chunk_by(|one, other| one == other) {
                let sixel = char::from(b'?' + run[0]);
                match run.len() {
                    count @ 4.. => write!(bytes, "!{count}{sixel}")?,
                    count => bytes.extend(std::iter::repeat_n(sixel as u8, count)),
                }
            }
        }
        bytes.push(b'-');
        if bytes.len() > bytes_max {
            return Ok(None);
        }
    }
    bytes.extend(b"\x1b\\");
    Ok(Some(bytes))
}

/// The number of a colour: greys first, then the cube.
fn colour([red, green, blue]: [u8; 3], greys: u16) -> u16 {
    let step = |value: u8, steps: u16| (u16::from(value) * (steps - 1) + 127) / 255;
    if red == green && green == blue {
        return step(red, greys);
    }
    greys + (step(red, STEPS) * STEPS + step(green, STEPS)) * STEPS + step(blue, STEPS)
}

/// Red, green and blue of a colour's number, in hundredths.
fn percent(colour: u16, greys: u16) -> [u16; 3] {
    let part = |step: u16, steps: u16| (step * 100 + (steps - 1) / 2) / (steps - 1);
    if colour < greys {
        return [part(colour, greys); 3];
    }
    let cube = colour - greys;
    [cube / (STEPS * STEPS), cube / STEPS % STEPS, cube % STEPS].map(|step| part(step, STEPS))
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;

    use super::*;

    fn raster(cells: (u16, u16), width: usize, height: usize, rgb: Vec<u8>) -> Raster {
        Raster { area: Rect::new(3, 4, cells.0, cells.1), width, height, rgb, letters: vec![] }
    }

    /// What a terminal paints: width, height, and red, green and blue of each pixel in hundredths.
    fn painted(bytes: &[u8]) -> (usize, usize, Vec<Option<[u16; 3]>>) {
        let text = std::str::from_utf8(bytes).unwrap();
        let body = text.strip_prefix("\x1bP0;1;0q\"1;1;").unwrap().strip_suffix("\x1b\\").unwrap();
        let mut rest = body;
        let number = |rest: &mut &str| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let value: usize = rest[..end].parse().unwrap();
            *rest = rest[end..].strip_prefix(';').unwrap_or(&rest[end..]);
            value
        };
        let (width, height) = (number(&mut rest), number(&mut rest));
        let mut pixels = vec![None; width * height];
        let mut palette = BTreeMap::new();
        let (mut colour, mut x, mut top) = (0, 0, 0);
        while let Some(c) = rest.chars().next() {
            rest = &rest[1..];
            let mut count = 1;
            let mut sixel = c;
            match c {
                '#' => {
                    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
                    let defines = rest[end..].starts_with(';');
                    colour = number(&mut rest);
                    if defines {
                        assert_eq!(number(&mut rest), 2);
                        let rgb = [(); 3].map(|()| number(&mut rest) as u16);
                        palette.insert(colour, rgb);
                    }
                    continue;
                }
                '$' => {
                    x = 0;
                    continue;
                }
                '-' => {
                    (x, top) = (0, top + 6);
                    continue;
                }
                '!' => {
                    count = number(&mut rest);
                    sixel = rest.chars().next().unwrap();
                    rest = &rest[1..];
                }
                _ => {}
            }
            let bits = sixel as u8 - b'?';
            for _ in 0..count {
                for bit in (0..6).filter(|bit| bits & (1 << bit) != 0) {
                    let pixel = &mut pixels[(top + bit) * width + x];
                    assert_eq!(pixel.replace(palette[&colour]), None, "painted twice");
                }
                x += 1;
            }
        }
        (width, height, pixels)
    }

    #[test]
    fn every_pixel_is_painted_once_in_its_colour() {
        // Black, white, a grey and a red, each a quarter; cells of 5 by 10 pixels.
        let rgb = vec![0, 0, 0, 255, 255, 255, 128, 128, 128, 255, 0, 0];
        let bytes = encode(&raster((4, 1), 2, 2, rgb), (5, 10), 1 << 20).unwrap().unwrap();
        let (width, height, pixels) = painted(&bytes);
        assert_eq!((width, height), (20, 10));
        for (n, pixel) in pixels.iter().enumerate() {
            let expected = match (n % 20 < 10, n / 20 < 5) {
                (true, true) => [0; 3],
                (false, true) => [100; 3],
                (true, false) => [51; 3],
                (false, false) => [100, 0, 0],
            };
            assert_eq!(*pixel, Some(expected), "{n}");
        }
    }

    #[test]
    fn the_bytes_of_a_small_one() {
        let rgb = vec![255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0];
        let bytes = encode(&raster((6, 1), 2, 2, rgb), (1, 2), 1 << 20).unwrap().unwrap();
        let expected = "\x1bP0;1;0q\"1;1;6;2#0;2;0;0;0#63;2;100;100;100#0!6A$#63!6@-\x1b\\";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn fewer_greys_take_fewer_bytes_and_too_many_are_refused() {
        let rgb: Vec<u8> = (0..100 * 100_u32)
            .flat_map(|n| [(n.wrapping_mul(2_654_435_761) >> 24) as u8; 3])
            .collect();
        let raster = raster((10, 5), 100, 100, rgb);
        let full = encode(&raster, (10, 20), usize::MAX).unwrap().unwrap().len();
        let bounded = encode(&raster, (10, 20), full / 2).unwrap().unwrap().len();
        assert!(bounded <= full / 2, "{bounded} of {full}");
        for (cell, most) in [((10, 20), 1000), ((0, 20), usize::MAX), ((400, 800), usize::MAX)] {
            assert_eq!(encode(&raster, cell, most).unwrap(), None);
        }
    }
}
