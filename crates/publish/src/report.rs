// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a server tells of a message that it was asked about.

use serde_json::Value;

/// In one line: what has become of it, and the receivers by format.
pub fn summary(answer: &str) -> String {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let item = &answer["items"][0];
    let Some(result) = item["result"].as_str() else { return "(this server makes no reports)".into() };
    let receivers = item["receivers"].as_object().into_iter().flatten();
    let numbers = receivers.filter_map(|(format, count)| Some(format!(" {format}={}", count.as_u64()?)));
    std::iter::once(result.to_string()).chain(numbers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_line() {
        for (answer, line) in [
            (
                r#"{"items":[{"result":"published","receivers":{"http-response":1,"http-stream":2,"ws-message":0}}]}"#,
                "published http-response=1 http-stream=2 ws-message=0",
            ),
            (r#"{"items":[{"result":"repeated"}]}"#, "repeated"),
            ("Published\n", "(this server makes no reports)"),
            (r#"{"items":"x"}"#, "(this server makes no reports)"),
        ] {
            assert_eq!(summary(answer), line);
        }
    }
}
