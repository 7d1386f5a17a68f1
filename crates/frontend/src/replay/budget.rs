// SPDX-License-Identifier: AGPL-3.0-or-later
//! Memory that many have a share of, and that is given back when they end.

use std::cell::Cell;
use std::rc::Rc;

/// So many bytes for all together.
pub(super) struct Budget {
    used: Rc<Cell<usize>>,
    most: usize,
}

/// What one has of them.
#[derive(Debug)]
pub(super) struct Share {
    used: Rc<Cell<usize>>,
    most: usize,
    own: usize,
}

impl Budget {
    pub(super) fn new(most: usize) -> Self {
        Budget { used: Rc::default(), most }
    }

    /// A share of so many bytes, if there are as many left.
    pub(super) fn take(&self, bytes: usize) -> Option<Share> {
        let mut share = Share { used: self.used.clone(), most: self.most, own: 0 };
        share.grow(bytes).then_some(share)
    }

    pub(super) fn used(&self) -> usize {
        self.used.get()
    }
}

impl Share {
    /// Takes more; `false` if there is not enough left.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let used = self.used.get().saturating_add(bytes);
        let fits = used <= self.most;
        if fits {
            self.used.set(used);
            self.own += bytes;
        }
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.own);
    }
}
