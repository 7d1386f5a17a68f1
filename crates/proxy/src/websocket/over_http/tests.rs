// SPDX-License-Identifier: AGPL-3.0-or-later
//! A conversation in literal requests and answers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use zhttp::Headers;

use super::answer::Answer;
use super::queue::{MAX_BYTES, Overflow};
use super::*;

const EVENTS: (&str, &str) = ("Content-Type", "application/websocket-events");

fn text(body: &str) -> Frame {
    Frame::message(false, Bytes::copy_from_slice(body.as_bytes()))
}

fn piece(body: &str) -> Frame {
    Frame::Data { binary: false, more: true, body: Bytes::copy_from_slice(body.as_bytes()) }
}

fn close(code: u16, reason: &'static str) -> Frame {
    Frame::Close(Some(Status { code, reason: Bytes::from_static(reason.as_bytes()) }))
}

fn answer(headers: &[(&str, &str)]) -> Answer {
    let headers: Vec<_> =
        headers.iter().chain([&EVENTS]).map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    Answer::read(200, Headers::Pairs(&headers))
}

struct Talk {
    conversation: Conversation,
    now: Instant,
}

impl Talk {
    fn begin() -> Self {
        Talk { conversation: Conversation::new(false, 0), now: Instant::now() }
    }

    fn open(headers: &[(&str, &str)]) -> Self {
        let mut talk = Talk::begin();
        assert_eq!(talk.asked().as_deref(), Some(&b"OPEN\r\n"[..]));
        assert!(talk.hear(headers, b"OPEN\r\n").opened);
        talk
    }

    fn say(&mut self, frame: Frame) {
        self.conversation.push(frame, Source::default()).unwrap();
    }

    fn next(&mut self) -> Option<Ask> {
        self.conversation.next(false)
    }

    fn asked(&mut self) -> Option<Bytes> {
        self.next().map(|ask| ask.body)
    }

    fn hear(&mut self, headers: &[(&str, &str)], body: &'static [u8]) -> Heard {
        self.conversation.on_answer(&answer(headers), Bytes::from_static(body), self.now)
    }

    fn failure(&mut self, headers: &[(&str, &str)], body: &'static [u8]) -> Option<Failure> {
        let heard = self.hear(headers, body);
        assert_eq!(self.conversation.is_over(), heard.failure.is_some());
        heard.failure
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.conversation.on_timer(self.now);
    }
}

#[test]
fn messages_during_a_request_go_together_in_the_next() {
    let mut talk = Talk::open(&[]);
    assert_eq!(talk.next(), None);
    talk.say(text("first"));
    assert_eq!(talk.asked().unwrap(), "TEXT 5\r\nfirst\r\n");
    talk.say(piece("fr"));
    talk.say(Frame::Ping(Bytes::from_static(b"p")));
    talk.say(text("ag"));
    talk.say(text(""));
    assert_eq!(talk.next(), None);
    let heard = talk.hear(&[], b"TEXT 1\r\na\r\nPING\r\n");
    assert_eq!((heard.accepted, heard.frames), (5, vec![text("a"), Frame::Ping(Bytes::new())]));
    assert_eq!(talk.asked().unwrap(), "PING 1\r\np\r\nTEXT 4\r\nfrag\r\nTEXT 0\r\n\r\n");
    assert_eq!(talk.hear(&[], b"").accepted, 5);
    assert_eq!(talk.next(), None);
}

#[test]
fn what_the_backend_has_not_accepted_waits_for_something_new_and_is_sent_again() {
    let mut talk = Talk::open(&[]);
    talk.say(text("part12"));
    talk.next();
    assert_eq!(talk.hear(&[("Content-Bytes-Accepted", "3")], b"").accepted, 3);
    assert_eq!(talk.next(), None);
    talk.say(text("more"));
    let ask = talk.next().unwrap();
    assert_eq!((ask.replayed, &ask.body[..]), (3, &b"TEXT 3\r\nt12\r\nTEXT 4\r\nmore\r\n"[..]));
    assert_eq!(talk.hear(&[("Content-Bytes-Accepted", "0")], b"").accepted, 0);
    assert_eq!(talk.next(), None);
    talk.conversation.refresh();
    assert_eq!(talk.next().unwrap().replayed, 7);
    assert_eq!(talk.hear(&[("Content-Bytes-Accepted", "x")], b"").accepted, 7);
    assert_eq!(talk.next(), None);
}

