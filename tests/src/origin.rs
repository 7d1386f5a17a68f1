// SPDX-License-Identifier: AGPL-3.0-or-later
//! A backend that does what a test tells it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use crate::PATIENCE;

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// In their order.
    pub headers: Vec<(String, String)>,
    /// Without chunk framing.
    pub body: Vec<u8>,
}

impl Request {
    /// Value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// A running backend.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub port: u16,
    received: Mutex<mpsc::Receiver<Request>>,
}

type Answer = dyn Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync;

impl Origin {
    /// Starts one that lets `answer` write the response to each request.
    pub fn start(answer: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, received) = mpsc::channel();
        let answer: Arc<Answer> = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, requests) = (answer.clone(), requests.clone());
                // The suite may close whenever it likes.
                thread::spawn(move || _ = serve(stream, &*answer, &requests));
            }
        });
        Self { port, received: Mutex::new(received) }
    }

    /// The next request that it answered.
    pub fn request(&self) -> Request {
        self.received.lock().unwrap().recv_timeout(PATIENCE).expect("a request at the backend")
    }
}

fn serve(stream: TcpStream, answer: &Answer, requests: &mpsc::Sender<Request>) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let result = answer(&request, &mut writer);
        // The test may not be interested.
        let _ = requests.send(request);
        result?;
    }
    Ok(())
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end().to_string())
}

fn skip_trailers(reader: &mut impl BufRead) -> io::Result<()> {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let line = read_line(reader)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut request = Request { method: method.into(), target: target.into(), ..Request::default() };
    while let Some((name, value)) = read_line(reader)?.split_once(':') {
        request.headers.push((name.into(), value.trim().into()));
    }
    if let Some(length) = request.header("Content-Length").and_then(|v| v.parse().ok()) {
        request.body = vec![0; length];
        reader.read_exact(&mut request.body)?;
    } else if request.header("Transfer-Encoding").is_some() {
        loop {
            let size = usize::from_str_radix(&read_line(reader)?, 16).map_err(io::Error::other)?;
            if size == 0 {
                skip_trailers(reader)?;
                break;
            }
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            request.body.extend_from_slice(&chunk[..size]);
        }
    }
    Ok(Some(request))
}

/// Writes a response with these header lines (each with its line end) and this body.
pub fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)
}
