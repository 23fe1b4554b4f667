//! iTerm2's images (iterm2.com/documentation-images.html): a PNG in base64 within OSC 1337, scaled to
//! its cells.

use std::io::{self, Write};

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::ui::raster::Raster;

/// A picture where the cursor stands.
pub(super) fn encode(raster: &Raster) -> io::Result<Vec<u8>> {
    let mut image = Vec::new();
    let mut encoder = png::Encoder::new(&mut image, raster.width as u32, raster.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&raster.rgb)?;
    writer.finish()?;
    let (size, columns, rows) = (image.len(), raster.area.width, raster.area.height);
    let mut bytes = Vec::new();
    write!(
        bytes,
        "\x1b]1337;File=inline=1;size={size};width={columns};height={rows};\
         preserveAspectRatio=0;doNotMoveCursor=1:{}\x07",
        BASE64_STANDARD.encode(image)
    )?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;

    use super::*;

    #[test]
    fn the_image_holds_the_pixels() {
        let rgb: Vec<u8> = (0..3 * 20 * 10).map(|n| (n % 256) as u8).collect();
        let area = Rect::new(3, 4, 12, 5);
        let raster = Raster { area, width: 20, height: 10, rgb, letters: vec![] };
        let text = String::from_utf8(encode(&raster).unwrap()).unwrap();
        let (head, data) = text.strip_suffix('\x07').unwrap().split_once(':').unwrap();
        let image = BASE64_STANDARD.decode(data).unwrap();
        assert_eq!(
            head,
            format!(
                "\x1b]1337;File=inline=1;size={};width=12;height=5;preserveAspectRatio=0;\
                 doNotMoveCursor=1",
                image.len()
            )
        );
        let mut reader = png::Decoder::new(io::Cursor::new(image)).read_info().unwrap();
        let mut found = vec![0; 3 * 20 * 10];
        let info = reader.next_frame(&mut found).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (20, 10, png::ColorType::Rgb));
        assert_eq!(found, raster.rgb);
    }
}