#[test]
fn accepting_what_was_not_sent_ends_the_connection_and_so_does_accepting_nothing_for_ever() {
    let mut talk = Talk::open(&[]);
    talk.say(text("abc"));
    talk.next();
    let failure = Some(Failure::Accepted { accepted: 4, offered: 3 });
    assert_eq!(talk.failure(&[("Content-Bytes-Accepted", "4")], b""), failure);

    let mut talk = Talk::open(&[]);
    talk.say(text("abc"));
    talk.say(Frame::Close(None));
    talk.next();
    assert_eq!(talk.failure(&[("Content-Bytes-Accepted", "0")], b""), Some(Failure::NothingAccepted));

    let mut talk = Talk::open(&[]);
    talk.say(close(1000, "bye"));
    talk.next();
    let failure = Some(Failure::Accepted { accepted: 2, offered: 5 });
    assert_eq!(talk.failure(&[("Content-Bytes-Accepted", "2")], b""), failure);
}

#[test]
fn a_close_goes_behind_the_last_message_and_is_answered() {
    let mut talk = Talk::open(&[]);
    talk.say(text("last"));
    talk.say(close(1000, "bye"));
    talk.say(text("never"));
    assert_eq!(talk.asked().unwrap(), &b"TEXT 4\r\nlast\r\nCLOSE 5\r\n\x03\xe8bye\r\n"[..]);
    let heard = talk.hear(&[], b"CLOSE 5\r\n\x03\xe8bye\r\nTEXT 1\r\nx\r\n");
    assert_eq!((heard.frames, heard.failure), (vec![close(1000, "bye")], None));
    assert!(talk.conversation.is_over() && talk.conversation.has_closed());
}

#[test]
fn a_code_that_no_close_frame_may_have_is_that_of_the_client_or_none() {
    let mut talk = Talk::open(&[]);
    talk.say(close(1000, "bye"));
    talk.next();
    assert_eq!(talk.hear(&[], b"CLOSE 2\r\n\0\0\r\n").frames, [close(1000, "")]);

    let mut talk = Talk::open(&[]);
    talk.say(text("x"));
    talk.next();
    assert_eq!(talk.hear(&[], b"CLOSE 2\r\n\x03\xee\r\n").frames, [Frame::Close(None)]);
}

#[test]
fn a_close_that_was_not_accepted_is_sent_again() {
    let mut talk = Talk::open(&[]);
    talk.say(text("last"));
    talk.say(Frame::Close(None));
    talk.next();
    assert_eq!(talk.hear(&[("Content-Bytes-Accepted", "1")], b"").failure, None);
    assert_eq!(talk.asked().unwrap(), "TEXT 3\r\nast\r\nCLOSE\r\n");
}

#[test]
fn a_backend_that_does_not_answer_a_close_is_polled_or_given_up() {
    let mut talk = Talk::open(&[]);
    talk.say(Frame::Close(None));
    talk.next();
    assert_eq!(talk.failure(&[], b""), Some(Failure::NotClosed));

    let mut talk = Talk::open(&[("Keep-Alive-Interval", "1")]);
    talk.say(Frame::Close(None));
    talk.next();
    assert_eq!(talk.failure(&[], b""), None);
    assert_eq!(talk.next(), None);
    talk.wait(Duration::from_secs(20));
    assert_eq!(talk.asked().unwrap(), "");
    talk.hear(&[], b"CLOSE\r\n");
    assert!(talk.conversation.is_over());
}

#[test]
fn a_client_that_leaves_when_its_close_has_been_accepted_is_no_news() {
    for (answered, news) in [(&b""[..], None), (b"TEXT zz\r\n", Some("DISCONNECT\r\n"))] {
        let mut talk = Talk::open(&[]);
        talk.say(Frame::Close(None));
        assert_eq!(talk.asked().unwrap(), "CLOSE\r\n");
        talk.conversation.part();
        talk.hear(&[], answered);
        assert_eq!(talk.asked().as_deref(), news.map(str::as_bytes));
    }
}

