//! Responses that the proxy gives itself (proxy, complete list of proxy-generated answers).

/// A short plain-text response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub code: u16,
    /// Status text.
    pub reason: &'static str,
    /// Text; a line end is added when it is sent.
    pub text: String,
}

impl Answer {
    fn new(code: u16, reason: &'static str, text: impl Into<String>) -> Self {
        Answer { code, reason, text: text.into() }
    }

    /// No route matches.
    pub fn no_route() -> Self {
        Answer::new(502, "Bad Gateway", "Route not found")
    }

    /// The backend failed; `detail` is shown where debugging is on.
    pub fn origin_failed(debug: bool, detail: impl FnOnce() -> String) -> Self {
        let text = if debug { detail() } else { "Error while proxying to origin.".to_string() };
        Answer::new(502, "Bad Gateway", text)
    }

    /// The backend failed in a way that has no detail to show.
    pub fn origin_error() -> Self {
        Answer::origin_failed(false, String::new)
    }

    /// The outbound process wants a length.
    pub fn length_required() -> Self {
        Answer::new(411, "Length Required", "Must provide Content-Length header.")
    }

    /// A hold was asked for a request whose body is too large to be repeated.
    pub fn too_large_to_hold() -> Self {
        Answer::new(400, "Bad Request", "Request too large to accept GRIP instruct.")
    }

    /// The handler wants the request without a backend, and its body is too large.
    pub fn body_too_large() -> Self {
        Answer::new(
            413,
            "Request Entity Too Large",
            format!("Body must not exceed {} bytes", crate::body::upload::KEEP),
        )
    }

    /// The handler is absent, silent, or did not know what to do.
    pub fn accept_unavailable() -> Self {
        Answer::new(500, "Internal Server Error", "Accept service unavailable.")
    }

    /// A client posts what only a proxy may post.
    pub fn no_websocket_events() -> Self {
        Answer::new(403, "Forbidden", "Client not allowed to send WebSocket events directly.")
    }

    /// The request has passed here before (RFC 8586).
    pub fn looped() -> Self {
        Answer::new(508, "Loop Detected", "The request has come back: CDN-Loop names this proxy already.")
    }

    /// WebSockets are not spoken yet.
    pub fn no_websocket() -> Self {
        Answer::new(501, "Not Implemented", "WebSocket is not supported.")
    }

    /// What `Pushpin-Check` asks for.
    pub fn notice() -> Self {
        let text = concat!(
            "pushpin-proxy ",
            env!("CARGO_PKG_VERSION"),
            ", a realtime reverse proxy compatible with Pushpin. Licence: AGPL-3.0-or-later."
        );
        Answer::new(200, "OK", text)
    }
}
