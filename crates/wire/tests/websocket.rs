// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSocket frames, as literal bytes, cut anywhere, and at random.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use wire::websocket::{Event, Header, Message, Opcode, Reader, Role, Violation, mask, write_close};

/// What a reader says, with the pieces of a frame put together: how a frame is cut must make no difference.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Frame { message: Message, start: bool, end: bool, payload: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Broken(Violation),
}

/// Feeds the bytes in these portions, as a connection would: what is not used stays in the buffer.
fn listen(reader: &mut Reader, portions: &[&[u8]]) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    let mut buffer = Vec::new();
    let mut open = false;
    for portion in portions {
        buffer.extend_from_slice(portion);
        loop {
            let (used, event) = match reader.read(&mut buffer) {
                Ok(read) => read,
                Err(violation) => {
                    // Whether a frame that breaks off was begun depends on the portions.
                    if open {
                        said.pop();
                    }
                    said.push(Said::Broken(violation));
                    return said;
                }
            };
            match event {
                Some(Event::Data { message, start, frame_end, end, payload, .. }) => {
                    match said.last_mut() {
                        Some(Said::Frame { payload: whole, end: over, .. }) if open => {
                            assert!(!start);
                            whole.extend_from_slice(payload);
                            *over = end;
                        }
                        _ => said.push(Said::Frame { message, start, end, payload: payload.to_vec() }),
                    }
                    open = !frame_end;
                }
                Some(Event::Ping(payload)) => said.push(Said::Ping(payload.to_vec())),
                Some(Event::Pong(payload)) => said.push(Said::Pong(payload.to_vec())),
                Some(Event::Close(status)) => {
                    said.push(Said::Close(status.map(|(code, text)| (code, text.to_owned()))))
                }
                None => {}
            }
            buffer.drain(..used);
            if used == 0 {
                break;
            }
        }
    }
    said
}

fn client(max: u64) -> Reader {
    Reader::new(Role::Client, max, false)
}

fn text(start: bool, end: bool, payload: &str) -> Said {
    Said::Frame { message: Message::Text, start, end, payload: payload.as_bytes().to_vec() }
}

#[test]
fn the_examples_of_the_rfc() {
    let hello = [0x81, 5, b'H', b'e', b'l', b'l', b'o'];
    assert_eq!(listen(&mut client(5), &[&hello]), [text(true, true, "Hello")]);
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let mut server = Reader::new(Role::Server, 5, false);
    assert_eq!(listen(&mut server, &[&masked]), [text(true, true, "Hello")]);
    let fragments = [0x01, 3, b'H', b'e', b'l', 0x80, 2, b'l', b'o'];
    assert_eq!(listen(&mut client(5), &[&fragments]), [text(true, false, "Hel"), text(false, true, "lo")]);
    let ping = [0x89, 5, b'H', b'e', b'l', b'l', b'o'];
    assert_eq!(listen(&mut client(0), &[&ping]), [Said::Ping(b"Hello".to_vec())]);
}

#[test]
fn control_frames_may_come_between_fragments() {
    let bytes = [0x01, 1, b'a', 0x8a, 0, 0x00, 0, 0x80, 1, b'b'];
    let expected = [text(true, false, "a"), Said::Pong(Vec::new()), text(false, false, ""), text(false, true, "b")];
    assert_eq!(listen(&mut client(9), &[&bytes]), expected);
}

#[test]
fn what_comes_after_a_close_is_ignored() {
    let mut bytes = Vec::new();
    write_close(Some((1001, "bye")), None, &mut bytes);
    bytes.extend_from_slice(&[0xff; 20]);
    let mut reader = client(9);
    assert_eq!(listen(&mut reader, &[&bytes]), [Said::Close(Some((1001, "bye".into())))]);
    assert!(reader.is_closed());
}

#[test]
fn what_the_rfc_forbids_is_named() {
    let long: Vec<u8> = [0x82, 127].into_iter().chain((1u64 << 63).to_be_bytes()).collect();
    let cases: &[(&[u8], Violation)] = &[
        (&[0xa1, 0], Violation::ReservedBit),
        (&[0xc1, 0], Violation::ReservedBit),
        (&[0x83, 0], Violation::Opcode(3)),
        (&[0x8b, 0], Violation::Opcode(11)),
        (&[0x81, 0x80], Violation::Masked),
        (&[0x89, 126], Violation::LongControl),
        (&[0x09, 0], Violation::FragmentedControl),
        (&[0x80, 0], Violation::Continuation),
        (&[0x01, 0, 0x81, 0], Violation::Interleaved),
        (&[0x82, 126, 0, 125], Violation::Length),
        (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Violation::Length),
        (&long, Violation::Length),
        (&[0x88, 1, 3], Violation::Close),
        (&[0x88, 2, 3, 0xed], Violation::Close),
        (&[0x88, 3, 3, 0xe8, 0xff], Violation::Utf8),
        (&[0x81, 2, b'a', 0xff], Violation::Utf8),
        (&[0x81, 1, 0xc3], Violation::Utf8),
        (&[0x02, 5], Violation::TooLarge(4)),
        (&[0x02, 3, 1, 2, 3, 0x80, 2], Violation::TooLarge(4)),
    ];
    for (bytes, violation) in cases {
        let mut bytes = bytes.to_vec();
        // A mask that is not expected needs its key to be read.
        if *violation == Violation::Masked {
            bytes.extend_from_slice(&[0; 4]);
        }
        let said = listen(&mut client(4), &[&bytes]);
        assert_eq!(said.last(), Some(&Said::Broken(*violation)), "{bytes:02x?}");
    }
    assert_eq!(listen(&mut Reader::new(Role::Server, 9, false), &[&[0x81, 0]]), [Said::Broken(Violation::Unmasked)]);
}