#[test]
fn after_the_backends_close_ours_is_one_more_request() {
    let mut talk = Talk::open(&[]);
    talk.say(text("x"));
    talk.next();
    assert_eq!(talk.hear(&[], b"CLOSE\r\n").frames, [Frame::Close(None)]);
    assert_eq!(talk.next(), None);
    talk.say(Frame::Close(None));
    assert_eq!(talk.asked().unwrap(), "CLOSE\r\n");
    assert_eq!(talk.failure_of_nothing(), None);
    assert!(talk.conversation.is_over());
}

impl Talk {
    fn failure_of_nothing(&mut self) -> Option<Failure> {
        self.hear(&[], b"").failure
    }
}

#[test]
fn an_open_is_refused_or_put_off_and_never_guessed() {
    for (code, content_type) in [(200, "text/plain"), (403, EVENTS.1), (200, "Application/websocket-events")] {
        let mut talk = Talk::begin();
        talk.next();
        let headers = [(&b"Content-Type"[..], content_type.as_bytes())];
        let answer = Answer::read(code, Headers::Pairs(&headers));
        let heard = talk.conversation.on_answer(&answer, Bytes::new(), talk.now);
        assert_eq!((heard.opened, heard.failure), (false, Some(Failure::Refused)));
    }
    for body in [&b""[..], b"TEXT 1\r\nx\r\n"] {
        let mut talk = Talk::begin();
        talk.next();
        assert_eq!(talk.failure(&[], body), Some(Failure::NotOpened));
    }
    let mut talk = Talk::begin();
    talk.next();
    assert_eq!(talk.failure(&[("Keep-Alive-Interval", "30")], b""), None);
    assert_eq!(talk.next(), None);
    talk.wait(Duration::from_secs(30));
    assert_eq!(talk.asked().unwrap(), "OPEN\r\n");
}

#[test]
fn what_ends_a_websocket_that_an_answer_accepts_comes_after_its_opening() {
    for (body, after) in [
        (&b"OPEN\r\nTEXT 1\r\nx\r\nDISCONNECT\r\n"[..], true),
        (b"OPEN\r\nTEXT 1\r\nx\r\nOPEN\r\n", true),
        (b"OPEN\r\nTEXT 1\r\nx\r\nTEXT zz\r\n", false),
    ] {
        let mut talk = Talk::begin();
        talk.next();
        let heard = talk.hear(&[], body);
        assert_eq!((heard.opened, heard.frames), (true, vec![text("x")]));
        assert_eq!(heard.failure.map(|failure| failure.is_after_opening()), Some(after));
    }
}

#[test]
fn events_before_a_bad_one_are_delivered() {
    for (body, failure) in [
        (&b"TEXT 1\r\nx\r\nDISCONNECT\r\n"[..], Failure::Disconnected),
        (b"TEXT 1\r\nx\r\nOPEN\r\n", Failure::OpenedTwice),
        (b"TEXT 1\r\nx\r\nTEXT zz\r\n", Failure::Event(EventError::Length { at: 11 })),
    ] {
        let mut talk = Talk::open(&[]);
        talk.say(text("q"));
        talk.next();
        let heard = talk.hear(&[], body);
        assert_eq!((heard.frames, heard.failure), (vec![text("x")], Some(failure)));
    }
}

#[test]
fn meta_does_not_grow_without_end() {
    let mut talk = Talk::open(&[]);
    let mut left_out = 0;
    for number in 0..MAX_META + 10 {
        talk.say(text("x"));
        talk.asked().unwrap();
        left_out += talk.hear(&[(&format!("Set-Meta-N{number}"), "1")], b"").left_out;
    }
    assert_eq!((talk.conversation.meta().len(), left_out), (MAX_META, 10));
    // What is there can still be changed and removed, which makes room for others, but not for what is too large.
    talk.say(text("x"));
    talk.asked().unwrap();
    let large = "x".repeat(MAX_META_BYTES);
    let heard = talk.hear(&[("Set-Meta-N1", "2"), ("Set-Meta-N2", ""), ("Set-Meta-Large", &large)], b"");
    assert_eq!((talk.conversation.meta().len(), heard.left_out), (MAX_META - 1, 1));
}

