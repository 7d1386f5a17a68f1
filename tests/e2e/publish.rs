// SPDX-License-Identifier: AGPL-3.0-or-later
//! What publishers send, by each of the ways in.

use std::io::Write as _;
use std::net::TcpStream;

use pushpin_tests::client::{self, Client};
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::publish;
use pushpin_tests::suite::{Suite, program, run};
use pushpin_tests::until;

/// A backend that holds `/poll` on the channel c, and answers `/instruct` with one that can not be sent.
fn origin() -> Origin {
    Origin::start(|request, stream| match request.target.as_str() {
        "/poll" => respond(stream, "200 OK", "Grip-Hold: response\r\nGrip-Channel: c\r\n", b"nothing\n"),
        _ => {
            let document = br#"{"response":{"headers":{"X":"a\r\nSet-Cookie: evil=1"},"body":"x"}}"#;
            respond(stream, "200 OK", "Content-Type: application/grip-instruct\r\n", document)
        }
    })
}

fn socket(kind: zmq::SocketType, port: u16) -> zmq::Socket {
    let socket = zmq::Context::new().socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(20_000).unwrap();
    socket.connect(&format!("tcp://127.0.0.1:{port}")).unwrap();
    socket
}

/// Sends a command and waits for the answer.
fn command(suite: &Suite, message: &[u8]) -> String {
    let socket = socket(zmq::REQ, suite.command_port);
    socket.send(message, 0).unwrap();
    String::from_utf8(socket.recv_bytes(0).unwrap()).unwrap()
}

/// A tnetstring around its content.
fn tnet(content: &[u8], kind: char) -> Vec<u8> {
    [format!("{}:", content.len()).as_bytes(), content, kind.to_string().as_bytes()].concat()
}

/// A command that publishes the items.
fn publish_command(items: &[u8]) -> Vec<u8> {
    let args = tnet(&[b"5:items,", &tnet(items, ']')[..]].concat(), '}');
    tnet(&[b"2:id,1:7,6:method,7:publish,4:args,", &args[..]].concat(), '}')
}

