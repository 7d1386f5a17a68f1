// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reading: one value at a time, borrowed from the packet it came in.

use crate::error::Error;
use crate::kind::Kind;

/// The longest length prefix that is read. Nine digits are more than any packet has, and cannot overflow.
pub const MAX_LENGTH_DIGITS: usize = 9;

/// One value whose payload has not been looked at yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item<'a> {
    /// What the value is.
    pub kind: Kind,
    /// The bytes between the colon and the type byte.
    pub payload: &'a [u8],
}

/// Takes the first value off `input` and returns it with what follows it.
///
/// Never reads beyond the value, so `input` may hold more values (inside a list) or anything at all (behind a packet).
#[inline]
pub fn split(input: &[u8]) -> Result<(Item<'_>, &[u8]), Error> {
    let (length, rest) = length(input)?;
    let Some((&kind, after)) = rest.get(length..).and_then(<[u8]>::split_first) else { return Err(Error::Truncated) };
    let kind = Kind::from_type_byte(kind).ok_or(Error::UnknownType(kind))?;
    Ok((Item { kind, payload: &rest[..length] }, after))
}

/// Takes the length and its colon off `input`.
#[inline]
fn length(input: &[u8]) -> Result<(usize, &[u8]), Error> {
    // Nearly all values are shorter than 100 bytes; they need no loop.
    match *input {
        [a @ b'0'..=b'9', b':', ref rest @ ..] => Ok((usize::from(a - b'0'), rest)),
        [a @ b'0'..=b'9', b @ b'0'..=b'9', b':', ref rest @ ..] => {
            Ok((usize::from(a - b'0') * 10 + usize::from(b - b'0'), rest))
        }
        _ => long_length(input),
    }
}

fn long_length(input: &[u8]) -> Result<(usize, &[u8]), Error> {
    let mut length = 0usize;
    for (at, &byte) in input.iter().enumerate() {
        match byte {
            b'0'..=b'9' if at < MAX_LENGTH_DIGITS => length = length * 10 + usize::from(byte - b'0'),
            b':' if at > 0 => return Ok((length, &input[at + 1..])),
            _ => return Err(Error::BadLength),
        }
    }
    Err(Error::Truncated)
}

impl<'a> Item<'a> {
    /// The bytes of a byte string.
    #[inline]
    pub fn as_bytes(self) -> Result<&'a [u8], Error> {
        match self.kind {
            Kind::Bytes => Ok(self.payload),
            found => Err(Error::WrongKind { expected: "bytes", found }),
        }
    }

    /// A byte string as text.
    pub fn as_str(self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.as_bytes()?).map_err(|_| Error::NotText)
    }

    /// An integer; a sign of either sort may lead it.
    #[inline]
    pub fn as_int(self) -> Result<i64, Error> {
        match self.kind {
            Kind::Int => parse_int(self.payload),
            found => Err(Error::WrongKind { expected: "an integer", found }),
        }
    }

    /// An integer, or a byte string that holds one. Some senders write numbers as text, and their peers have always
    /// read them, so fields of packets are read this way.
    #[inline]
    pub fn as_int_or_digits(self) -> Result<i64, Error> {
        match self.kind {
            Kind::Int | Kind::Bytes => parse_int(self.payload),
            found => Err(Error::WrongKind { expected: "an integer", found }),
        }
    }

    /// A float; an integer will do.
    pub fn as_float(self) -> Result<f64, Error> {
        match self.kind {
            Kind::Float | Kind::Int => {
                let text = std::str::from_utf8(self.payload).map_err(|_| Error::BadFloat)?;
                text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or(Error::BadFloat)
            }
            found => Err(Error::WrongKind { expected: "a float", found }),
        }
    }

    /// A boolean.
    #[inline]
    pub fn as_bool(self) -> Result<bool, Error> {
        match (self.kind, self.payload) {
            (Kind::Bool, b"true") => Ok(true),
            (Kind::Bool, b"false") => Ok(false),
            (Kind::Bool, _) => Err(Error::BadBool),
            (found, _) => Err(Error::WrongKind { expected: "a boolean", found }),
        }
    }

    /// Whether this is the null value.
    #[inline]
    pub fn is_null(self) -> bool {
        self.kind == Kind::Null
    }

    /// The keys and values of a map, in the order of the wire, duplicates included.
    #[inline]
    pub fn entries(self) -> Result<Entries<'a>, Error> {
        match self.kind {
            Kind::Map => Ok(Entries { rest: self.payload }),
            found => Err(Error::WrongKind { expected: "a map", found }),
        }
    }

    /// The values of a list.
    #[inline]
    pub fn items(self) -> Result<Items<'a>, Error> {
        match self.kind {
            Kind::List => Ok(Items { rest: self.payload }),
            found => Err(Error::WrongKind { expected: "a list", found }),
        }
    }
}

#[inline]
fn parse_int(text: &[u8]) -> Result<i64, Error> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(Error::BadInt);
    }
    let mut value = 0i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Error::BadInt);
        }
        // Counted downwards, because the lowest number has no positive twin.
        value = value.checked_mul(10).and_then(|value| value.checked_sub(i64::from(digit))).ok_or(Error::BadInt)?;
    }
    if negative { Ok(value) } else { value.checked_neg().ok_or(Error::BadInt) }
}