#[test]
fn wrong_text_is_noticed_before_the_frame_is_complete() {
    let bytes = [0x81, 100, b'a', 0xff];
    assert_eq!(listen(&mut client(100), &[&bytes]), [Said::Broken(Violation::Utf8)]);
}

#[test]
fn compressed_a_message_may_be_somewhat_larger_on_the_wire() {
    for (first, most) in [(0x82, 200), (0xc2, 314)] {
        for (size, is_allowed) in [(most, true), (most + 1, false)] {
            let [high, low] = u16::to_be_bytes(size);
            let said = listen(&mut Reader::new(Role::Client, 200, true), &[&[first, 126, high, low]]);
            let expected = (!is_allowed).then_some(Said::Broken(Violation::TooLarge(200)));
            assert_eq!(said.into_iter().next(), expected, "{size}");
        }
    }
}

#[test]
fn only_the_first_frame_of_a_message_says_that_it_is_compressed() {
    let mut reader = Reader::new(Role::Client, 9, true);
    let mut bytes = [0x41, 1, 0xff, 0x80, 1, 0xff];
    let (used, _) = reader.read(&mut bytes).unwrap();
    // What is compressed is not checked for text.
    let (_, event) = reader.read(&mut bytes[used..]).unwrap();
    let payload = &[0xff][..];
    let expected =
        Event::Data { message: Message::Text, start: true, frame_end: true, end: false, compressed: true, payload };
    assert_eq!(event, Some(expected));
    for bytes in [&[0x41, 0, 0xc0, 0][..], &[0xc9, 0]] {
        let said = listen(&mut Reader::new(Role::Client, 9, true), &[bytes]);
        assert_eq!(said.last(), Some(&Said::Broken(Violation::ReservedBit)));
    }
}

/// A frame to write.
#[derive(Clone, Debug)]
enum Frame {
    Message { text: bool, fragments: Vec<String> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let control = vec(any::<u8>(), 0..=125);
    let message = (any::<bool>(), vec(prop_oneof!["\\PC{0,20}", Just("long ".repeat(20_000))], 1..4));
    vec(
        prop_oneof![
            3 => message.prop_map(|(text, fragments)| Frame::Message { text, fragments }),
            1 => control.clone().prop_map(Frame::Ping),
            1 => control.prop_map(Frame::Pong),
        ],
        0..6,
    )
}

fn write(opcode: Opcode, fin: bool, payload: &[u8], key: Option<[u8; 4]>, out: &mut Vec<u8>) {
    out.extend_from_slice(&Header { opcode, fin, compressed: false, key }.encode(payload.len()));
    let at = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut out[at..], key, 0);
    }
}

fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        frames in frames(),
        key in any::<Option<[u8; 4]>>(),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for frame in &frames {
            match frame {
                Frame::Message { text, fragments } => {
                    let (mut opcode, message) =
                        if *text { (Opcode::Text, Message::Text) } else { (Opcode::Binary, Message::Binary) };
                    for (at, fragment) in fragments.iter().enumerate() {
                        let end = at + 1 == fragments.len();
                        write(opcode, end, fragment.as_bytes(), key, &mut bytes);
                        opcode = Opcode::Continuation;
                        let payload = fragment.clone().into_bytes();
                        expected.push(Said::Frame { message, start: at == 0, end, payload });
                    }
                }
                Frame::Ping(payload) => {
                    write(Opcode::Ping, true, payload, key, &mut bytes);
                    expected.push(Said::Ping(payload.clone()));
                }
                Frame::Pong(payload) => {
                    write(Opcode::Pong, true, payload, key, &mut bytes);
                    expected.push(Said::Pong(payload.clone()));
                }
            }
        }
        let role = if key.is_some() { Role::Server } else { Role::Client };
        let said = listen(&mut Reader::new(role, u64::MAX, false), &cut(&bytes, &cuts));
        prop_assert_eq!(said, expected);
    }

    #[test]
    fn whatever_comes_is_judged_alike_however_it_is_cut(
        bytes in vec(prop_oneof![3 => 0u8..=16, 3 => 0x80u8..=0x8a, 1 => any::<u8>()], 0..60),
        cuts in vec(any::<Index>(), 0..20),
        server in any::<bool>(),
        deflate in any::<bool>(),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let whole = listen(&mut Reader::new(role, 50, deflate), &[&bytes]);
        let pieces = listen(&mut Reader::new(role, 50, deflate), &cut(&bytes, &cuts));
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn a_mask_comes_off_wherever_a_piece_begins(payload in vec(any::<u8>(), 0..50), key in any::<[u8; 4]>(), at in 0..50usize) {
        let at = at.min(payload.len());
        let mut masked = payload.clone();
        mask(&mut masked, key, 0);
        let by_hand: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        prop_assert_eq!(&masked, &by_hand);
        let (front, back) = masked.split_at_mut(at);
        mask(back, key, at as u64);
        mask(front, key, 0);
        prop_assert_eq!(masked, payload);
    }
}
