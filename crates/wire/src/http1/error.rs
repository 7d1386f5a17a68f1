// SPDX-License-Identifier: AGPL-3.0-or-later
//! What can be wrong with a message that was read.

/// Why a head was refused.
///
/// The text is the short reason that clients of Pushpin see after `Failed to parse request: `; the whole line is
/// [`HeadError::page_text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A byte that is not allowed in the method, the target, or the form of the target.
    #[error("invalid token")]
    Token,
    /// Neither `HTTP/1.0` nor `HTTP/1.1`.
    #[error("invalid HTTP version")]
    Version,
    /// The status line of a response is not a status line.
    #[error("invalid response status")]
    Status,
    /// Not a token directly followed by a colon; a folded line is seen as this, too.
    #[error("invalid header name")]
    HeaderName,
    /// A control byte in a value.
    #[error("invalid header value")]
    HeaderValue,
    /// A carriage return without line feed.
    #[error("invalid new line")]
    NewLine,
    /// More header fields than [`Limits::headers`](super::Limits::headers).
    #[error("too many headers")]
    TooManyHeaders,
    /// `Content-Length` is not one decimal number below 2^63, or there are several that differ.
    #[error("invalid content length")]
    ContentLength,
    /// `Transfer-Encoding` is anything but one `chunked`, or stands in a message of HTTP/1.0.
    #[error("unsupported transfer encoding")]
    TransferEncoding,
    /// Both `Content-Length` and `Transfer-Encoding`: two readers may disagree about where the message ends.
    #[error("both content length and transfer encoding")]
    AmbiguousLength,
    /// `Host`, or the authority of the target, is not `host[:port]`, or there are several `Host` fields that differ.
    #[error("invalid host")]
    Host,
    /// The method is `CONNECT`.
    #[error("CONNECT is not supported")]
    Connect,
    /// The head does not end within [`Limits::head_bytes`](super::Limits::head_bytes).
    #[error("header size exceeded limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

impl HeadError {
    /// The status code a server answers with. All but a method that no resource here has are the client's fault.
    pub fn status(&self) -> u16 {
        if *self == HeadError::Connect { 501 } else { 400 }
    }

    /// The text of the error page for a client whose request was refused, with line end.
    pub fn page_text(&self) -> String {
        match self {
            HeadError::TooLarge { limit } => format!("Request header size exceeded limit of {limit} bytes.\n"),
            reason => format!("Failed to parse request: {reason}\n"),
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => HeadError::HeaderName,
            httparse::Error::HeaderValue => HeadError::HeaderValue,
            httparse::Error::NewLine => HeadError::NewLine,
            httparse::Error::Status => HeadError::Status,
            httparse::Error::Token => HeadError::Token,
            httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
            httparse::Error::Version => HeadError::Version,
        }
    }
}

/// Why a body was refused. The connection cannot be used any further: nobody knows where the message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The line before a chunk is not a hexadecimal number, an optional extension, and CR LF.
    #[error("invalid chunk size")]
    ChunkSize,
    /// A chunk of more than 2^60 bytes.
    #[error("chunk too large")]
    ChunkTooLarge,
    /// A chunk's payload is not followed by CR LF.
    #[error("invalid chunk suffix")]
    ChunkSuffix,
    /// The extensions of one chunk are longer than the decoder has patience for.
    #[error("chunk extension too long")]
    ExtensionTooLong,
    /// The trailer section has a control byte, or a line that does not end with CR LF.
    #[error("invalid trailer")]
    Trailer,
    /// The trailer section is longer than the decoder has patience for.
    #[error("trailer too long")]
    TrailerTooLong,
    /// The peer closed before the end of the body.
    #[error("connection closed before the end of the body")]
    Truncated,
}

impl BodyError {
    /// The status code a server answers with, if it has not answered yet.
    pub fn status(&self) -> u16 {
        400
    }

    /// The text of the error page for a client whose request body was refused, with line end.
    pub fn page_text(&self) -> String {
        format!("Failed to parse request: {self}\n")
    }
}
