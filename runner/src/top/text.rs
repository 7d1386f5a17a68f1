// SPDX-License-Identifier: AGPL-3.0-or-later
//! Numbers as people read them, in few characters.

/// What is large is rounded: `99999`, `123k`, `45.6M`.
pub fn count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        _ => scaled(number as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"]),
    }
}

/// Events in a second: `0`, `0.2`, `12`, `12.3k`.
pub fn rate(rate: f64) -> String {
    match rate {
        ..=0.0 => "0".into(),
        ..10.0 => format!("{rate:.1}"),
        _ => scaled(rate, 1000.0, &["", "k", "M", "G"]),
    }
}

/// Bytes: `512 B`, `1.5 MiB`.
pub fn bytes(number: f64) -> String {
    scaled(number, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

/// One digit behind the point where there is a unit and room.
fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What is to be shown as 1000 is the next unit.
    while number >= step - 0.5 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && number < 99.95);
    format!("{number:.digits$}{}", units[unit])
}

/// A name of anybody's choice on one line: what moves the cursor or turns text round is replaced.
pub fn name(name: &str) -> String {
    let is_format =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    name.chars().map(|c| if c.is_control() || is_format(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_few_characters() {
        let counts = [0, 99_999, 100_000, 999_499, 999_500, 1_234_567, u64::MAX].map(count);
        assert_eq!(counts, ["0", "99999", "100k", "999k", "1.0M", "1.2M", "18.4E"]);
        let rates = [0.0, -1.0, 0.04, 0.25, 9.9, 10.4, 999.4, 1000.0, 12_345.0, 1e12].map(rate);
        assert_eq!(rates, ["0", "0", "0.0", "0.2", "9.9", "10", "999", "1.0k", "12.3k", "1000G"]);
        let sizes = [0.0, 512.0, 1536.0, 1_048_576.0, 123.0 * 1_048_576.0].map(bytes);
        assert_eq!(sizes, ["0 B", "512 B", "1.5 KiB", "1.0 MiB", "123 MiB"]);
    }

    #[test]
    fn names_can_not_move_the_cursor() {
        assert_eq!(name("a\x1b[2J\n\u{202e}ä名"), "a\u{fffd}[2J\u{fffd}\u{fffd}ä名");
    }
}