/// Iterates over the entries of a map. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    #[inline]
    fn read(&mut self) -> Result<(&'a [u8], Item<'a>), Error> {
        let (key, rest) = split(self.rest)?;
        if key.kind != Kind::Bytes {
            return Err(Error::BadKey(key.kind));
        }
        if rest.is_empty() {
            return Err(Error::MissingValue);
        }
        let (value, rest) = split(rest)?;
        self.rest = rest;
        Ok((key.payload, value))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(&'a [u8], Item<'a>), Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

/// Iterates over the values of a list. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match split(self.rest) {
            Ok((item, rest)) => {
                self.rest = rest;
                Some(Ok(item))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(input: &[u8]) -> Item<'_> {
        split(input).unwrap().0
    }

    #[test]
    fn the_first_value_is_split_from_what_follows() {
        let (item, rest) = split(b"5:hello,3:abc").unwrap();
        assert_eq!(item, Item { kind: Kind::Bytes, payload: b"hello" });
        assert_eq!(rest, b"3:abc");
    }

    #[test]
    fn every_kind_is_known_by_its_type_byte() {
        assert_eq!(one(b"2:42#").as_int(), Ok(42));
        assert_eq!(one(b"3:1.5^").as_float(), Ok(1.5));
        assert_eq!(one(b"4:true!").as_bool(), Ok(true));
        assert_eq!(one(b"5:false!").as_bool(), Ok(false));
        assert!(one(b"0:~").is_null());
        assert_eq!(one(b"3:\0\xff\n,").as_bytes(), Ok(&b"\0\xff\n"[..]));
        assert_eq!(one(b"1:x,").as_str(), Ok("x"));
        assert_eq!(split(b"0:?"), Err(Error::UnknownType(b'?')));
    }

    #[test]
    fn a_null_may_have_a_payload() {
        assert!(one(b"2:xx~").is_null());
    }

    #[test]
    fn a_length_is_made_of_one_to_nine_digits() {
        assert_eq!(split(b":,"), Err(Error::BadLength));
        assert_eq!(split(b"-1:,"), Err(Error::BadLength));
        assert_eq!(split(b" 1:x,"), Err(Error::BadLength));
        assert_eq!(split(b"1 :x,"), Err(Error::BadLength));
        assert_eq!(split(b"9999999999:x,"), Err(Error::BadLength));
        assert_eq!(split(b"99999999999999999999999999:x,"), Err(Error::BadLength));
        assert_eq!(split(b"999999999:x,"), Err(Error::Truncated));
        assert_eq!(one(b"000000001:x,").as_bytes(), Ok(&b"x"[..]));
    }

    #[test]
    fn a_value_that_is_cut_short_is_truncated() {
        let whole = b"12:5:hello,1:1#}";
        for end in 0..whole.len() {
            assert_eq!(split(&whole[..end]), Err(Error::Truncated), "{end}");
        }
    }

    #[test]
    fn integers_have_64_bits_and_either_sign() {
        assert_eq!(one(b"2:-7#").as_int(), Ok(-7));
        assert_eq!(one(b"2:+7#").as_int(), Ok(7));
        assert_eq!(one(b"19:9223372036854775807#").as_int(), Ok(i64::MAX));
        assert_eq!(one(b"20:-9223372036854775808#").as_int(), Ok(i64::MIN));
        for bad in [&b"19:9223372036854775808#"[..], b"20:-9223372036854775809#", b"0:#", b"1:-#", b"2: 1#", b"3:1.0#"]
        {
            assert_eq!(one(bad).as_int(), Err(Error::BadInt));
        }
    }

    #[test]
    fn digits_in_a_byte_string_are_a_number_to_who_asks_for_it() {
        assert_eq!(one(b"2:80,").as_int_or_digits(), Ok(80));
        assert_eq!(one(b"2:80,").as_int(), Err(Error::WrongKind { expected: "an integer", found: Kind::Bytes }));
    }

    #[test]
    fn a_map_hands_out_its_entries_in_order_with_duplicates() {
        let entries: Vec<_> = one(b"22:1:a,1:1#1:b,0:,1:a,0:~}").entries().unwrap().map(Result::unwrap).collect();
        let keys: Vec<_> = entries.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [b"a", b"b", b"a"]);
    }

    #[test]
    fn a_key_must_be_bytes_and_have_a_value() {
        assert_eq!(one(b"7:1:1#0:~}").entries().unwrap().next(), Some(Err(Error::BadKey(Kind::Int))));
        let mut entries = one(b"4:1:a,}").entries().unwrap();
        assert_eq!(entries.next(), Some(Err(Error::MissingValue)));
        assert_eq!(entries.next(), None);
    }

    #[test]
    fn a_list_ends_after_its_first_error() {
        let mut items = one(b"8:1:1#zzzz]").items().unwrap();
        assert_eq!(items.next(), Some(Ok(Item { kind: Kind::Int, payload: b"1" })));
        assert_eq!(items.next(), Some(Err(Error::BadLength)));
        assert_eq!(items.next(), None);
    }
}
