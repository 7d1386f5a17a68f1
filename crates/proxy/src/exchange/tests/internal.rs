// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests that the handler makes itself: links and the like.

use rpc::passthrough::Passthrough;
use zhttp::{Ext, Headers, Ids, Packet};

use super::bench::{Bench, Sent, bytes, data, grip_response, ok};

/// The handler asks for an address.
fn ask(bench: &mut Bench, uri: &str, passthrough: Option<&Passthrough<'_>>) {
    let passthrough = passthrough.map(Passthrough::encode);
    let packet = Packet {
        from: b"handler",
        ids: Ids::One(b"7", Some(0)),
        ext: Ext::MULTI,
        stream: true,
        router_resp: true,
        credits: Some(100_000),
        method: Some(b"GET"),
        uri: Some(uri.as_bytes()),
        headers: Headers::Pairs(&[(b"Grip-Last", b"c; last-id=1"), (b"Grip-Sig", b"x")]),
        passthrough: passthrough.as_deref(),
        ..Packet::default()
    };
    bench.engine.internal_request(&bytes(&packet), bench.now, &mut bench.recorded);
}

fn of(route: &str, prefer_internal: bool) -> Passthrough<'_> {
    Passthrough { route, prefer_internal, trusted: false, auto_share: true }
}

/// What was sent to the outbound process: method, URI, where to connect, headers.
fn opened(bench: &mut Bench) -> String {
    let sent = bench.take();
    let [Sent::Open(message)] = &sent[..] else { panic!("{sent:?}") };
    let packet = Packet::decode(message).unwrap();
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    let names: Vec<_> = packet.headers.iter().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap()).collect();
    format!(
        "{} {} {}:{} {}",
        text(packet.method),
        text(packet.uri),
        text(packet.connect_host),
        packet.connect_port.unwrap(),
        names.join(",")
    )
}

const ROUTES: &str = "*,id=r,path_beg=/a,replace_beg=/z backend:81\n";

#[test]
fn an_address_of_the_site_is_fetched_by_the_targets_of_the_route() {
    let mut bench = Bench::new(ROUTES);
    ask(&mut bench, "http://h/a/next", Some(&of("r", true)));
    assert_eq!(opened(&mut bench), "GET http://h/z/next backend:81 Grip-Last,Grip-Sig,Grip-Feature,Host");
}

#[test]
fn another_address_is_fetched_from_there() {
    let mut bench = Bench::new(ROUTES);
    ask(&mut bench, "http://other:82/a/next", Some(&of("r", false)));
    assert_eq!(opened(&mut bench), "GET http://other:82/a/next other:82 Grip-Last,Grip-Sig,Grip-Feature,Host");
    let mut bench = Bench::new(ROUTES);
    ask(&mut bench, "https://h/next", Some(&of("r", true)));
    assert_eq!(opened(&mut bench), "GET https://h/next h:443 Grip-Last,Grip-Sig,Grip-Feature,Host");
}

#[test]
fn the_response_is_given_to_the_handler_as_it_is_and_not_held() {
    let mut bench = Bench::new(ROUTES);
    ask(&mut bench, "http://h/a", Some(&of("r", true)));
    bench.sent();
    bench.origin(grip_response("response", b"x", true));
    bench.origin(data(b"y", false));
    assert_eq!(bench.sent(), ["handler: data 200 [1] more", "handler: data [1]"]);
    assert!(bench.engine.is_empty() && bench.recorded.log.is_empty());
}

#[test]
fn an_unknown_route_is_an_error_and_a_request_without_one_is_refused() {
    let mut bench = Bench::new(ROUTES);
    ask(&mut bench, "http://h/a", Some(&of("unknown", true)));
    assert!(bench.sent()[0].starts_with("handler: data 502"));
    ask(&mut bench, "http://h/a", None);
    assert_eq!(bench.sent(), ["handler: error"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn a_handler_that_leaves_is_not_answered_any_more() {
    let mut bench = Bench::new(ROUTES);
    ask(&mut bench, "http://h/a", Some(&of("r", true)));
    bench.sent();
    bench.origin(ok(b"", true));
    bench.sent();
    bench.engine.client_instance_left(b"handler", bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), ["origin: cancel"]);
}
