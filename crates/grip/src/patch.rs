// SPDX-License-Identifier: AGPL-3.0-or-later
//! Changes to a JSON document: a published response may be a change to each receiver's own (GRIP, body-patch).
//!
//! This is JSON Patch as publishers of this protocol know it, not as RFC 6902 has it: `add` overwrites an element of an
//! array instead of making room for it, and the pointer of the whole document is `/`.

use serde_json::{Map, Value};

/// How deep a changed document may be nested. It is the limit of the JSON parser, which copies and moves could otherwise
/// climb over step by step.
const MAX_DEPTH: usize = 128;
/// Values that the copies of one change may make, because a few copies of copies are more than any memory holds.
const MAX_COPIED: usize = 100_000;
/// Values that one change may look at or shift, because many small operations on one large value are more than anybody
/// waits for: about a tenth of a second.
const MAX_TOUCHED: usize = 10_000_000;

/// Why a document can not be changed. The client then gets an empty body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The base is no JSON object or array.
    #[error("failed to parse original response body as JSON")]
    Base,
    /// An operation is no object.
    #[error("invalid op")]
    NotObject,
    /// An operation lacks a member.
    #[error("op does not contain '{0}'")]
    Missing(&'static str),
    /// A member of an operation has the wrong type.
    #[error("op contains '{0}' with wrong type")]
    WrongType(&'static str),
    /// There is no such operation.
    #[error("unsupported op: {0}")]
    Unsupported(String),
    /// A pointer is not written as one.
    #[error("pointer must start with /")]
    Pointer,
    /// A pointer has an empty part.
    #[error("reference cannot be empty")]
    EmptyReference,
    /// A pointer leads through something that does not exist.
    #[error("cannot step into undefined reference: key={0}")]
    Undefined(String),
    /// A pointer leads through a value that has no parts.
    #[error("non-container value cannot have child reference")]
    NotContainer,
    /// A part of a pointer into an array is no number.
    #[error("index must be an integer")]
    Index,
    /// An array is not that long.
    #[error("index out of range")]
    Range,
    /// There is nothing where a pointer leads.
    #[error("location does not exist")]
    NoLocation,
    /// A value would become a part of itself.
    #[error("cannot move location into itself")]
    IntoItself,
    /// A test has failed.
    #[error("tested values are not equal")]
    NotEqual,
    /// The document would become too deep or too large.
    #[error("result is too deep or too large")]
    TooLarge,
    /// What is left is no object or array.
    #[error("result is neither an object nor an array")]
    Result,
}

/// Applies operations in order to `base`, and writes the result compactly, with the keys of objects sorted and with the
/// line end that `base` had.
///
/// # Errors
/// The base is no JSON object or array, or the first operation that does not apply.
pub fn apply(base: &[u8], operations: &[Value]) -> Result<Vec<u8>, PatchError> {
    let mut document = crate::json::parse(base).ok().filter(is_container).ok_or(PatchError::Base)?;
    let mut budget = Budget { copied: MAX_COPIED, touched: MAX_TOUCHED };
    for operation in operations {
        apply_one(&mut document, operation, &mut budget)?;
    }
    if !is_container(&document) {
        return Err(PatchError::Result);
    }
    normalise(&mut document);
    let mut out = document.to_string().into_bytes();
    match base {
        [.., b'\r', b'\n'] => out.extend_from_slice(b"\r\n"),
        [.., b'\n'] => out.push(b'\n'),
        _ => {}
    }
    Ok(out)
}

/// What one change may still cost.
struct Budget {
    copied: usize,
    touched: usize,
}

impl Budget {
    fn copy(&mut self, values: usize) -> Result<(), PatchError> {
        self.copied = self.copied.checked_sub(values).ok_or(PatchError::TooLarge)?;
        Ok(())
    }

    fn touch(&mut self, values: usize) -> Result<(), PatchError> {
        self.touched = self.touched.checked_sub(values).ok_or(PatchError::TooLarge)?;
        Ok(())
    }
}

fn is_container(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// Sorts keys, and writes whole numbers without a fraction.
fn normalise(value: &mut Value) {
    // Beyond this, not every whole number has a form of its own as a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|f| number.is_f64() && f.fract() == 0.0 && f.abs() < EXACT) {
                *number = (float as i64).into();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(normalise),
        Value::Object(entries) => {
            let mut sorted: Vec<(String, Value)> = std::mem::take(entries).into_iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            sorted.iter_mut().for_each(|(_, value)| normalise(value));
            *entries = Map::from_iter(sorted);
        }
        _ => {}
    }
}

fn apply_one(document: &mut Value, operation: &Value, budget: &mut Budget) -> Result<(), PatchError> {
    let operation = operation.as_object().ok_or(PatchError::NotObject)?;
    let text = |name| match operation.get(name) {
        None => Err(PatchError::Missing(name)),
        Some(value) => value.as_str().ok_or(PatchError::WrongType(name)),
    };
    let value = || operation.get("value").ok_or(PatchError::Missing("value"));
    let name = text("op")?;
    let path = parse_pointer(text("path")?)?;
    match name {
        "add" => set(document, &path, value()?.clone(), budget),
        "remove" => remove(document, &path, budget).map(drop),
        "replace" => {
            let value = value()?.clone();
            check_depth(&path, &value, budget)?;
            *find(document, &path)? = value;
            Ok(())
        }
        "move" => {
            let from = parse_pointer(text("from")?)?;
            if path.len() > from.len() && path.starts_with(&from) {
                return Err(PatchError::IntoItself);
            }
            if path == from {
                return find(document, &from).map(drop);
            }
            let value = remove(document, &from, budget)?;
            set(document, &path, value, budget)
        }
        "copy" => {
            let from = parse_pointer(text("from")?)?;
            let value = find(document, &from)?;
            budget.copy(count(value))?;
            let value = value.clone();
            set(document, &path, value, budget)
        }
        "test" => match equal(find(document, &path)?, value()?) {
            true => Ok(()),
            false => Err(PatchError::NotEqual),
        },
        other => Err(PatchError::Unsupported(other.to_string())),
    }
}

/// The parts of a pointer; none for the whole document.
fn parse_pointer(pointer: &str) -> Result<Vec<String>, PatchError> {
    let parts = pointer.strip_prefix('/').ok_or(PatchError::Pointer)?;
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let unescape = |part: &str| match part {
        "" => Err(PatchError::EmptyReference),
        part => Ok(part.replace("~1", "/").replace("~0", "~")),
    };
    parts.split('/').map(unescape).collect()
}

fn index(part: &str, length: usize) -> Result<usize, PatchError> {
    let index: i64 = part.parse().map_err(|_| PatchError::Index)?;
    usize::try_from(index).ok().filter(|index| *index < length).ok_or(PatchError::Range)
}

/// The value one step down.
fn step<'a>(value: &'a mut Value, part: &str, last: bool) -> Result<&'a mut Value, PatchError> {
    match value {
        Value::Object(entries) => entries.get_mut(part).ok_or_else(|| match last {
            true => PatchError::NoLocation,
            false => PatchError::Undefined(part.to_string()),
        }),
        Value::Array(values) => {
            let index = index(part, values.len())?;
            Ok(&mut values[index])
        }
        _ => Err(PatchError::NotContainer),
    }
}

