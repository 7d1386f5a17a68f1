// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every option, by what a server of HTTP gets and by what a ZeroMQ PULL socket gets.
#![allow(missing_docs)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

const PUBLISHED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nPublished\n";

fn run(arguments: &[&str], input: &[u8], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushpin-publish"));
    command.args(arguments).env_remove("GRIP_URL").envs(environment.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that does not want it may be gone.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Reads a request, answers it, and gives its head and its body.
fn serve(stream: &mut (impl Read + Write), answer: &str) -> (String, String) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap();
    let length = head.split("Content-Length: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    stream.write_all(answer.as_bytes()).unwrap();
    stream.flush().unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// Runs it with these arguments in front of a server that answers so.
fn over_http(arguments: &[&str], input: &[u8], answer: &'static str) -> (Output, String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = format!("--spec=http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let server = thread::spawn(move || serve(&mut listener.accept().unwrap().0, answer));
    let output = run(&[&[&*spec], arguments].concat(), input, &[]);
    let (head, body) = server.join().unwrap();
    (output, head, body)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn each_option_has_its_place_in_the_item_over_http_and_zeromq() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        format!("@{}", path.display())
    };
    let (words, binary) = (write("words", b"from file"), write("binary", &[0xff, 0]));
    let formats = |response: &str, stream: &str, message: &str| {
        format!(r#""formats":{{"http-response":{{{response}}},"http-stream":{{{stream}}},"ws-message":{{{message}}}}}"#)
    };
    let plain = |content: &str, end: &str, code: u16| {
        formats(
            &format!(r#""body":"{content}{end}","code":{code}"#),
            &format!(r#""content":"{content}{end}""#),
            &format!(r#""content":"{content}""#),
        )
    };
    let hello = plain("hello", "\\n", 200);
    let hint = r#""action":"hint""#;
    let table: Vec<(Vec<&str>, &[u8], String)> = vec![
        (vec!["c", "hello"], b"", format!(r#"{{"channel":"c",{hello}}}"#)),
        (vec!["--no-eol", "c", "hello"], b"", format!(r#"{{"channel":"c",{}}}"#, plain("hello", "", 200))),
        (vec!["--code", "404", "c", "hello"], b"", format!(r#"{{"channel":"c",{}}}"#, plain("hello", "\\n", 404))),
        (vec!["--id", "2", "c", "hello"], b"", format!(r#"{{"channel":"c",{hello},"id":"2"}}"#)),
        (vec!["--id", "", "--prev-id", "", "c", "hello"], b"", format!(r#"{{"channel":"c",{hello}}}"#)),
        (
            vec!["--id", "2", "--prev-id", "1", "c", "hello"],
            b"",
            format!(r#"{{"channel":"c",{hello},"id":"2","prev-id":"1"}}"#),
        ),
        (
            vec!["--sender", "bob", "-M", "a=b=c", "--meta", "d=", "c", "hello"],
            b"",
            format!(r#"{{"channel":"c",{hello},"meta":{{"a":"b=c","d":"","sender":"bob"}}}}"#),
        ),
        (vec!["--no-seq", "c", "hello"], b"", format!(r#"{{"channel":"c",{hello},"no-seq":true}}"#)),
        (
            vec!["-H", "A: 1", "--header", "B:2: 3", "c", "hello"],
            b"",
            format!(
                r#"{{"channel":"c",{}}}"#,
                formats(
                    r#""body":"hello\n","code":200,"headers":[["A","1"],["B","2: 3"]]"#,
                    r#""content":"hello\n""#,
                    r#""content":"hello""#
                )
            ),
        ),
        (vec!["--hint", "c"], b"", format!(r#"{{"channel":"c",{}}}"#, formats(hint, hint, hint))),
        (
            vec!["--close", "c"],
            b"",
            r#"{"channel":"c","formats":{"http-stream":{"action":"close"},"ws-message":{"action":"close"}}}"#.into(),
        ),
        (
            vec!["--patch", "c", r#"[{"op":"test","path":"/a","value":1.5}]"#],
            b"",
            r#"{"channel":"c","formats":{"http-response":{"body-patch":[{"op":"test","path":"/a","value":1.5}],"code":200}}}"#
                .into(),
        ),
        (vec!["c", &words], b"", format!(r#"{{"channel":"c",{}}}"#, plain("from file", "", 200))),
        (vec!["c", "@-"], b"from\nelsewhere", format!(r#"{{"channel":"c",{}}}"#, plain("from\\nelsewhere", "", 200))),
        (vec!["c", "--", "-x"], b"", format!(r#"{{"channel":"c",{}}}"#, plain("-x", "\\n", 200))),
        (
            vec!["c", &binary],
            b"",
            format!(
                r#"{{"channel":"c",{}}}"#,
                formats(r#""body-bin":"/wA=","code":200"#, r#""content-bin":"/wA=""#, r#""content-bin":"/wA=""#)
            ),
        ),
    ];
    let pull = zmq::Context::new().socket(zmq::PULL).unwrap();
    pull.set_rcvtimeo(20_000).unwrap();
    pull.bind("tcp://127.0.0.1:*").unwrap();
    let spec = pull.get_last_endpoint().unwrap().unwrap();
    for (arguments, input, item) in table {
        let (output, head, body) = over_http(&arguments, input, PUBLISHED);
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            ("Published\n".into(), String::new()),
            "{arguments:?}"
        );
        assert!(output.status.success(), "{arguments:?}");
        assert!(head.starts_with("POST /publish/ HTTP/1.0\r\nHost: 127.0.0.1:"), "{head}");
        assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
        let sent: serde_json::Value = serde_json::from_str(&body).unwrap();
        let item: serde_json::Value = serde_json::from_str(&item).unwrap();
        assert_eq!(sent["items"][0], item, "{arguments:?}");

        let output = run(&[&["--spec", &spec], &*arguments].concat(), input, &[]);
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            ("Published\n".into(), String::new()),
            "{arguments:?}"
        );
        let pulled = grip::item::from_message(&pull.recv_bytes(0).unwrap(), None).unwrap();
        let posted = grip::item::from_request(body.as_bytes()).unwrap().items.remove(0);
        assert_eq!(pulled, posted, "{arguments:?}");
    }
}

#[test]
fn what_is_wrong_is_told_before_anything_is_sent() {
    // Port 1 is reserved and nothing listens there.
    let http = "--spec=http://127.0.0.1:1";
    let table: &[(&[&str], i32, &str)] = &[
        (&[http, "c"], 1, "Error: must specify content\n"),
        (&[http, "-H", "bad", "c", "x"], 1, "Error: header must be in the form \"name: value\"\n"),
        (&[http, "-M", "bad", "c", "x"], 1, "Error: meta must be in the form \"name=value\"\n"),
        (&[http, "--patch", "c", "{}"], 1, "Error: patch content must be a JSON array\n"),
        (
            &[http, "--patch", "c", "x"],
            1,
            "Error: patch content must be a JSON array: expected value at line 1 column 1\n",
        ),
        (&[http, "c", "@/nowhere/x"], 1, "Error: can't read file /nowhere/x: No such file or directory (os error 2)\n"),
        (&[http, "-u", "a:b", "-B", "t", "c", "x"], 1, "Error: only one authentication method can be specified\n"),
        (
            &["--spec=http://example.com:1", "-u", "a:b", "c", "x"],
            1,
            "Error: Authentication requires https, except on this machine (localhost)\n",
        ),
        (&[http, "-B", "a\r\nX: y", "c", "x"], 1, "Error: what is to authenticate must not have control characters\n"),
        (&["--spec=tcp://127.0.0.1:1", "-B", "t", "c", "x"], 1, "Error: Authentication requires https\n"),
        (
            &["--spec=tcp://127.0.0.1:1", "--report", "c", "x"],
            1,
            "Error: --report requires http: nobody answers over ZeroMQ\n",
        ),
        (&["--spec=http://", "c", "x"], 1, "Error: `http://` is not an address: it names no host\n"),
        (&[http, "c", "x"], 1, "Error: Connection refused (os error 111)\n"),
        (&["--spec=https://127.0.0.1:1", "c", "x"], 1, "Error: Connection refused (os error 111)\n"),
        (&[http, "--code", "1000", "c", "x"], 2, ""),
        (&[http, "--code", "x", "c", "x"], 2, ""),
        (&[http, "c", "x", "y"], 2, ""),
        (&["--nonsense", "c", "x"], 2, ""),
        (&[], 2, ""),
    ];
    for (arguments, code, error) in table {
        let output = run(arguments, b"", &[]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(*code), String::new()), "{arguments:?}");
        let told = text(&output.stderr);
        // What is wrong with the command line itself is told by its parser.
        assert!(told == *error || (error.is_empty() && told.starts_with("error: ")), "{arguments:?}: {told}");
    }
}

#[test]
fn what_the_server_says_is_the_error() {
    for (answer, error) in [
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 17\r\n\r\n Invalid format. ", "Error: Invalid format.\n"),
        ("HTTP/1.0 503 Busy\r\n\r\nToo busy.\n", "Error: Too busy.\n"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "Error: the server answered with the status 204\n"),
        ("", "Error: the connection was closed without an answer\n"),
        ("SSH-2.0\r\n\r\n", "Error: the answer is no HTTP: invalid HTTP version\n"),
    ] {
        let (output, ..) = over_http(&["c", "x"], b"", answer);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), error.to_string()));
    }
}

#[test]
fn a_report_is_asked_for_and_shown() {
    let answer = "HTTP/1.1 200 OK\r\n\r\n{\"message\":\"Published\",\"items\":[{\"channel\":\"c\",\"result\":\"published\",\
                  \"receivers\":{\"http-response\":0,\"http-stream\":2,\"ws-message\":1}}]}";
    let (output, _, body) = over_http(&["--report", "c", "x"], b"", answer);
    assert!(body.contains(r#""report":true"#), "{body}");
    assert_eq!(text(&output.stdout), "Published\npublished http-response=0 http-stream=2 ws-message=1\n");
    let (output, ..) = over_http(&["--report", "c", "x"], b"", PUBLISHED);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "Published\n(this server makes no reports)\n");
}

#[test]
fn who_publishes_is_told_to_this_machine() {
    for (option, value, header) in [
        ("-u", "bob:secret", "Basic Ym9iOnNlY3JldA=="),
        ("--user", "bob:", "Basic Ym9iOg=="),
        ("-B", "t", "Bearer t"),
        ("--bearer", "t", "Bearer t"),
    ] {
        let (output, head, _) = over_http(&[option, value, "c", "x"], b"", PUBLISHED);
        assert!(output.status.success());
        assert!(head.contains(&format!("\r\nAuthorization: {header}\r\n")), "{head}");
    }
}

#[test]
fn the_environment_says_where_if_nothing_else_does() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/realm?iss=x&key=y", listener.local_addr().unwrap().port());
    let server = thread::spawn(move || serve(&mut listener.accept().unwrap().0, PUBLISHED));
    assert!(run(&["c", "x"], b"", &[("GRIP_URL", &url)]).status.success());
    let head = server.join().unwrap().0;
    assert!(head.starts_with("POST /realm/publish/ HTTP/1.0\r\n"));
    assert!(head.contains("\r\nAuthorization: Bearer ey"), "{head}");
}

#[test]
fn https_is_spoken_with_servers_that_the_system_trusts_only() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let trusted = directory.path().join("roots.pem");
    std::fs::write(&trusted, pair.cert.pem()).unwrap();
    let other = directory.path().join("others.pem");
    std::fs::write(&other, rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap().cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key).unwrap());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = format!("--spec=https://localhost:{}", listener.local_addr().unwrap().port());
    let accept = || {
        let (listener, config) = (listener.try_clone().unwrap(), config.clone());
        thread::spawn(move || {
            let connection = rustls::ServerConnection::new(config).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, listener.accept().unwrap().0);
            // Nobody comes so far who does not trust us.
            stream.conn.complete_io(&mut stream.sock).ok().map(|_| serve(&mut stream, PUBLISHED))
        })
    };
    let server = accept();
    let output = run(&[&spec, "-u", "bob:secret", "c", "x"], b"", &[("SSL_CERT_FILE", trusted.to_str().unwrap())]);
    assert_eq!((text(&output.stderr), text(&output.stdout)), (String::new(), "Published\n".into()));
    let (head, _) = server.join().unwrap().unwrap();
    assert!(head.contains("\r\nAuthorization: Basic Ym9iOnNlY3JldA==\r\n"), "{head}");

    let server = accept();
    let output = run(&[&spec, "-u", "bob:secret", "c", "x"], b"", &[("SSL_CERT_FILE", other.to_str().unwrap())]);
    assert!(!output.status.success() && text(&output.stderr).contains("certificate"), "{}", text(&output.stderr));
    assert!(server.join().unwrap().is_none(), "the password was told to somebody else");
}
