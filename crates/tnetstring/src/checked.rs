// SPDX-License-Identifier: AGPL-3.0-or-later
//! Values that have been read to their last leaf.
//!
//! An [`Item`] says nothing about what is inside it. A [`Checked`] one is sound to its last leaf and at most [`MAX_DEPTH`]
//! deep, so that code which walks it recursively needs neither errors nor a limit of its own. Only [`Checked::new`] makes
//! one, and that does not recurse.

use crate::{Error, Item, Kind, MAX_DEPTH, split};

/// A value in which everything can be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Checked<'a>(Item<'a>);

impl<'a> Checked<'a> {
    /// Reads everything in `item`.
    ///
    /// # Errors
    /// The first mistake, in the order of the bytes; [`Error::TooDeep`] if lists and maps are nested too deep.
    pub fn new(item: Item<'a>) -> Result<Self, Error> {
        // What is left to read of each list and map around the next value, the innermost last.
        let mut around = [Level { rest: b"", is_map: false }; MAX_DEPTH];
        let mut depth = 0;
        let mut next = item;
        loop {
            match next.kind {
                Kind::List | Kind::Map => {
                    let level = around.get_mut(depth).ok_or(Error::TooDeep)?;
                    *level = Level { rest: next.payload, is_map: next.kind == Kind::Map };
                    depth += 1;
                }
                Kind::Int => drop(next.as_int()?),
                Kind::Float => drop(next.as_float()?),
                Kind::Bool => drop(next.as_bool()?),
                Kind::Bytes | Kind::Null => {}
            }
            next = loop {
                let Some(innermost) = depth.checked_sub(1) else { return Ok(Checked(item)) };
                match around[innermost].next()? {
                    Some(value) => break value,
                    None => depth = innermost,
                }
            };
        }
    }

    /// What the value is.
    pub fn kind(self) -> Kind {
        self.0.kind
    }

    /// The value itself, for its bytes or number.
    pub fn item(self) -> Item<'a> {
        self.0
    }

    /// The values of a list; `None` for other kinds.
    pub fn items(self) -> Option<impl Iterator<Item = Checked<'a>>> {
        // No error is left in there to end the list early.
        Some(self.0.items().ok()?.map_while(Result::ok).map(Checked))
    }

    /// The keys and values of a map, duplicates included; `None` for other kinds.
    pub fn entries(self) -> Option<impl Iterator<Item = (&'a [u8], Checked<'a>)>> {
        Some(self.0.entries().ok()?.map_while(Result::ok).map(|(key, value)| (key, Checked(value))))
    }

    /// The value of `key` in a map; with duplicates the last one. `None` for other kinds.
    pub fn get(self, key: &[u8]) -> Option<Checked<'a>> {
        self.entries()?.filter(|(name, _)| *name == key).last().map(|(_, value)| value)
    }
}

/// A list or map that is being read.
#[derive(Clone, Copy)]
struct Level<'a> {
    rest: &'a [u8],
    is_map: bool,
}

impl<'a> Level<'a> {
    /// The next value of the list or map.
    fn next(&mut self) -> Result<Option<Item<'a>>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.is_map {
            let (key, rest) = split(self.rest)?;
            if key.kind != Kind::Bytes {
                return Err(Error::BadKey(key.kind));
            }
            if rest.is_empty() {
                return Err(Error::MissingValue);
            }
            self.rest = rest;
        }
        let (value, rest) = split(self.rest)?;
        self.rest = rest;
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(packet: &[u8]) -> Result<Checked<'_>, Error> {
        Checked::new(split(packet)?.0)
    }

    fn nested(depth: usize, kind: &str) -> Vec<u8> {
        let key = if kind == "}" { "1:a," } else { "" };
        // From the inside out, each level with its length before it; reversed because only the end of a vector is cheap.
        let mut heads = Vec::new();
        let mut length = 3;
        for _ in 0..depth {
            heads.push(format!("{}:{key}", length + key.len()));
            length += heads[heads.len() - 1].len() + 1;
        }
        heads.reverse();
        [heads.concat(), format!("0:{kind}"), kind.repeat(depth)].concat().into_bytes()
    }

    #[test]
    fn nesting_has_a_limit_and_no_depth_uses_up_the_stack() {
        for kind in ["]", "}"] {
            assert!(check(&nested(MAX_DEPTH - 1, kind)).is_ok());
            for depth in [MAX_DEPTH, 1000, 100_000] {
                assert_eq!(check(&nested(depth, kind)), Err(Error::TooDeep), "{depth}");
            }
        }
    }

    #[test]
    fn a_mistake_is_found_wherever_it_is() {
        assert_eq!(check(b"11:1:x,6:5:ab,]]"), Err(Error::Truncated));
        assert_eq!(check(b"6:0:]9:x]"), Err(Error::Truncated));
        assert_eq!(check(b"4:1:a,}"), Err(Error::MissingValue));
        assert_eq!(check(b"7:1:1#0:~}"), Err(Error::BadKey(Kind::Int)));
        for leaf in [&b"1:x#"[..], b"1:x^", b"1:x!"] {
            assert!(check(leaf).is_err());
        }
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let map = check(b"16:1:a,1:1#1:a,1:2#}").unwrap();
        assert_eq!(map.get(b"a").unwrap().item().as_int(), Ok(2));
        assert!(map.get(b"b").is_none() && map.items().is_none());
    }
}
