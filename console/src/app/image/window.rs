//! Window and level: which values are black, which white.

/// A window over the values of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The value in the middle of the greys.
    pub level: f32,
    /// How many values lie between black and white.
    pub width: f32,
}

/// The narrowest window.
const WIDTH_MIN: f32 = 1.0;
/// The widest one: all a CT of 16 bits can say.
const WIDTH_MAX: f32 = 65_536.0;

/// What radiologists look at a CT with.
pub const CT: [(&str, Window); 6] = [
    ("soft tissue", Window { level: 40.0, width: 400.0 }),
    ("lung", Window { level: -600.0, width: 1500.0 }),
    ("bone", Window { level: 300.0, width: 1500.0 }),
    ("brain", Window { level: 40.0, width: 80.0 }),
    ("liver", Window { level: 60.0, width: 160.0 }),
    ("mediastinum", Window { level: 50.0, width: 350.0 }),
];

impl Window {
    /// One that shows all values of a range.
    #[must_use]
    pub fn over((low, high): (f32, f32)) -> Self {
        let width = if (high - low).is_finite() { high - low } else { WIDTH_MAX };
        let level = if low.is_finite() { low + width / 2.0 } else { 0.0 };
        Self { level, width: width.clamp(WIDTH_MIN, WIDTH_MAX) }
    }

    /// A value as a grey of 0 to 255.
    #[must_use]
    pub fn grey(self, value: f32) -> u8 {
        // A value that is no number is black.
        (((value - self.level) / self.width + 0.5) * 256.0) as u8
    }

    /// Moved by a part of its width: a twentieth a step.
    #[must_use]
    pub fn moved(self, up: bool) -> Self {
        let step = (self.width / 20.0).max(1.0).round();
        let level = if up { self.level + step } else { self.level - step };
        Self { level: level.clamp(-WIDTH_MAX, WIDTH_MAX), ..self }
    }

    /// Wider or narrower, by a fifth.
    #[must_use]
    pub fn stretched(self, wider: bool) -> Self {
        let width = if wider { self.width * 1.25 } else { self.width / 1.25 };
        Self { width: width.clamp(WIDTH_MIN, WIDTH_MAX).round(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greys_end_where_the_window_does() {
        let window = Window { level: 40.0, width: 400.0 };
        for (value, grey) in [
            (-1000.0, 0),
            (-160.0, 0),
            (40.0, 128),
            (239.0, 255),
            (3000.0, 255),
            (f32::NAN, 0),
            (f32::INFINITY, 255),
            (f32::NEG_INFINITY, 0),
        ] {
            assert_eq!(window.grey(value), grey, "{value}");
        }
        assert_eq!((window.moved(true).level, window.stretched(true).width), (60.0, 500.0));
        let whole = Window::over((-1000.0, 1000.0));
        assert_eq!((whole.level, whole.width), (0.0, 2000.0));
        for odd in [(f32::NAN, 1.0), (f32::NEG_INFINITY, f32::INFINITY), (5.0, 5.0)] {
            let window = Window::over(odd);
            assert!(window.width >= WIDTH_MIN && window.level.is_finite(), "{window:?}");
        }
    }
}
