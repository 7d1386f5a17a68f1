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
    pub repeated: usize,
    /// Came behind a later one.
    pub disordered: usize,
    /// There was no connection since the last one.
    away: bool,
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
        if number < next {
            let place = number.checked_sub(1).and_then(|index| self.arrivals.get(index));
            match place {
                Some(None) => self.disordered += 1,
                _ => self.repeated += 1,
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

/// Takes whole numbers off the beginning of a text, each with a mark behind it.
pub fn numbers(text: &mut String, mark: char) -> Result<Vec<usize>, String> {
    let end = text.rfind(mark).map_or(0, |end| end + 1);
    let whole: String = text.drain(..end).collect();
    let numbers = whole.split_terminator(mark).map(|number| number.parse());
    numbers.collect::<Result<_, _>>().map_err(|_| format!("`{whole}` is not a message"))
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
        assert_eq!((heard.lost, heard.repeated, heard.disordered, heard.arrivals.len()), (vec![3, 4], 1, 1, 6));
    }

    #[test]
    fn what_came_without_a_connection_is_missed_and_not_lost() {
        let mut heard = hear(&[1]);
        heard.begin_anew();
        heard.note(4, 0);
        heard.note(6, 0);
        assert_eq!((heard.lost, heard.missed), (vec![5], 2));
    }
}
