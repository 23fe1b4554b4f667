//! Kitty's graphics protocol (sw.kovidgoyal.net/kitty/graphics-protocol): pixels of 24 bits, packed by
//! zlib, in chunks of base64. The picture lies below text (`z=-1`), the cursor stays (`C=1`), and no
//! answer is given (`q=2`).

use std::io::{self, Write};

use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::ui::raster::Raster;

/// Characters of a chunk: more the protocol does not allow.
const CHUNK: usize = 4096;
/// The first number of ours: pictures of other programs on the same terminal have numbers too.
pub(super) const FIRST: u32 = 0x6761_6e00;

/// A picture under a number, scaled to its cells, where the cursor stands.
pub(super) fn encode(raster: &Raster, number: u32) -> io::Result<Vec<u8>> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&raster.rgb)?;
    let text = BASE64_STANDARD.encode(packed.finish()?);
    let Raster { area, width, height, .. } = raster;
    let mut bytes = Vec::with_capacity(text.len() + text.len() / 256 + 128);
    let mut chunks = text.as_bytes().chunks(CHUNK).peekable();
    let mut first = true;
    while let Some(chunk) = chunks.next() {
        let more = u8::from(chunks.peek().is_some());
        if std::mem::take(&mut first) {
            let (columns, rows) = (area.width, area.height);
            write!(
                bytes,
                "\x1b_Ga=T,q=2,f=24,o=z,s={width},v={height},i={number},p=1,c={columns},r={rows},\
                 C=1,z=-1,m={more};"
            )?;
        } else {
            write!(bytes, "\x1b_Gq=2,m={more};")?;
        }
        bytes.extend(chunk);
        bytes.extend(b"\x1b\\");
    }
    Ok(bytes)
}

/// Takes a picture away and frees what the terminal kept of it.
pub(super) fn delete(number: u32) -> Vec<u8> {
    format!("\x1b_Ga=d,d=I,i={number},q=2\x1b\\").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use ratatui::layout::Rect;

    use super::*;

    #[test]
    fn chunks_hold_the_pixels_and_ask_for_no_answer() {
        for (width, height) in [(1, 1), (120, 90)] {
            let rgb: Vec<u8> =
                (0..3 * width * height).map(|n| (n * n % 251) as u8 ^ (n / 7) as u8).collect();
            let area = Rect::new(3, 4, 12, 5);
            let raster = Raster { area, width, height, rgb, letters: vec![] };
            let text = String::from_utf8(encode(&raster, FIRST + 1).unwrap()).unwrap();
            let chunks: Vec<&str> = text.split_terminator("\x1b\\").collect();
            let mut data = String::new();
            for (n, chunk) in chunks.iter().enumerate() {
                let (keys, part) = chunk.strip_prefix("\x1b_G").unwrap().split_once(';').unwrap();
                let last = n + 1 == chunks.len();
                assert!(keys.ends_with(if last { "m=0" } else { "m=1" }), "{keys}");
                assert!(keys.split(',').any(|key| key == "q=2"), "{keys}");
                assert!(part.len() == CHUNK || last && part.len() <= CHUNK);
                data += part;
            }
            let head = format!(
                "\x1b_Ga=T,q=2,f=24,o=z,s={width},v={height},i=1734438401,p=1,c=12,r=5,C=1,z=-1,m="
            );
            assert!(text.starts_with(&head), "{}", &text[..80]);
            let packed = BASE64_STANDARD.decode(data).unwrap();
            let mut found = Vec::new();
            flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut found).unwrap();
            assert!(found == raster.rgb && (chunks.len() > 1) == (width > 1));
        }
        assert_eq!(delete(7), b"\x1b_Ga=d,d=I,i=7,q=2\x1b\\");
    }
}
