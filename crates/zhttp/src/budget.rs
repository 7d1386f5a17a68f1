// SPDX-License-Identifier: AGPL-3.0-or-later
//! Memory that many have a share of, and that is given back when they end.

use std::cell::Cell;
use std::rc::Rc;

/// So many bytes for all together.
#[derive(Debug)]
pub struct Budget {
    used: Rc<Cell<usize>>,
    most: usize,
}

/// What one has of them.
#[derive(Debug)]
pub struct Share {
    used: Rc<Cell<usize>>,
    most: usize,
    own: usize,
}

impl Budget {
    /// Of `most` bytes.
    pub fn new(most: usize) -> Self {
        Budget { used: Rc::default(), most }
    }

    /// A share of so many bytes, if there are as many left.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        let mut share = self.share();
        share.grow(bytes).then_some(share)
    }

    /// A share of none, which may grow.
    pub fn share(&self) -> Share {
        Share { used: self.used.clone(), most: self.most, own: 0 }
    }

    /// Bytes of all shares.
    pub fn used(&self) -> usize {
        self.used.get()
    }
}

impl Share {
    /// Takes more; `false` if there is not enough left.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let used = self.used.get().saturating_add(bytes);
        let fits = used <= self.most;
        if fits {
            self.used.set(used);
            self.own += bytes;
        }
        fits
    }

    /// Gives some back.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.own);
        self.used.set(self.used.get() - bytes);
        self.own -= bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_while_there_is_something_left_and_give_back_what_they_had() {
        let budget = Budget::new(10);
        let mut one = budget.share();
        let two = budget.take(4).unwrap();
        assert!(one.grow(6) && !one.grow(1) && budget.take(1).is_none());
        one.shrink(2);
        assert_eq!(budget.used(), 8);
        one.shrink(100);
        drop(two);
        assert_eq!(budget.used(), 0);
    }
}
