// SPDX-License-Identifier: AGPL-3.0-or-later
//! Literal packets, and properties that hold for all.

use super::*;
use proptest::prelude::*;
use tnetstring::Writer;

fn round_trip(packet: &Packet<'_>) {
    let mut writer = Writer::new(256);
    let bytes = packet.encode(None, &mut writer).to_vec();
    let read = Packet::decode(&bytes).unwrap();
    let mut again = Writer::new(16);
    assert_eq!(String::from_utf8_lossy(read.encode(None, &mut again)), String::from_utf8_lossy(&bytes));
}

#[test]
fn a_request_reads_as_the_original_frontend_writes_it() {
    let headers = "7:headers,65:25:4:Host,14:example.com:99,]32:10:User-Agent,14:curl/7.88.1 xx,]]";
    let body = format!(
        "4:from,9:frontend1,2:id,5:0-0-0,3:seq,1:0#3:ext,15:5:multi,4:true!}}6:method,3:GET,3:uri,24:http://example.com:99/a?,{headers}7:credits,4:8192#6:stream,4:true!12:peer-address,9:127.0.0.1,9:peer-port,5:47746,"
    );
    let message = format!("T{}:{body}}}", body.len());
    let packet = Packet::decode(message.as_bytes()).unwrap();
    assert_eq!(packet.from, b"frontend1");
    assert_eq!(packet.ids, Ids::One(b"0-0-0", Some(0)));
    assert_eq!((packet.kind, packet.ext.multi, packet.stream, packet.more), (Kind::Data, true, true, false));
    assert_eq!(packet.method, Some(&b"GET"[..]));
    assert_eq!((packet.credits, packet.peer_port), (Some(8192), Some(47746)));
    assert_eq!(packet.headers.get("user-agent"), Some(&b"curl/7.88.1 xx"[..]));
    assert_eq!(packet.headers.iter().count(), 2);
}

#[test]
fn a_keep_alive_is_written_as_expected() {
    let mut writer = Writer::new(16);
    let packet = Packet {
        from: b"p",
        ids: Ids::One(b"1-2", Some(3)),
        kind: Kind::KeepAlive,
        ext: Ext::MULTI,
        ..Packet::default()
    };
    let bytes = packet.encode(Some(b"f"), &mut writer);
    assert_eq!(
        String::from_utf8_lossy(bytes),
        "f T78:4:from,1:p,2:id,3:1-2,3:seq,1:3#3:ext,15:5:multi,4:true!}4:type,10:keep-alive,}"
    );
}

#[test]
fn a_list_of_ids_is_written_and_read() {
    let ids: Vec<(Vec<u8>, u32)> = (0..128).map(|i| (format!("{i}-a").into_bytes(), i)).collect();
    let ids: Vec<(&[u8], u32)> = ids.iter().map(|(id, seq)| (&id[..], *seq)).collect();
    let mut writer = Writer::new(16);
    let packet = Packet { from: b"h", ids: Ids::Many(&ids), body: b"x", more: true, ..Packet::default() };
    let bytes = packet.encode(None, &mut writer);
    let read: Vec<_> = Packet::decode(bytes).unwrap().ids.iter().map(|id| id.unwrap()).collect();
    assert_eq!(read, ids.iter().map(|(id, seq)| (*id, Some(*seq))).collect::<Vec<_>>());
}

#[test]
fn more_than_128_ids_are_refused() {
    let ids: Vec<(&[u8], u32)> = (0..129).map(|i| (&b"a"[..], i)).collect();
    let mut writer = Writer::new(16);
    let bytes = Packet { ids: Ids::Many(&ids), ..Packet::default() }.encode(None, &mut writer);
    assert_eq!(Packet::decode(bytes), Err(DecodeError::TooManyIds));
}

#[test]
fn what_is_malformed_is_an_error_that_says_where() {
    for (message, error) in [
        ("", DecodeError::Format),
        ("J{}", DecodeError::Format),
        ("T10:3:seq,1:x,}", DecodeError::Field("seq")),
        ("T11:3:seq,2:-1#}", DecodeError::Field("seq")),
        ("T14:4:more,4:true,}", DecodeError::Field("more")),
        ("T15:4:type,5:other,}", DecodeError::Field("type")),
        ("T20:7:headers,6:3:abc,]}", DecodeError::Field("headers")),
        ("T26:7:headers,11:8:4:name,1:]]}", DecodeError::Field("headers")),
        ("T10:2:id,2:xx#}", DecodeError::Field("id")),
    ] {
        let result = Packet::decode(message.as_bytes());
        match (&result, &error) {
            (Err(DecodeError::Encoding(_)), _) => {}
            _ => assert_eq!(result, Err(error), "{message}"),
        }
    }
}