#[test]
fn meta_is_kept_changed_and_removed_whatever_the_case_of_its_name() {
    let mut talk = Talk::open(&[("Set-Meta-User", "alice"), ("set-meta-Room", "1")]);
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    assert_eq!(talk.conversation.meta(), [pair("User", "alice"), pair("Room", "1")]);
    talk.say(text("x"));
    talk.next();
    talk.hear(&[("SET-META-USER", "bob"), ("Set-Meta-Room", "")], b"");
    assert_eq!(talk.conversation.meta(), [pair("USER", "bob")]);
}

#[test]
fn keep_alives_come_after_the_interval_and_end_with_it() {
    let mut talk = Talk::open(&[("Keep-Alive-Interval", "5")]);
    talk.wait(Duration::from_secs(19));
    assert_eq!(talk.next(), None);
    talk.wait(Duration::from_secs(1));
    assert_eq!(talk.asked().unwrap(), "");
    talk.hear(&[], b"");
    talk.wait(Duration::from_secs(20));
    assert_eq!(talk.asked().unwrap(), "");
    talk.hear(&[("Keep-Alive-Interval", "never")], b"");
    assert_eq!(talk.conversation.next_due(), None);
}

#[test]
fn a_request_that_was_not_sent_is_repeated_ever_more_slowly_and_given_up() {
    let mut talk = Talk::open(&[]);
    talk.say(text("x"));
    let ask = talk.next().unwrap();
    for wait in [1, 2, 4, 8, 16] {
        assert!(talk.conversation.on_failure(Loss::Request, talk.now));
        assert_eq!((talk.next(), talk.conversation.repeat(talk.now)), (None, None));
        talk.now += Duration::from_secs(wait);
        assert_eq!(talk.conversation.repeat(talk.now), Some(ask.clone()));
    }
    assert!(!talk.conversation.on_failure(Loss::Request, talk.now));
    assert!(talk.conversation.is_over());
}

#[test]
fn what_the_backend_may_have_seen_is_not_repeated() {
    let mut talk = Talk::open(&[]);
    talk.say(text("x"));
    talk.next();
    assert!(!talk.conversation.on_failure(Loss::Both, talk.now));
    assert!(talk.conversation.is_over());
}

#[test]
fn what_the_backend_may_have_seen_is_repeated_at_once_with_a_mark_when_its_answer_is_lost() {
    let mut talk = Talk::open(&[]);
    talk.say(text("abc"));
    let ask = talk.next().unwrap();
    talk.say(text("later"));
    for _ in 0..2 {
        assert!(talk.conversation.on_failure(Loss::Answer, talk.now));
        let again = talk.conversation.repeat(talk.now).unwrap();
        assert_eq!((&again.body, again.uncertain, ask.uncertain), (&ask.body, Some(3), None));
    }
    // Of what it accepts in part the rest stays uncertain, and what follows is not.
    let accepted = Answer { accepted: Some(1), ..answer(&[]) };
    talk.conversation.on_answer(&accepted, Bytes::new(), talk.now);
    assert_eq!(talk.next().map(|ask| ask.uncertain), Some(Some(2)));
    for _ in 0..2 {
        assert!(talk.conversation.on_failure(Loss::Answer, talk.now));
        talk.conversation.repeat(talk.now).unwrap();
    }
    assert!(!talk.conversation.on_failure(Loss::Answer, talk.now), "it may be what ends processes");
    assert!(talk.conversation.is_over());
}

#[test]
fn an_open_whose_answer_is_lost_is_told_again_with_a_mark() {
    let mut talk = Talk::begin();
    assert_eq!(talk.next().unwrap().uncertain, None);
    assert!(talk.conversation.on_failure(Loss::Answer, talk.now));
    assert_eq!(talk.conversation.repeat(talk.now).unwrap().uncertain, Some(0));
}

#[test]
fn a_close_whose_answer_is_lost_is_told_again_with_a_mark_and_a_disconnect_is_not() {
    let mut talk = Talk::open(&[]);
    talk.say(Frame::Close(None));
    assert_eq!(talk.next().unwrap().uncertain, None);
    assert!(talk.conversation.on_failure(Loss::Answer, talk.now));
    assert_eq!(talk.conversation.repeat(talk.now).unwrap().uncertain, Some(0));
    let mut talk = Talk::open(&[]);
    talk.conversation.part();
    talk.next().unwrap();
    assert!(!talk.conversation.on_failure(Loss::Answer, talk.now));
    assert!(talk.conversation.is_over());
}

