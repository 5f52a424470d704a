//! Numbers for people: sizes, counts, times and rates.
//!
//! Rounded values carry a unit and three significant digits; [`grouped`] is
//! exact.

/// Binary units above one byte, each 1024 times the one before.
const SIZES: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// An exact integer with separators: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An exact difference with separators and its sign: `+1,234`, `-5`, `0`.
pub fn grouped_change(before: u64, after: u64) -> String {
    format!("{}{}", sign(before, after), grouped(before.abs_diff(after)))
}

/// A size: `812 B`, `9.54 MiB`.
pub fn bytes(size: u64) -> String {
    if size < 1024 {
        format!("{size} B")
    } else {
        scaled(size as f64)
    }
}

/// The change of a size with its sign: `+9.54 MiB`, `-812 B`, `0 B`.
pub fn bytes_change(before: u64, after: u64) -> String {
    format!("{}{}", sign(before, after), bytes(before.abs_diff(after)))
}

/// Bytes per second, without the `/s`: `163 KiB`.
pub fn bytes_per_second(rate: f64) -> String {
    if rate < 1023.5 {
        format!("{} B", significant(rate))
    } else {
        scaled(rate)
    }
}

/// Events per second, without the `/s`: `0.17`, `83,333`.
pub fn per_second(rate: f64) -> String {
    significant(rate)
}

/// `part` of `whole` in percent: `83.7%`; `–` when there is no whole.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".into();
    }
    let value = 100.0 * part as f64 / whole as f64;
    match value {
        _ if part == 0 => "0%".into(),
        _ if part == whole => "100%".into(),
        v if v < 0.1 => "<0.1%".into(),
        v if v > 99.9 => ">99.9%".into(),
        v => format!("{v:.1}%"),
    }
}

/// A span of time: `12 µs`, `45 ms`, `59.9 s`, `3m 12s`, `2h 05m`, `3d 04h`.
pub fn seconds(span: f64) -> String {
    let span = if span.is_finite() { span.max(0.0) } else { 0.0 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite, not negative"
    )]
    let whole = span.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match span {
        0.0 => "0 s".into(),
        s if s < 1e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 1e-3 => format!("{} µs", significant(s * 1e6)),
        s if s < 0.9995 => format!("{} ms", significant(s * 1e3)),
        s if s < 59.95 => format!("{s:.1} s"),
        s if s < 3599.5 => format!("{minutes}m {:02}s", whole % 60),
        s if s < 86_399.5 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

/// `count` and the right form of the noun: `1 block`, `2,000 blocks`.
pub fn counted(count: u64, singular: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {singular}{ending}", grouped(count))
}

fn sign(before: u64, after: u64) -> &'static str {
    match after.cmp(&before) {
        std::cmp::Ordering::Greater => "+",
        std::cmp::Ordering::Less => "-",
        std::cmp::Ordering::Equal => "",
    }
}

/// A size of 1 KiB or more in the unit that leaves less than 1024.
fn scaled(size: f64) -> String {
    let mut value = size / 1024.0;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < SIZES.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", significant(value), SIZES[unit])
}

/// Three significant digits below 100, whole numbers with separators above.
fn significant(value: f64) -> String {
    let value = if value.is_finite() {
        value.max(0.0)
    } else {
        0.0
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite, not negative"
    )]
    match value {
        0.0 => "0".into(),
        v if v < 0.001 => "<0.001".into(),
        v if v < 0.0995 => format!("{v:.3}"),
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => grouped(v.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_numbers_have_separators() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(grouped_change(5, 1_005), "+1,000");
        assert_eq!(grouped_change(5, 4), "-1");
        assert_eq!(grouped_change(5, 5), "0");
    }

    #[test]
    fn sizes_roll_over_to_the_next_unit() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes(10_002_341), "9.54 MiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.00 MiB");
        assert_eq!(bytes(1000 * 1024), "1,000 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(bytes_change(0, 2048), "+2.00 KiB");
        assert_eq!(bytes_change(2048, 0), "-2.00 KiB");
        assert_eq!(bytes_per_second(0.5), "0.50 B");
    }

    #[test]
    fn a_share_is_never_rounded_to_nothing_or_all() {
        assert_eq!(percent(0, 0), "–");
        assert_eq!(percent(0, 7), "0%");
        assert_eq!(percent(1, 1_000_000), "<0.1%");
        assert_eq!(percent(837, 1000), "83.7%");
        assert_eq!(percent(999_999, 1_000_000), ">99.9%");
        assert_eq!(percent(7, 7), "100%");
    }

    #[test]
    fn spans_use_the_unit_that_reads_best() {
        assert_eq!(seconds(0.0), "0 s");
        assert_eq!(seconds(0.000_012), "12.0 µs");
        assert_eq!(seconds(0.045), "45.0 ms");
        assert_eq!(seconds(59.94), "59.9 s");
        assert_eq!(seconds(59.99), "1m 00s");
        assert_eq!(seconds(7500.0), "2h 05m");
        assert_eq!(seconds(273_600.0), "3d 04h");
        assert_eq!(seconds(f64::NAN), "0 s");
    }

    #[test]
    fn rates_keep_three_digits() {
        assert_eq!(per_second(0.0), "0");
        assert_eq!(per_second(0.0167), "0.017");
        assert_eq!(per_second(166.78), "167");
        assert_eq!(per_second(83_333.3), "83,333");
    }
}
