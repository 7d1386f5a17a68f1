// SPDX-License-Identifier: AGPL-3.0-or-later
//! HTTP/1.1 as clients and backend need it: takes what is whole off the beginning of what has come.

/// A request or a response without its body.
#[derive(Debug)]
pub struct Head {
    /// Its first line.
    pub line: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Takes one, if all of it is there.
    pub fn take(input: &mut Vec<u8>) -> Option<Self> {
        let end = input.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&input[..end]).into_owned();
        input.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_string();
        let headers = lines.filter_map(|line| line.split_once(':'));
        Some(Head {
            line,
            headers: headers.map(|(name, value)| (name.to_string(), value.trim().to_string())).collect(),
        })
    }

    /// Value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Of a response.
    pub fn status(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// Of a request.
    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// Whether the connection ends with it.
    pub fn closes(&self) -> bool {
        self.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn is_chunked(&self) -> bool {
        self.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }
}

/// Takes a chunk, if all of it is there. The last is empty.
pub fn take_chunk(input: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let Some(end) = input.windows(2).position(|bytes| bytes == b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&input[..end]).into_owned();
    let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16);
    let size = size.map_err(|_| format!("`{line}` is not the size of a chunk"))?;
    if input.len() < end + size + 4 {
        return Ok(None);
    }
    let chunk = input[end + 2..end + 2 + size].to_vec();
    input.drain(..end + size + 4);
    Ok(Some(chunk))
}

/// Takes a head with its whole body, if all is there. A body without length or chunks is empty.
pub fn take_message(input: &mut Vec<u8>) -> Result<Option<(Head, Vec<u8>)>, String> {
    let mut rest = input.clone();
    let Some(head) = Head::take(&mut rest) else { return Ok(None) };
    let mut body = Vec::new();
    if head.is_chunked() {
        loop {
            match take_chunk(&mut rest)? {
                None => return Ok(None),
                Some(chunk) if chunk.is_empty() => break,
                Some(chunk) => body.extend(chunk),
            }
        }
    } else {
        let length = head.header("Content-Length").and_then(|value| value.parse().ok()).unwrap_or(0);
        if rest.len() < length {
            return Ok(None);
        }
        body.extend(rest.drain(..length));
    }
    *input = rest;
    Ok(Some((head, body)))
}

/// A response with these header lines, each with its end.
pub fn response(headers: &str, body: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).bytes());
    out.extend(body);
}
