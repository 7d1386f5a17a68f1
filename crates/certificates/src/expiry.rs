// SPDX-License-Identifier: AGPL-3.0-or-later
//! When a certificate expires: the one field of X.509 that is needed here (RFC 5280, 4.1.2.5), read from its DER.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` in seconds since 1970; none if this is no certificate.
pub(crate) fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut signed, _) = element(certificate, SEQUENCE)?;
    if let Some((_, rest)) = element(signed, VERSION) {
        signed = rest;
    }
    // Serial number, algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, signed) = element(signed, tag)?;
    }
    let (validity, _) = element(signed, SEQUENCE)?;
    let (_, validity) = time(validity)?;
    Some(time(validity)?.0)
}

/// The content of the element that `bytes` begin with, if it has this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // A length of its own, in so many bytes.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A time in seconds since 1970, in either of the forms that certificates have, and what follows it.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest, century) = match element(bytes, UTC_TIME) {
        Some((text, rest)) => (text, rest, None),
        None => {
            let (text, rest) = element(bytes, GENERALIZED_TIME)?;
            let (century, text) = text.split_at_checked(2)?;
            (text, rest, Some(two_digits(century)?))
        }
    };
    let fields = text.strip_suffix(b"Z").filter(|fields| fields.len() == 12)?;
    let mut numbers = fields.chunks(2).map(two_digits);
    let mut next = || numbers.next()?;
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    let year = year + 100 * century.unwrap_or(if year < 50 { 20 } else { 19 });
    let is_time = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    is_time.then(|| (days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second, rest))
}

fn two_digits(text: &[u8]) -> Option<i64> {
    let [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = text else { return None };
    Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. Years begin in March here, so that a leap day is their last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(["example.com".into()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, month, day);
        parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_forms_of_times_are_read() {
        // From 2050 on years have four digits.
        for (date, expected) in [
            ((2024, 2, 29), 1_709_164_800),
            ((2026, 11, 27), 1_795_737_600),
            ((2049, 12, 31), 2_524_521_600),
            ((2050, 1, 1), 2_524_608_000),
            ((2100, 3, 1), 4_107_542_400),
        ] {
            let der = certificate(date.0, date.1, date.2);
            assert_eq!(not_after(&der), Some(expected), "{date:?}");
        }
    }

    #[test]
    fn nonsense_has_no_time_and_does_no_harm() {
        let der = certificate(2030, 1, 1);
        for end in 0..der.len() {
            // Behind the time nothing is looked at, but that the whole is there.
            assert_eq!(not_after(&der[..end]), None);
        }
        for at in 0..der.len().min(200) {
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut broken = der.clone();
                broken[at] = byte;
                let _ = not_after(&broken);
            }
        }
        assert_eq!(time(b"\x17\x0d991332000000Z"), None);
        assert_eq!(time(b"\x17\x0d700101000000Z").map(|(time, _)| time), Some(0));
    }
}
