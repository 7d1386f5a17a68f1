// SPDX-License-Identifier: AGPL-3.0-or-later
//! Names that tell processes apart, and a process from its predecessor.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A name for this run of a component, never used before: `<component>_<pid>_<8 hexadecimal digits>`.
///
/// It has no spaces and fewer than 64 bytes, as ZHTTP demands of addresses. The digits are there because process ids come
/// back soon, above all in containers, where a restarted component may well get the id it had.
pub fn instance_id(component: &str) -> String {
    // RandomState is seeded by the system's random source.
    let random = RandomState::new().build_hasher().finish() as u32;
    format!("{component}_{}_{random:08x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_fit_an_address() {
        let (a, b) = (instance_id("frontend"), instance_id("frontend"));
        assert_ne!(a, b);
        assert!(a.starts_with("frontend_") && a.len() <= 64 && !a.contains(' '));
    }
}