/// The value that a pointer leads to.
fn find<'a>(document: &'a mut Value, path: &[String]) -> Result<&'a mut Value, PatchError> {
    let last = path.len().saturating_sub(1);
    path.iter().enumerate().try_fold(document, |value, (at, part)| step(value, part, at == last))
}

/// The value that holds the last part of a pointer, and that part.
fn parent<'a, 'p>(document: &'a mut Value, path: &'p [String]) -> Result<Option<(&'a mut Value, &'p str)>, PatchError> {
    let Some((last, above)) = path.split_last() else { return Ok(None) };
    let holder = above.iter().try_fold(document, |value, part| step(value, part, false))?;
    Ok(Some((holder, last)))
}

fn check_depth(path: &[String], value: &Value, budget: &mut Budget) -> Result<(), PatchError> {
    budget.touch(count(value))?;
    if path.len() + depth(value) > MAX_DEPTH { Err(PatchError::TooLarge) } else { Ok(()) }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(count).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn set(document: &mut Value, path: &[String], value: Value, budget: &mut Budget) -> Result<(), PatchError> {
    check_depth(path, &value, budget)?;
    match parent(document, path)? {
        None => *document = value,
        Some((Value::Object(entries), key)) => {
            entries.insert(key.to_string(), value);
        }
        Some((Value::Array(values), "-")) => values.push(value),
        Some((Value::Array(values), part)) => {
            let index = index(part, values.len())?;
            values[index] = value;
        }
        Some(_) => return Err(PatchError::NotContainer),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &[String], budget: &mut Budget) -> Result<Value, PatchError> {
    match parent(document, path)? {
        None => Ok(document.take()),
        Some((Value::Object(entries), key)) => entries.remove(key).ok_or(PatchError::NoLocation),
        Some((Value::Array(values), part)) => {
            let index = index(part, values.len())?;
            budget.touch(values.len() - index)?;
            Ok(values.remove(index))
        }
        Some(_) => Err(PatchError::NotContainer),
    }
}

/// Whether two values are equal; numbers are so however they are written.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match a.is_f64() || b.is_f64() {
            true => a.as_f64() == b.as_f64(),
            false => a == b,
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(base: &str, operations: Value) -> Result<String, String> {
        let Value::Array(operations) = operations else { panic!("operations are a list") };
        let out = apply(base.as_bytes(), &operations).map_err(|e| e.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn error(base: &str, operation: Value) -> String {
        patched(base, json!([operation])).unwrap_err()
    }

    #[test]
    fn operations_apply_in_order_and_the_line_end_stays() {
        let operations = json!([{"op":"add","path":"/a/-","value":3}, {"op":"replace","path":"/b","value":"y"}]);
        assert_eq!(patched("{\"b\":\"x\", \"a\":[1,2]}\n", operations).unwrap(), "{\"a\":[1,2,3],\"b\":\"y\"}\n");
        assert_eq!(patched("[1.0, 2.5, \"ü\"]\r\n", json!([])).unwrap(), "[1,2.5,\"ü\"]\r\n");
    }

    #[test]
    fn add_overwrites_an_element_of_an_array() {
        let operations = json!([{"op":"add","path":"/items/0","value":{"id":9}}]);
        let base = r#"{"items":[{"id":1}],"next":"x"}"#;
        assert_eq!(patched(base, operations).unwrap(), r#"{"items":[{"id":9}],"next":"x"}"#);
        assert_eq!(error("[1]", json!({"op":"add","path":"/1","value":2})), "index out of range");
    }

    #[test]
    fn a_slash_alone_is_the_whole_document() {
        assert_eq!(patched("{}", json!([{"op":"add","path":"/","value":[1]}])).unwrap(), "[1]");
        let text = error("{}", json!({"op":"add","path":"/","value":1}));
        assert_eq!(text, "result is neither an object nor an array");
    }

    #[test]
    fn values_are_moved_copied_and_removed() {
        assert_eq!(patched(r#"{"a":1}"#, json!([{"op":"move","from":"/a","path":"/b"}])).unwrap(), r#"{"b":1}"#);
        assert_eq!(patched(r#"{"a":1}"#, json!([{"op":"move","from":"/a","path":"/a"}])).unwrap(), r#"{"a":1}"#);
        assert_eq!(patched(r#"{"a":1}"#, json!([{"op":"copy","from":"/a","path":"/b"}])).unwrap(), r#"{"a":1,"b":1}"#);
        assert_eq!(patched("[1,2,3]", json!([{"op":"remove","path":"/1"}])).unwrap(), "[1,3]");
        let text = error(r#"{"a":{"b":1}}"#, json!({"op":"move","from":"/a","path":"/a/b"}));
        assert_eq!(text, "cannot move location into itself");
    }

    #[test]
    fn tests_look_deep_and_take_numbers_for_what_they_are() {
        let base = r#"{"a":[1,{"b":null}]}"#;
        let ok = |value: Value| patched(base, json!([{"op":"test","path":"/a","value":value}])).is_ok();
        assert!(ok(json!([1, {"b": null}])) && ok(json!([1.0, {"b": null}])));
        assert!(!ok(json!([1.9, {"b": null}])) && !ok(json!([4_294_967_297_u64, {"b": null}])));
        assert!(
            patched("[9007199254740993]", json!([{"op":"test","path":"/0","value":9_007_199_254_740_992_u64}]))
                .is_err()
        );
        assert!(!ok(json!([2, {"b": null}])) && !ok(json!([1])) && !ok(json!("x")));
    }

    #[test]
    fn escapes_in_pointers_stand_for_slash_and_tilde() {
        let operations = json!([{"op":"replace","path":"/a~1b~0c","value":2}]);
        assert_eq!(patched(r#"{"a/b~c":1}"#, operations).unwrap(), r#"{"a/b~c":2}"#);
    }

    #[test]
    fn each_mistake_has_its_text() {
        let base = r#"{"a":1,"l":[1]}"#;
        for (operation, text) in [
            (json!(1), "invalid op"),
            (json!({}), "op does not contain 'op'"),
            (json!({"op":1}), "op contains 'op' with wrong type"),
            (json!({"op":"add"}), "op does not contain 'path'"),
            (json!({"op":"add","path":"/a"}), "op does not contain 'value'"),
            (json!({"op":"copy","path":"/a"}), "op does not contain 'from'"),
            (json!({"op":"x","path":"/a"}), "unsupported op: x"),
            (json!({"op":"remove","path":""}), "pointer must start with /"),
            (json!({"op":"remove","path":"a"}), "pointer must start with /"),
            (json!({"op":"remove","path":"/a/"}), "reference cannot be empty"),
            (json!({"op":"remove","path":"/x"}), "location does not exist"),
            (json!({"op":"replace","path":"/x","value":1}), "location does not exist"),
            (json!({"op":"remove","path":"/x/y"}), "cannot step into undefined reference: key=x"),
            (json!({"op":"remove","path":"/a/y"}), "non-container value cannot have child reference"),
            (json!({"op":"remove","path":"/l/y"}), "index must be an integer"),
            (json!({"op":"remove","path":"/l/1"}), "index out of range"),
            (json!({"op":"remove","path":"/l/-1"}), "index out of range"),
            (json!({"op":"test","path":"/a","value":2}), "tested values are not equal"),
        ] {
            assert_eq!(error(base, operation.clone()), text, "{operation}");
        }
        assert_eq!(patched("nonsense", json!([])).unwrap_err(), "failed to parse original response body as JSON");
        assert_eq!(patched("1", json!([])).unwrap_err(), "failed to parse original response body as JSON");
    }

    #[test]
    fn copies_of_copies_come_to_an_end() {
        let copy = json!({"op":"copy","from":"/a","path":"/a/-"});
        assert_eq!(patched(r#"{"a":[]}"#, vec![copy; 1000].into()).unwrap_err(), "result is too deep or too large");
    }

    #[test]
    fn many_operations_on_a_large_value_come_to_an_end() {
        let large = format!(r#"{{"a":[{}0]}}"#, "0,".repeat(100_000));
        let there = json!({"op":"move","from":"/a","path":"/b"});
        let back = json!({"op":"move","from":"/b","path":"/a"});
        for operations in [vec![json!({"op":"remove","path":"/a/0"}); 1000], vec![vec![there, back]; 500].concat()] {
            assert!(patched(&large, operations[..20].to_vec().into()).is_ok());
            assert_eq!(patched(&large, operations.into()).unwrap_err(), "result is too deep or too large");
        }
    }

    #[test]
    fn a_document_does_not_become_deeper_than_can_be_read() {
        let operations: Vec<Value> =
            (1..200).map(|depth| json!({"op":"add","path":"/a".repeat(depth),"value":{}})).collect();
        assert!(patched("{}", operations[..100].to_vec().into()).is_ok());
        assert_eq!(patched("{}", operations.into()).unwrap_err(), "result is too deep or too large");
    }

    proptest! {
        #[test]
        fn arbitrary_pointers_never_panic(
            op in prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]),
            path in "[/a~01l-]{0,8}",
            from in "[/a~01l-]{0,8}",
        ) {
            let _ = patched(r#"{"a":{"l":[1,[2]]},"l":[]}"#, json!([{"op":op,"path":path,"from":from,"value":1}]));
        }
    }
}