#[test]
fn a_response_that_can_not_be_sent_is_refused_by_every_way_in_and_costs_nobody() {
    let origin = origin();
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/poll").unwrap();
    let publisher = socket(zmq::XPUB, suite.sub_port);
    assert_eq!(publisher.recv_bytes(0).unwrap(), b"\x01c");

    let json = r#"{"channel":"c","http-response":{"headers":{"X":"a\r\nSet-Cookie: evil=1"},"body":"evil"}}"#;
    let refusal = "'http-response' cannot be sent: the value of header 'X' has a control character";
    let over_http = publish::post(&suite, &format!(r#"{{"items":[{json}]}}"#)).unwrap();
    assert_eq!((over_http.head.status, over_http.text()), (400, format!("Invalid format: items[0]: {refusal}\n")));

    let warned =
        |way: &str| suite.logs().contains(&format!("IN {way}: received message with invalid format: {refusal}"));
    publish::push(&suite, format!("J{json}").as_bytes());
    until("what was pushed is refused", || warned("pull"));
    publisher.send_multipart([&b"c"[..], format!("J{json}").as_bytes()], 0).unwrap();
    until("what was subscribed to is refused", || warned("sub"));

    let response = tnet(b"4:code,3:101#4:body,4:evil,", '}');
    let item = tnet(&[b"7:channel,1:c,13:http-response,", &response[..]].concat(), '}');
    let answer = command(&suite, &publish_command(&item));
    assert!(answer.contains("11:bad-request,") && answer.contains("status code 101 is not between"), "{answer}");

    let mut other = Client::connect(suite.port).unwrap();
    other.get("/instruct").unwrap();
    assert!(other.response().unwrap().head.status >= 500);

    for spec in [format!("http://127.0.0.1:{}", suite.publish_port), format!("tcp://127.0.0.1:{}", suite.push_port)] {
        let output = run("pushpin-publish", &["--spec", &spec, "--header", "X: a\nb", "c", "evil"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("the value of header 'X'"), "{errors}");
    }

    publish::text(&suite, "c", "good").unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.head.status, response.text().as_str()), (200, "good"));
    assert_eq!(response.head.header("Set-Cookie"), None);
}

#[test]
fn a_command_publishes_all_of_its_items_or_none_and_no_depth_ends_the_handler() {
    let origin = origin();
    let suite = Suite::before(origin.port);
    let handler = suite.pid("handler");
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/poll").unwrap();
    until("the long-poll is held", || suite.logs().contains("channel=c\n"));
    let good = tnet(&[b"7:channel,1:c,13:http-response,", &tnet(b"4:body,4:half,", '}')[..]].concat(), '}');
    let answer = command(&suite, &publish_command(&[&good[..], b"9:junk"].concat()));
    assert!(answer.contains("11:bad-request,"), "{answer}");
    for kind in [']', '}'] {
        let key = if kind == '}' { "1:a," } else { "" };
        let (mut heads, mut length) = (Vec::new(), 3);
        for _ in 0..100_000 {
            heads.push(format!("{}:{key}", length + key.len()));
            length += heads[heads.len() - 1].len() + 1;
        }
        heads.reverse();
        let deep = [heads.concat(), format!("0:{kind}"), kind.to_string().repeat(100_000)].concat();
        let answer = command(&suite, &publish_command(deep.as_bytes()));
        assert!(answer.contains("nested more than"), "{answer}");
    }
    publish::text(&suite, "c", "whole").unwrap();
    assert_eq!(client.response().unwrap().text(), "whole");
    assert_eq!(suite.pid("handler"), handler);
}

#[test]
fn publishers_that_send_half_a_request_keep_nobody_waiting() {
    let suite = Suite::before(1);
    let halves: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", suite.publish_port)).unwrap();
            stream.write_all(b"POST /publish/ HTTP/1.1\r\nContent-Length: 100\r\n\r\n{").unwrap();
            stream
        })
        .collect();
    assert_eq!(publish::post(&suite, r#"{"items":[]}"#).unwrap().head.status, 200);
    drop(halves);
}

#[test]
fn tokens_in_a_batch_reach_the_stream_in_their_order_as_they_come() {
    let origin =
        Origin::start(|_, stream| respond(stream, "200 OK", "Grip-Hold: stream\r\nGrip-Channel: c\r\n", b"hi\n"));
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/stream").unwrap();
    client.final_head().unwrap();
    client.expect("hi\n").unwrap();
    let mut publisher = Client::connect(suite.publish_port).unwrap();
    let head = "POST /publish/ HTTP/1.1\r\nConnection: keep-alive\r\nContent-Type: application/x-ndjson\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    publisher.send(head.as_bytes()).unwrap();
    let mut send = |text: &str| publisher.send(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).unwrap();
    let token = |text: &str| format!("{{\"channel\":\"c\",\"http-stream\":{{\"content\":\"{text}\"}}}}\n");
    for n in 0..100 {
        send(&token(&format!("{n},")));
    }
    send("nonsense\n");
    // All of that has come while the batch goes on.
    let expected: String = (0..100).map(|n| format!("{n},")).collect();
    client.expect(&expected).unwrap();
    send(&token("end"));
    client.expect("end").unwrap();
    publisher.send(b"0\r\n\r\n").unwrap();
    let answer = publisher.response().unwrap().text();
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!(lines.len(), 102);
    assert!(lines[100].starts_with(r#"{"line":101,"status":400,"error":"#), "{}", lines[100]);
    assert_eq!(lines[101], r#"{"line":102,"status":200,"message":"Published"}"#);
    // The connection is there for another request.
    publisher.send(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(publisher.response().unwrap().text(), "Pushpin API\n");
}

#[test]
fn publishers_hear_who_got_it_and_who_is_subscribed() {
    let origin = Origin::start(|request, stream| {
        let (mode, channel) = request.target[1..].split_once('/').unwrap();
        respond(stream, "200 OK", &format!("Grip-Hold: {mode}\r\nGrip-Channel: {channel}\r\n"), b"")
    });
    let suite = Suite::before(origin.port);
    let held = ["/stream/a-1", "/stream/a-1", "/response/a-1", "/response/a-2", "/stream/b"].map(|target| {
        let mut client = Client::connect(suite.port).unwrap();
        client.get(target).unwrap();
        client
    });
    let ask = |target: &str| client::get(suite.publish_port, target).unwrap();
    let subscribers = |response: usize, stream: usize| {
        format!(r#"{{"http-response":{response},"http-stream":{stream},"ws-message":0}}"#)
    };
    let channel = |name: &str, response, stream| {
        format!(r#"{{"channel":"{name}","subscribers":{}}}"#, subscribers(response, stream))
    };
    let all = format!("{{\"channels\":[{},{},{}]}}\n", channel("a-1", 1, 2), channel("a-2", 1, 0), channel("b", 0, 1));
    until("all are held", || ask("/channels").text() == all);
    assert_eq!(ask("/channels/a-1").text(), channel("a-1", 1, 2) + "\n");
    assert_eq!(ask("/channels/a").head.status, 404);
    let first = ask("/channels?prefix=a-&limit=1").text();
    assert_eq!(first, format!("{{\"channels\":[{}],\"next\":\"a-1\"}}\n", channel("a-1", 1, 2)));
    let second = ask("/channels?prefix=a-&limit=1&after=a-1").text();
    assert_eq!(second, format!("{{\"channels\":[{}]}}\n", channel("a-2", 1, 0)));

    let item = |channel: &str| {
        format!(r#"{{"channel":"{channel}","http-stream":{{"content":"s"}},"http-response":{{"body":"r"}}}}"#)
    };
    let body = format!(r#"{{"items":[{},{}],"report":true}}"#, item("a-1"), item("nobody"));
    let got = |channel: &str, response, stream| {
        format!(r#"{{"channel":"{channel}","receivers":{},"result":"published"}}"#, subscribers(response, stream))
    };
    let told = publish::post(&suite, &body).unwrap().text();
    assert_eq!(
        told,
        format!("{{\"items\":[{},{}],\"message\":\"Published\"}}\n", got("a-1", 1, 2), got("nobody", 0, 0))
    );
    // The long-poll has gone with its response.
    assert_eq!(ask("/channels/a-1").text(), channel("a-1", 0, 2) + "\n");
    drop(held);
}

/// A backend that holds what is asked for as `/MODE/CHANNEL/USER`, and WebSockets by their events.
fn users() -> Origin {
    Origin::start(|request, stream| {
        let parts: Vec<&str> = request.target[1..].split('/').collect();
        let (mode, channel, user) = (parts[0], parts[1], parts[2]);
        if mode == "ws" {
            let mut events = b"OPEN\r\n".to_vec();
            for message in [
                format!(r#"c:{{"type":"set-meta","name":"user","value":"{user}"}}"#),
                format!(r#"c:{{"type":"subscribe","channel":"{channel}"}}"#),
            ] {
                events.extend(format!("TEXT {:X}\r\n{message}\r\n", message.len()).as_bytes());
            }
            let headers = "Content-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n";
            return respond(stream, "200 OK", headers, &events);
        }
        let meta = if user.is_empty() { String::new() } else { format!("Grip-Set-Meta: user={user}\r\n") };
        respond(stream, "200 OK", &format!("Grip-Hold: {mode}\r\nGrip-Channel: {channel}\r\n{meta}"), b"")
    })
}

#[test]
fn publishers_hear_which_users_are_subscribed_whichever_handler_has_them() {
    let origin = users();
    let routes = format!("*,path_beg=/ws 127.0.0.1:{0},over_http\n* 127.0.0.1:{0}", origin.port);
    let mut suite = Suite::prepare(&routes, "[runner]\nrecover_wait=10\n");
    suite.launch();
    let targets =
        ["/stream/a/bob", "/stream/a/bob", "/response/a/bob", "/stream/a/eve", "/stream/a/", "/stream/b/mallory"];
    let mut held: Vec<Client> = targets
        .iter()
        .map(|target| {
            let mut client = Client::connect(suite.port).unwrap();
            client.get(target).unwrap();
            client
        })
        .collect();
    let mut socket = Client::connect(suite.port).unwrap();
    let upgrade = "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.send(format!("GET /ws/a/zoe HTTP/1.1\r\n{upgrade}").as_bytes()).unwrap();
    held.push(socket);
    let ask = |target: &str| client::get(suite.publish_port, target).map(|answer| answer.text()).unwrap_or_default();
    let counts = |[response, stream, ws]: [usize; 3]| {
        format!(r#"{{"http-response":{response},"http-stream":{stream},"ws-message":{ws}}}"#)
    };
    let user = |name: &str, each| format!(r#"{{"subscribers":{},"user":"{name}"}}"#, counts(each));
    let (bob, eve, zoe) = (user("bob", [1, 2, 0]), user("eve", [0, 1, 0]), user("zoe", [0, 0, 1]));
    let head = format!(r#"{{"channel":"a","subscribers":{}"#, counts([1, 4, 1]));
    let all = format!("{head},\"users\":[{bob},{eve},{zoe}]}}\n");
    until("all are told", || ask("/channels/a?users=true") == all);
    let first = format!(r#"{{"channel":"a","next":"eve","subscribers":{},"users":[{bob},{eve}]}}"#, counts([1, 4, 1]));
    assert_eq!(ask("/channels/a?users=true&limit=2"), first + "\n");
    assert_eq!(ask("/channels/a?users=true&limit=2&after=eve"), format!("{head},\"users\":[{zoe}]}}\n"));
    assert_eq!(ask("/channels/a"), format!("{head}}}\n"));
    for wrong in ["limit=2", "users=yes", "users=true&limit=0", "users=true&prefix=a"] {
        let answer = client::get(suite.publish_port, &format!("/channels/a?{wrong}")).unwrap();
        assert_eq!(answer.head.status, 400, "{wrong}");
    }
    // A handler's successor knows them as well, and who has left is not told of any more.
    suite.kill("handler");
    until("all are told again", || ask("/channels/a?users=true") == all);
    held.remove(3);
    let rest = format!(r#"{{"channel":"a","subscribers":{},"users":[{bob},{zoe}]}}"#, counts([1, 3, 1]));
    until("one has left", || ask("/channels/a?users=true") == rest.clone() + "\n");
}

#[test]
fn with_a_key_only_tokens_publish_and_only_to_their_channels() {
    let origin = origin();
    let mut suite =
        Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), "[handler]\ncontrol_key=secret\ncontrol_token=plain");
    suite.launch();
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/poll").unwrap();
    until("the long-poll is held", || suite.logs().contains("channel=c\n"));
    let spec = format!("http://127.0.0.1:{}", suite.publish_port);
    let publish_with =
        |options: &[&str], text: &str| run("pushpin-publish", &[options, &["--spec", &spec, "c", text]].concat());
    for (options, said) in [
        (&[][..], "Unauthorized: send a token"),
        (&["--bearer", "guess"], "Unauthorized: the token is not known"),
        (&["--user", "a:plain"], "Unauthorized: send a token"),
        (&["--bearer", EXPIRED], "Unauthorized: the token has run out."),
        (&["--bearer", ELSEWHERE], "Forbidden: the token does not allow the channel `c`."),
    ] {
        let output = publish_with(options, "evil");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(said), "{options:?}: {errors}");
    }
    let as_libraries_have_it = |query: &str| {
        let mut command = std::process::Command::new(program("pushpin-publish"));
        command.args(["--no-eol", "c", "good"]).env("GRIP_URL", format!("{spec}/?{query}")).status().unwrap().success()
    };
    assert!(!as_libraries_have_it("iss=x&key=guess"));
    assert!(as_libraries_have_it("iss=x&key=base64:c2VjcmV0"));
    assert_eq!(client.response().unwrap().text(), "good");
    client.get("/poll").unwrap();
    until("the next one is held", || suite.logs().matches("channel=c\n").count() == 2);
    let output = publish_with(&["--bearer", "plain"], "good");
    assert!(output.status.success(), "{output:?}");
    // Nothing else came before it.
    assert_eq!(client.response().unwrap().text(), "good\n");
    let warned = |text: &str| suite.logs().contains(&format!("a request to publish is refused: {text}"));
    until("the first refusal is logged", || warned("Unauthorized: send a token"));
}

/// `{"exp":1}`, signed by HS256 with the key `secret`.
const EXPIRED: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.DXa4jt7yc6ZNlk5EVyJ4qx6AboA20T_YWUOxQzgr4ko";
/// `{"exp":4102444800,"channels":["other"]}`, signed likewise.
const ELSEWHERE: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsImNoYW5uZWxzIjpbIm90aGVyIl19.g1XpexjQ2WPShUZDJNwb0M1tb1ntRy_T8ZgW7ILyE5k";
