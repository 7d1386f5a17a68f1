//! Orders to publish, taken in steps.
//!
//! A publisher may order thousands of items at once. They are taken a few at a time, orders in turns, so that other
//! publishers, and clients that grant credits, are attended to meanwhile. An order is finished when its last item has
//! been taken; whoever placed it is told after what has been taken has left.

use std::collections::VecDeque;
use std::vec;

use grip::{Action, HttpResponse, Item, ResponseBody};

/// Items of one order taken before the next order has its turn.
const SHARE: usize = 64;
/// Items that may wait before no more should be added, and bytes of their contents.
const MAX_ITEMS: usize = 1_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Orders under way, each with a `T` by which it is known to whoever placed it, and items that nobody waits for.
pub struct Backlog<T> {
    orders: VecDeque<Order<T>>,
    single: VecDeque<Item>,
    /// Whether it is the turn of the single items; otherwise it is that of the first order.
    single_next: bool,
    /// Items taken in this turn.
    taken: usize,
    /// Items in `orders`.
    ordered: usize,
    /// Bytes of all contents.
    bytes: usize,
    finished: Vec<T>,
}

struct Order<T> {
    items: vec::IntoIter<Item>,
    ticket: T,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Backlog {
            orders: VecDeque::new(),
            single: VecDeque::new(),
            single_next: false,
            taken: 0,
            ordered: 0,
            bytes: 0,
            finished: Vec::new(),
        }
    }
}

impl<T> Backlog<T> {
    /// Adds an order. One without items is finished at once.
    pub fn push(&mut self, items: Vec<Item>, ticket: T) {
        if items.is_empty() {
            return self.finished.push(ticket);
        }
        self.ordered += items.len();
        self.bytes += items.iter().map(size).sum::<usize>();
        self.orders.push_back(Order { items: items.into_iter(), ticket });
    }

    /// Adds an item that nobody waits for.
    pub fn push_single(&mut self, item: Item) {
        self.bytes += size(&item);
        self.single.push_back(item);
    }

    /// The next item to publish.
    pub fn take(&mut self) -> Option<Item> {
        let item = self.next()?;
        self.bytes -= size(&item);
        Some(item)
    }

    fn next(&mut self) -> Option<Item> {
        if self.taken == SHARE {
            self.next_turn();
        }
        if self.single_next == self.single.is_empty() {
            // Whoever has something may go on.
            self.single_next = !self.single.is_empty();
        }
        self.taken += 1;
        if self.single_next {
            return self.single.pop_front();
        }
        let order = self.orders.front_mut()?;
        let item = order.items.next()?;
        self.ordered -= 1;
        if order.items.len() == 0 {
            let order = self.orders.pop_front();
            self.finished.extend(order.map(|order| order.ticket));
            self.next_turn();
        }
        Some(item)
    }

    fn next_turn(&mut self) {
        self.taken = 0;
        if !self.single_next && !self.orders.is_empty() {
            self.orders.rotate_left(1);
        }
        self.single_next = !self.single_next;
    }

    /// Orders of which every item has been taken since the last call.
    pub fn finished(&mut self) -> impl Iterator<Item = T> + '_ {
        self.finished.drain(..)
    }

    /// Orders that wait.
    pub fn orders(&self) -> usize {
        self.orders.len()
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.ordered + self.single.len()
    }

    /// Whether so much waits that publishers should wait too. A single order may be larger than that.
    pub fn is_full(&self) -> bool {
        self.len() >= MAX_ITEMS || self.is_large()
    }

    /// Whether the contents that wait are too many bytes.
    pub fn is_large(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes of an item's contents.
fn size(item: &Item) -> usize {
    let stream = match &item.formats.http_stream {
        Some(Action::Send(stream)) => stream.content.len(),
        _ => 0,
    };
    let response = match &item.formats.http_response {
        Some(Action::Send(HttpResponse { body: ResponseBody::Whole(body), .. })) => body.len(),
        _ => 0,
    };
    stream + response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(channel: &str, count: usize) -> Vec<Item> {
        let text = format!("J{{\"channel\":\"{channel}\",\"http-stream\":{{\"content\":\"x\"}}}}");
        vec![grip::item::from_message(text.as_bytes(), None).unwrap(); count]
    }

    #[test]
    fn orders_take_turns_and_are_finished_with_their_last_item() {
        let mut backlog = Backlog::default();
        backlog.push(items("a", SHARE + 1), 'a');
        backlog.push(items("b", 2), 'b');
        assert_eq!(backlog.orders(), 2);
        let first: Vec<_> = (0..SHARE).map(|_| backlog.take().unwrap().channel).collect();
        assert!(first.iter().all(|channel| channel == "a"));
        assert_eq!(backlog.finished().count(), 0);
        assert_eq!((backlog.take().unwrap().channel, backlog.take().unwrap().channel), ("b".into(), "b".into()));
        assert_eq!(backlog.finished().collect::<Vec<_>>(), ['b']);
        assert_eq!(backlog.take().unwrap().channel, "a");
        assert_eq!(backlog.finished().collect::<Vec<_>>(), ['a']);
        assert!(backlog.take().is_none() && backlog.is_empty());
    }

    #[test]
    fn it_is_full_by_number_or_by_bytes_until_items_are_taken() {
        let mut backlog: Backlog<()> = Backlog::default();
        for _ in 0..MAX_ITEMS {
            assert!(!backlog.is_full());
            backlog.push_single(items("a", 1).remove(0));
        }
        assert!(backlog.is_full());
        backlog.take();
        assert!(!backlog.is_full());
        let text = format!("J{{\"channel\":\"a\",\"http-stream\":{{\"content\":\"{}\"}}}}", "x".repeat(MAX_BYTES));
        backlog.push(vec![grip::item::from_message(text.as_bytes(), None).unwrap()], ());
        assert!(backlog.is_full());
        while backlog.take().is_some() {}
        assert!(!backlog.is_full() && backlog.bytes == 0);
    }

    #[test]
    fn an_order_without_items_is_finished_at_once() {
        let mut backlog = Backlog::default();
        backlog.push(Vec::new(), ());
        assert!(backlog.is_empty());
        assert_eq!(backlog.finished().count(), 1);
    }
}
