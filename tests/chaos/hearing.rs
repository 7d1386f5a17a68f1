// SPDX-License-Identifier: AGPL-3.0-or-later
//! Numbers that must come each once and in order.

/// What a client has heard of a row of numbers from 1.
#[derive(Default)]
pub struct Hearing {
    /// When each came, in milliseconds since the run began.
    pub arrivals: Vec<Option<u32>>,
    /// Did not come although the connection was there.
    pub lost: Vec<usize>,
    /// Came when there was no connection.
    pub missed: usize,
    /// Came again.
    pub repeated: Vec<Repeated>,
    /// Came behind a later one, and when.
    pub disordered: Vec<(usize, u32)>,
    /// There was no connection since the last one.
    away: bool,
    /// When the present connection began.
    pub since: u32,
}

/// A number that has come again. Times are milliseconds since the run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    pub number: usize,
    pub first: u32,
    pub again: u32,
    /// When the connection began by which it came again.
    pub since: u32,
}

impl Hearing {
    /// The latest number.
    pub fn last(&self) -> usize {
        self.arrivals.len()
    }

    /// The connection is another one, which may begin with any later number.
    pub fn begin_anew(&mut self) {
        self.away = true;
    }

    /// A number has come.
    pub fn note(&mut self, number: usize, now: u32) {
        let next = self.last() + 1;
        // It may not have been acknowledged when the other connection had it, and be published again.
        if self.away && number > 0 && number + 1 == next {
            self.away = false;
            return;
        }
        if number < next {
            let place = number.checked_sub(1).and_then(|index| self.arrivals.get(index));
            match place {
                Some(None) => self.disordered.push((number, now)),
                Some(Some(first)) => {
                    self.repeated.push(Repeated { number, first: *first, again: now, since: self.since })
                }
                None => self.repeated.push(Repeated { number, first: 0, again: now, since: self.since }),
            }
            return;
        }
        match std::mem::take(&mut self.away) {
            true => self.missed += number - next,
            false => self.lost.extend(next..number),
        }
        self.arrivals.resize(number - 1, None);
        self.arrivals.push(Some(now));
    }
}

/// Takes whole messages off the beginning of a text: a letter, a number and a semicolon.
pub fn messages(text: &mut String) -> Result<Vec<(char, usize)>, String> {
    let end = text.rfind(';').map_or(0, |end| end + 1);
    let whole: String = text.drain(..end).collect();
    let message = |text: &str| {
        let letter = text.chars().next()?;
        Some((letter, text[letter.len_utf8()..].parse().ok()?))
    };
    let messages = whole.split_terminator(';').map(message);
    messages.collect::<Option<_>>().ok_or_else(|| format!("`{whole}` is not a message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(numbers: &[usize]) -> Hearing {
        let mut hearing = Hearing::default();
        numbers.iter().for_each(|number| hearing.note(*number, 0));
        hearing
    }

    #[test]
    fn what_is_lost_repeated_or_out_of_order_is_noticed() {
        let heard = hear(&[1, 2, 5, 5, 4, 6]);
        assert_eq!(
            (heard.lost, heard.repeated.len(), heard.disordered, heard.arrivals.len()),
            (vec![3, 4], 1, vec![(4, 0)], 6)
        );
    }

    #[test]
    fn what_came_without_a_connection_is_missed_and_not_lost() {
        let mut heard = hear(&[1]);
        heard.begin_anew();
        heard.note(4, 0);
        heard.note(6, 0);
        assert_eq!((heard.lost, heard.missed), (vec![5], 2));
    }

    #[test]
    fn another_connection_may_begin_with_the_last_one_again() {
        let mut heard = hear(&[1, 2]);
        heard.begin_anew();
        [2, 3, 3].iter().for_each(|number| heard.note(*number, 0));
        heard.begin_anew();
        heard.note(2, 0);
        assert_eq!((heard.lost.len(), heard.missed, heard.repeated.len(), heard.last()), (0, 0, 2, 3));
    }

    #[test]
    fn messages_are_taken_when_they_are_whole() {
        let mut text = "a1;é20;b".to_string();
        assert_eq!(messages(&mut text), Ok(vec![('a', 1), ('é', 20)]));
        assert_eq!((messages(&mut text), text.as_str()), (Ok(Vec::new()), "b"));
        for text in [";", "a;", "1;", "a1b;"] {
            assert!(messages(&mut text.to_string()).is_err(), "{text}");
        }
    }
}