#[test]
fn a_client_that_breaks_off_is_told_of_once_after_the_request_under_way() {
    let mut talk = Talk::open(&[("Keep-Alive-Interval", "20")]);
    talk.say(text("x"));
    talk.next();
    talk.conversation.part();
    assert_eq!(talk.next(), None);
    talk.hear(&[], b"");
    assert_eq!(talk.asked().unwrap(), "DISCONNECT\r\n");
    talk.hear(&[], b"");
    assert!(talk.conversation.is_over());
    assert_eq!((talk.next(), talk.conversation.next_due()), (None, None));
}

#[test]
fn a_backend_that_has_not_accepted_is_told_of_a_lost_client_only_if_it_does() {
    let mut talk = Talk::begin();
    talk.next();
    talk.conversation.part();
    talk.hear(&[], b"OPEN\r\n");
    assert_eq!(talk.asked().unwrap(), "DISCONNECT\r\n");

    let mut talk = Talk::begin();
    talk.next();
    talk.conversation.part();
    talk.hear(&[], b"");
    assert!(talk.conversation.is_over());
}

#[test]
fn one_event_a_request_means_one() {
    let mut talk = Talk::open(&[]);
    talk.conversation.one_event = true;
    for frame in [text(""), text("b"), Frame::Close(None)] {
        talk.say(frame);
    }
    for body in ["TEXT 0\r\n\r\n", "TEXT 1\r\nb\r\n", "CLOSE\r\n"] {
        assert_eq!(talk.asked().unwrap(), body);
        talk.hear(&[("Keep-Alive-Interval", "20")], b"");
    }
}

#[test]
fn nothing_is_asked_for_a_slow_client_but_what_must_be() {
    let mut talk = Talk::open(&[]);
    talk.say(text("x"));
    assert_eq!(talk.conversation.next(true), None);
    talk.say(Frame::Close(None));
    assert_eq!(talk.conversation.next(true).unwrap().body, "TEXT 1\r\nx\r\nCLOSE\r\n");
}

#[test]
fn what_waits_is_bounded_in_bytes_and_in_number() {
    let mut talk = Talk::open(&[]);
    let half = "x".repeat(MAX_BYTES / 2);
    talk.say(piece(&half));
    assert_eq!(talk.conversation.push(piece(&half), Source::default()), Err(Failure::Overflow(Overflow::Message)));
    let mut talk = Talk::open(&[]);
    let pushed =
        (0..100_000).map(|_| talk.conversation.push(text(""), Source::default())).take_while(Result::is_ok).count();
    assert_eq!(pushed, 20_000);
}

mod interleavings {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_accepted_each_byte_arrives_once_and_in_order(
            steps in prop::collection::vec((0..4usize, 0..9usize), 1..60),
            one_event in any::<bool>(),
        ) {
            let mut talk = Talk::open(&[]);
            talk.conversation.one_event = one_event;
            let (mut said, mut arrived, mut granted) = (0u8, Vec::new(), 0);
            for (act, size) in steps {
                match act {
                    0 | 1 => {
                        let body: Vec<u8> = (0..size).map(|at| said.wrapping_add(at as u8)).collect();
                        said = said.wrapping_add(size as u8);
                        talk.say(Frame::Data { binary: true, more: act == 1, body: body.into() });
                    }
                    _ => {
                        talk.conversation.refresh();
                        let Some(ask) = talk.next() else { continue };
                        let content: Vec<u8> = Events::new(ask.body.clone())
                            .flat_map(|event| match event.unwrap() {
                                Event::Binary(body) => body.to_vec(),
                                other => unreachable!("{other:?}"),
                            })
                            .collect();
                        prop_assert!(ask.replayed <= content.len());
                        let accepted = if content.is_empty() { 0 } else { size.clamp(1, content.len()) };
                        arrived.extend_from_slice(&content[..accepted]);
                        let number = accepted.to_string();
                        let heard = talk.hear(&[("Content-Bytes-Accepted", &number)], b"");
                        prop_assert_eq!(heard.failure, None);
                        granted += heard.accepted;
                    }
                }
            }
            let expected: Vec<u8> = (0..arrived.len()).map(|at| at as u8).collect();
            prop_assert_eq!(&arrived, &expected);
            prop_assert_eq!(granted, arrived.len());
        }
    }
}