#[test]
fn unknown_fields_are_ignored_and_of_a_repeated_field_the_last_counts() {
    let packet = Packet::decode(b"T41:4:what,1:x,4:code,1:1#4:code,3:200#0:,0:~}").unwrap();
    assert_eq!(packet.code, Some(200));
}

#[test]
fn user_data_passes_unchanged() {
    for value in ["5:1:a,1:]", "3:abc,", "2:42#", "4:true!", "0:~", "8:1:a,1:b,}", "3:1.5^"] {
        let body = format!("9:user-data,{value}");
        let message = format!("T{}:{body}}}", body.len());
        if let Ok(packet) = Packet::decode(message.as_bytes()) {
            let mut writer = Writer::new(16);
            assert_eq!(String::from_utf8_lossy(packet.encode(None, &mut writer)), message);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut message = vec![b'T'];
        message.extend(&bytes);
        if let Ok(packet) = Packet::decode(&message) {
            packet.ids.iter().for_each(drop);
            packet.headers.iter().for_each(drop);
        }
        let _ = Packet::decode(&bytes);
    }

    #[test]
    fn a_damaged_packet_never_panics(at in 0usize..150, byte in any::<u8>()) {
        let headers: &[(&[u8], &[u8])] = &[(b"Host", b"x"), (b"A", b"")];
        let mut writer = Writer::new(16);
        let packet = Packet { from: b"f", ids: Ids::Many(&[(b"a", 1), (b"b", 2)]), headers: Headers::Pairs(headers), code: Some(200), body: b"hello", ..Packet::default() };
        let mut bytes = packet.encode(None, &mut writer).to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(packet) = Packet::decode(&bytes) {
            packet.ids.iter().for_each(drop);
            packet.headers.iter().for_each(drop);
        }
    }

    #[test]
    fn what_is_written_is_read(from in prop::collection::vec(any::<u8>(), 1..70), body in prop::collection::vec(any::<u8>(), 0..300),
                               seq in any::<u32>(), code in any::<u16>(), more in any::<bool>(), credits in any::<u32>()) {
        let headers: &[(&[u8], &[u8])] = &[(&from, &body), (b"", b"")];
        round_trip(&Packet {
            from: &from, ids: Ids::One(&from, Some(seq)), headers: Headers::Pairs(headers), body: &body, code: Some(code), more,
            credits: Some(credits), uri: Some(&body), method: Some(b"GET"), reason: Some(b""), timeout: Some(5), max_size: Some(u64::from(seq)),
            ..Packet::default()
        });
    }
}

#[test]
fn first_packets_have_their_extensions_in_the_usual_form() {
    let mut out = Writer::new(64);
    for (coded, adopt, quiet, expected) in [
        (true, false, false, &b"T57:3:ext,47:5:multi,4:true!7:interim,4:true!5:coded,4:true!}}"[..]),
        (false, false, false, b"T42:3:ext,32:5:multi,4:true!7:interim,4:true!}}"),
        (false, true, false, b"T57:3:ext,47:5:multi,4:true!7:interim,4:true!5:adopt,4:true!}}"),
        (true, false, true, b"T72:3:ext,62:5:multi,4:true!5:quiet,4:true!7:interim,4:true!5:coded,4:true!}}"),
    ] {
        let ext = Ext { coded, adopt, quiet, interim: true, ..Ext::MULTI };
        let bytes = Packet { ext, ..Packet::default() }.encode(None, &mut out).to_vec();
        assert_eq!(bytes, expected, "{}", bytes.escape_ascii());
        assert_eq!(Packet::decode(&bytes).unwrap().ext, ext);
    }
}

#[test]
fn extensions_that_we_do_not_know_are_ignored_and_ours_are_written_after_the_originals() {
    let packet = Packet::decode(b"T47:3:ext,37:5:quiet,4:true!5:adopt,4:true!1:x,0:~}}").unwrap();
    assert_eq!(packet.ext, Ext { quiet: true, adopt: true, ..Ext::default() });
    let mut out = Writer::new(64);
    let packet = Packet { ext: Ext { adopt: true, ..Ext::MULTI }, ..Packet::default() };
    assert_eq!(packet.encode(None, &mut out), b"T40:3:ext,30:5:multi,4:true!5:adopt,4:true!}}");
}

#[test]
fn a_packet_of_a_second_server_says_what_comes_before_it() {
    let mut out = Writer::new(64);
    let ext = Ext { lane: 1, after: 12, ..Ext::MULTI };
    let bytes = Packet { ext, ..Packet::default() }.encode(None, &mut out).to_vec();
    assert_eq!(String::from_utf8_lossy(&bytes), "T57:3:ext,47:5:multi,4:true!1:v,1:1#4:lane,1:1#5:after,2:12#}}");
    assert_eq!(Packet::decode(&bytes).unwrap().ext, ext);
}

#[test]
fn a_record_is_kept_with_its_owner() {
    let mut out = Writer::new(64);
    let ext = Ext { lane: 1, keep: Some(Record { owner: b"h0", content: b"\x01abc" }), ..Ext::MULTI };
    let bytes = Packet { ext, ..Packet::default() }.encode(None, &mut out).to_vec();
    assert_eq!(
        String::from_utf8_lossy(&bytes),
        "T75:3:ext,65:5:multi,4:true!1:v,1:1#4:lane,1:1#4:keep,20:1:o,2:h0,1:r,4:\u{1}abc,}}}"
    );
    assert_eq!(Packet::decode(&bytes).unwrap().ext, ext);
}

#[test]
fn a_run_names_its_messages_and_one_that_is_none_is_skipped() {
    let mut items = Vec::new();
    Run::push(&mut items, "a", "1");
    Run::push(&mut items, "ü,", "");
    let run = Run { number: 7, items: &items };
    let mut out = Writer::new(64);
    for ext in [Ext { run: Some(run), ..Ext::default() }, Ext { run: Some(run), lag: true, ..Ext::MULTI }] {
        let bytes = Packet { ext, ..Packet::default() }.encode(None, &mut out).to_vec();
        let read = Packet::decode(&bytes).unwrap().ext;
        assert_eq!(read, ext);
        let pairs: Vec<_> = read.run.unwrap().iter().collect();
        assert_eq!(pairs, [(&b"a"[..], &b"1"[..]), ("ü,".as_bytes(), b"")]);
    }
    for foreign in ["1:x,", "5:1:x,]", "8:2:-1#1:a]", "0:]"] {
        let ext = format!("3:run,{foreign}1:v,1:1#");
        let ext = format!("3:ext,{}:{ext}}}", ext.len());
        let message = format!("T{}:{ext}}}", ext.len());
        if let Ok(packet) = Packet::decode(message.as_bytes()) {
            assert_eq!(packet.ext.run, None, "{foreign}");
        }
    }
}

#[test]
fn what_another_version_means_by_our_keys_is_skipped() {
    for ext in [
        // A version that we do not know, before or behind the keys that it applies to.
        "1:v,1:2#4:lane,1:1#4:keep,15:1:o,1:h,1:r,0:,}",
        "4:lane,1:1#4:keep,15:1:o,1:h,1:r,0:,}1:v,1:2#",
        "4:lane,3:two,4:keep,1:x,",
        "4:keep,7:1:o,0:~}",
        "4:lane,3:300#4:keep,8:1:o,1:h,}1:v,1:x,",
    ] {
        let ext = format!("3:ext,{}:{ext}}}", ext.len());
        let message = format!("T{}:{ext}}}", ext.len());
        assert_eq!(Packet::decode(message.as_bytes()).map(|packet| packet.ext), Ok(Ext::default()), "{message}");
    }
    assert_eq!(Packet::decode(b"T26:3:ext,16:5:multi,5:maybe,}}"), Err(DecodeError::Field("ext")));
}

#[test]
fn positions_of_a_websocket_and_its_name_are_told() {
    let mut out = Writer::new(64);
    for (ext, expected) in [
        (Ext { had: Some(0), ..Ext::MULTI }, "T43:3:ext,33:5:multi,4:true!1:v,1:1#3:had,1:0#}}"),
        (
            Ext { at: Some(7), had: Some(1 << 40), ..Ext::default() },
            "T50:3:ext,40:1:v,1:1#2:at,1:7#3:had,13:1099511627776#}}",
        ),
        (Ext { closed: 3, name: Some(b"c-1"), ..Ext::default() }, "T44:3:ext,34:1:v,1:1#4:name,3:c-1,6:closed,1:3#}}"),
    ] {
        let bytes = Packet { ext, ..Packet::default() }.encode(None, &mut out).to_vec();
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(Packet::decode(&bytes).unwrap().ext, ext);
    }
    // One that can not be is none.
    let packet = Packet::decode(b"T37:3:ext,27:1:v,1:1#3:had,2:-1#2:at,0:~}}").unwrap();
    assert_eq!(packet.ext, Ext::default());
}
