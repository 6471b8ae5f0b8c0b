//! Single values: durations, sizes, names.

use std::time::Duration;

/// A duration such as `250ms`, `1s`, `2h 30min`.
///
/// # Errors
/// Says what a duration looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("has to be longer than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!("'{text}' is not a duration such as 250ms, 10s, 5min, 4h")),
    }
}

/// A number of octets such as `4096`, `16KiB`, `2GB`.
///
/// # Errors
/// Says what a size looks like.
pub fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("", 1),
    ];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, factor)| *factor);
    let number = number.parse::<u64>().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| format!("'{text}' is not a size such as 4096, 16KiB, 2GB"))
}

/// A name that may appear in files, metric labels and URLs: letters, digits, `-`, `_` and `.`, 64 at most,
/// a letter or digit first.
///
/// # Errors
/// Says what a name looks like.
pub fn name(text: &str) -> Result<&str, String> {
    let is_good = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if is_good {
        Ok(text)
    } else {
        Err(format!(
            "'{text}' is not a name: up to 64 letters, digits, '-', '_' and '.', a letter or digit first"
        ))
    }
}

/// The name of a file without a path.
///
/// # Errors
/// Says what such a name looks like.
pub fn name_of_file(text: &str) -> Result<String, String> {
    match text {
        "" | "." | ".." => Err("a file name is expected here".to_owned()),
        _ if text.contains(['/', '\0']) => Err(format!("'{text}' is a path; a file name is expected here")),
        _ => Ok(text.to_owned()),
    }
}

/// The name of a network device: at most 15 octets, no space and no slash.
///
/// # Errors
/// Says what such a name looks like.
pub fn interface_name(text: &str) -> Result<&str, String> {
    let is_good = (1..=15).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if is_good { Ok(text) } else { Err(format!("'{text}' is not an interface name (1 to 15 characters)")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h 30min"), Ok(Duration::from_secs(5400)));
        for bad in ["10", "", "fast", "0s", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_may_have_a_unit() {
        assert_eq!((size("4096"), size("16KiB"), size("2 GB")), (Ok(4096), Ok(16384), Ok(2_000_000_000)));
        for bad in ["", "KiB", "1kib", "99999999999TB", "-1"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_fit_files_labels_and_urls() {
        assert!(name("dc-west.1").is_ok() && interface_name("wan0").is_ok());
        for bad in ["", "-a", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        for bad in ["", "..", "a/b", "sixteen-letters-"] {
            assert!(interface_name(bad).is_err(), "{bad}");
        }
    }
}
