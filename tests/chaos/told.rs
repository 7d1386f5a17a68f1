// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the backend of WebSockets over HTTP is told: each message of a client at least once, and at most once without a mark.

use std::collections::HashMap;
use std::sync::Mutex;

/// Messages of one connection.
#[derive(Default)]
struct Connection {
    /// By number from 1: whether it has come without a mark.
    messages: Vec<bool>,
}

/// What is wrong with all that has been told, and what may be.
#[derive(Default)]
pub struct Mistakes {
    /// Messages that others overtook.
    pub lost: usize,
    /// That came again and were not marked.
    pub repeated: usize,
    /// That came again and were.
    pub marked: usize,
}

/// See the module.
#[derive(Default)]
pub struct Told(Mutex<(HashMap<String, Connection>, Mistakes)>);

impl Told {
    /// One request with messages of a connection, whose first `uncertain` bytes may have come before.
    pub fn tell(&self, connection: &str, messages: &[String], uncertain: usize) {
        let (connections, mistakes) = &mut *self.0.lock().unwrap();
        let known = connections.entry(connection.to_string()).or_default();
        let mut offset = 0;
        for message in messages {
            let number: usize = message.trim_matches(['e', ';']).parse().unwrap_or(0);
            let is_marked = offset < uncertain;
            offset += message.len();
            if number > known.messages.len() {
                mistakes.lost += number - known.messages.len() - 1;
                known.messages.resize(number, false);
            } else if is_marked {
                mistakes.marked += 1;
            }
            let certain = &mut known.messages[number.max(1) - 1];
            if !is_marked && std::mem::replace(certain, true) {
                mistakes.repeated += 1;
            }
        }
    }

    /// All so far.
    pub fn mistakes(&self) -> Mistakes {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(requests: &[(&[&str], usize)]) -> (usize, usize, usize) {
        let told = Told::default();
        for (messages, uncertain) in requests {
            told.tell("c", &messages.iter().map(|message| message.to_string()).collect::<Vec<_>>(), *uncertain);
        }
        let Mistakes { lost, repeated, marked } = told.mistakes();
        (lost, repeated, marked)
    }

    #[test]
    fn what_is_told_again_has_to_be_marked() {
        assert_eq!(told(&[(&["e1;", "e2;"], 0), (&["e2;", "e3;"], 3)]), (0, 0, 1));
        assert_eq!(told(&[(&["e1;", "e2;"], 0), (&["e2;", "e3;"], 0)]), (0, 1, 0));
        // The later request has overtaken the earlier one.
        assert_eq!(told(&[(&["e1;", "e2;"], 3), (&["e1;"], 0)]), (0, 0, 0));
    }

    #[test]
    fn what_is_not_told_is_lost() {
        assert_eq!(told(&[(&["e1;"], 0), (&["e4;"], 0)]), (2, 0, 0));
    }
}
