//! The colours of a theme: fourteen meanings, each for terminals with many colours, with 256 and with
//! 16. They are files, checked at the start; a mistake is told with its line and column.

use std::sync::OnceLock;

use ratatui::style::Color;
use serde::Deserialize;
use toml::Spanned;

use crate::app::keys::place;

/// A colour in as many as the terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shade {
    /// Where it has 24 bits.
    pub rgb: (u8, u8, u8),
    /// Of the 256 of xterm.
    pub indexed: u8,
    /// Of the terminal's own 16.
    pub sixteen: Color,
}

/// The colours of a theme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    /// What needs a look.
    pub warn: Shade,
    /// What needs a human.
    pub fail: Shade,
    /// What runs well.
    pub good: Shade,
    /// What is old, or beside the point.
    pub dim: Shade,
    /// A use of nothing to a use of all, in five steps of one hue.
    pub ramp: [Shade; 5],
    /// Curves over one another.
    pub curves: [Shade; 5],
}

/// The theme that this process was started with.
static CHOSEN: OnceLock<Palette> = OnceLock::new();

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    rgb: Spanned<String>,
    indexed: u8,
    sixteen: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    warn: Row,
    fail: Row,
    good: Row,
    dim: Row,
    ramp: [Row; 5],
    curves: [Row; 5],
}

impl Palette {
    /// The colours that screens are drawn with: those that were chosen, or those for a dark
    /// background.
    ///
    /// # Panics
    /// Never: a test reads the shipped files.
    #[must_use]
    pub fn current() -> &'static Self {
        CHOSEN.get_or_init(|| match Self::parse("dark.toml", gantry_config::THEMES[0].1) {
            Ok(palette) => palette,
            Err(sentence) => panic!("the shipped theme: {sentence}"),
        })
    }

    /// Chooses the colours of this process, once, before anything is drawn.
    pub fn choose(self) {
        // A second choice comes too late to be seen, and the first stands.
        let _ = CHOSEN.set(self);
    }

    /// Reads a theme.
    ///
    /// # Errors
    /// With line and column of a mistake.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let parsed: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let message = error.message().lines().next().unwrap_or_default();
            format!("{file}:{}: {message}", place(text, start))
        })?;
        let shade = |row: &Row| {
            row.shade().map_err(|(at, why)| format!("{file}:{}: {why}", place(text, at)))
        };
        let five = |rows: &[Row; 5]| -> Result<[Shade; 5], String> {
            Ok([
                shade(&rows[0])?,
                shade(&rows[1])?,
                shade(&rows[2])?,
                shade(&rows[3])?,
                shade(&rows[4])?,
            ])
        };
        Ok(Self {
            warn: shade(&parsed.warn)?,
            fail: shade(&parsed.fail)?,
            good: shade(&parsed.good)?,
            dim: shade(&parsed.dim)?,
            ramp: five(&parsed.ramp)?,
            curves: five(&parsed.curves)?,
        })
    }
}

impl Row {
    /// The shade, or the byte of a mistake and what it is.
    fn shade(&self) -> Result<Shade, (usize, String)> {
        let (rgb, sixteen) = (self.rgb.get_ref(), self.sixteen.get_ref());
        let parts = rgb.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii());
        let part = |at: usize| u8::from_str_radix(parts?.get(at..at + 2)?, 16).ok();
        let (Some(red), Some(green), Some(blue)) = (part(0), part(2), part(4)) else {
            return Err((self.rgb.span().start, format!("{rgb:?} is not a colour as \"#d6aa32\"")));
        };
        let named: Result<Color, _> = sixteen.parse();
        match named {
            Ok(
                sixteen @ (Color::Reset
                | Color::Black
                | Color::Red
                | Color::Green
                | Color::Yellow
                | Color::Blue
                | Color::Magenta
                | Color::Cyan
                | Color::Gray
                | Color::DarkGray
                | Color::LightRed
                | Color::LightGreen
                | Color::LightYellow
                | Color::LightBlue
                | Color::LightMagenta
                | Color::LightCyan
                | Color::White),
            ) => Ok(Shade { rgb: (red, green, blue), indexed: self.indexed, sixteen }),
            _ => Err((
                self.sixteen.span().start,
                format!(
                    "{sixteen:?} is none of the sixteen colours, as \"yellow\" or \"darkgray\""
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_themes_are_sound_and_their_ramps_rise_in_one_hue() {
        for (name, text) in gantry_config::THEMES {
            let palette = Palette::parse(name, text).unwrap();
            // Relative luminance as BT.709 has it, in thousandths.
            let light = |shade: &Shade| {
                let (red, green, blue) = shade.rgb;
                u32::from(red) * 213 + u32::from(green) * 715 + u32::from(blue) * 72
            };
            let steps: Vec<u32> = palette.ramp.iter().map(light).collect();
            let rises = steps.windows(2).all(|pair| pair[0] < pair[1]);
            let falls = steps.windows(2).all(|pair| pair[0] > pair[1]);
            assert!(if *name == "light" { falls } else { rises }, "{name} {steps:?}");
        }
    }

    #[test]
    fn a_mistake_in_a_theme_has_its_place() {
        let dark = gantry_config::THEMES[0].1;
        let (from, to) = (dark.find("warn = ").unwrap(), dark.find("\nfail").unwrap());
        let with = |row: &str| format!("{}{row}{}", &dark[..from], &dark[to..]);
        let line = dark[..from].matches('\n').count() + 1;
        for (row, part) in [
            (
                "warn = { rgb = \"red\", indexed = 1, sixteen = \"red\" }",
                format!("t.toml:{line}:16: \"red\" is not"),
            ),
            (
                "warn = { rgb = \"#ff0000\", indexed = 1, sixteen = \"rouge\" }",
                format!("t.toml:{line}:50: \"rouge\""),
            ),
            (
                "warn = { rgb = \"#ff0000\", indexed = 999, sixteen = \"red\" }",
                format!("t.toml:{line}:"),
            ),
            ("", "missing field `warn`".to_owned()),
        ] {
            let error = Palette::parse("t.toml", &with(row)).unwrap_err();
            assert!(error.contains(&part), "{error} lacks {part}");
        }
    }
}
