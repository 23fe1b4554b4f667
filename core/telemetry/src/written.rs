//! Values of a reading as people write and read them: `90%`, `4G`, `300W`.
//!
//! Inside, a reading is a whole number of a small unit ([`Quantity::unit`]); nobody wants to write
//! 300000 for 300 watts. What is written needs its unit where a bare number could be meant in two
//! ways. All of it is integers: three places behind the point are read, and one is shown.

use crate::quantity::Quantity;

/// Units that people write, with how many of the small unit they are; the one that is shown first.
/// An empty name stands for a bare number.
const fn units(quantity: Quantity) -> &'static [(&'static str, u64)] {
    match quantity {
        Quantity::Cpu
        | Quantity::PressureCpu
        | Quantity::PressureMemory
        | Quantity::PressureIo
        | Quantity::GpuBusy
        | Quantity::GpuMemoryBusy => &[("%", 10)],
        Quantity::Memory | Quantity::Swap | Quantity::DiskFree | Quantity::GpuMemory => {
            &[("G", 1 << 10), ("M", 1), ("T", 1 << 20)]
        }
        Quantity::Load => &[("", 100)],
        Quantity::NetworkReceived
        | Quantity::NetworkSent
        | Quantity::GpuPcieSent
        | Quantity::GpuPcieReceived => &[("M/s", 1 << 10), ("K/s", 1), ("G/s", 1 << 20)],
        Quantity::StorageAnswer => &[("ms", 1), ("s", 1000)],
        Quantity::Tasks => &[("", 1)],
        Quantity::GpuTemperature => &[("C", 1), ("", 1)],
        Quantity::GpuPower => &[("W", 1000), ("mW", 1)],
        Quantity::GpuClock => &[("MHz", 1), ("GHz", 1000)],
    }
}

impl Quantity {
    /// A value as people read it.
    #[must_use]
    pub fn shown(self, value: u32) -> String {
        let value = u64::from(value);
        let (name, size) = units(self).first().copied().unwrap_or(("", 1));
        let tenths = value * 10 / size;
        let space = if name.is_empty() || name == "%" { "" } else { " " };
        if size == 1 {
            format!("{value}{space}{name}")
        } else {
            format!("{}.{}{space}{name}", tenths / 10, tenths % 10)
        }
    }

    /// Reads a value as people write it.
    ///
    /// # Errors
    /// A sentence with the units that it can be written in.
    pub fn value_of(self, text: &str) -> Result<u32, String> {
        let wrong = || {
            let known: Vec<String> = units(self)
                .iter()
                .map(
                    |(name, _)| {
                        if name.is_empty() { "a number".into() } else { format!("{name:?}") }
                    },
                )
                .collect();
            format!(
                "{text:?} is no value of {self}; write a number with its unit, which is {}",
                known.join(" or ")
            )
        };
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim_start();
        let size = units(self).iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        let thousandths = thousandths(number).ok_or_else(wrong)?;
        let value = thousandths.checked_mul(size).map(|value| value / 1000);
        value.and_then(|value| u32::try_from(value).ok()).ok_or_else(wrong)
    }
}

/// A decimal number in thousandths.
fn thousandths(number: &str) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_shown_with_their_units() {
        for (quantity, text, value, shown) in [
            (Quantity::Cpu, "90%", 900, "90.0%"),
            (Quantity::GpuBusy, "12.5 %", 125, "12.5%"),
            (Quantity::DiskFree, "4G", 4096, "4.0 G"),
            (Quantity::DiskFree, "512M", 512, "0.5 G"),
            (Quantity::GpuMemory, "1.5T", 1_572_864, "1536.0 G"),
            (Quantity::Load, "2.5", 250, "2.5"),
            (Quantity::NetworkSent, "100M/s", 102_400, "100.0 M/s"),
            (Quantity::StorageAnswer, "1.5s", 1500, "1500 ms"),
            (Quantity::Tasks, "7", 7, "7"),
            (Quantity::GpuTemperature, "85", 85, "85 C"),
            (Quantity::GpuTemperature, "85 C", 85, "85 C"),
            (Quantity::GpuPower, "300.25W", 300_250, "300.2 W"),
            (Quantity::GpuClock, "1.41GHz", 1410, "1410 MHz"),
        ] {
            assert_eq!(quantity.value_of(text), Ok(value), "{text}");
            assert_eq!(quantity.shown(value), shown);
        }
    }

    #[test]
    fn what_could_mean_two_things_is_refused_with_what_can_be_written() {
        for (quantity, text, part) in [
            (Quantity::Cpu, "90", "\"%\""),
            (Quantity::GpuPower, "300", "\"W\" or \"mW\""),
            (Quantity::Memory, "4", "\"G\""),
            (Quantity::Tasks, "seven", "a number"),
            (Quantity::Tasks, "", "a number"),
            (Quantity::Load, "1.2345", "a number"),
            (Quantity::Load, "1.", "a number"),
            (Quantity::Load, "-1", "a number"),
            (Quantity::Memory, "99999999T", "\"T\""),
            (Quantity::GpuPower, "99999999999999999999W", "\"W\""),
        ] {
            let refused = quantity.value_of(text).unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
    }
}
