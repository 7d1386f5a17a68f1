// SPDX-License-Identifier: AGPL-3.0-or-later
//! The grammar of a routes line: sections between spaces, properties between commas, quotes anywhere.

/// One word with its properties: the condition of a route, or one of its targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    /// What stands before the first comma.
    pub value: String,
    /// `name=value`, in the order of the line; a flag has an empty value.
    pub props: Vec<(String, String)>,
}

impl Section {
    /// The value of a property; of several the last one counts.
    pub fn prop(&self, name: &str) -> Option<&str> {
        self.props.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether a property is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.prop(name).is_some()
    }

    /// All values of a property that may be repeated, the last one first.
    pub fn each<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.props.iter().rev().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Splits a line. A line with nothing but a comment has no sections.
pub(crate) fn split(line: &str) -> Result<Vec<Section>, String> {
    let mut sections = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if_eq(&' ').is_some() {}
        match chars.peek() {
            None | Some('#') => return Ok(sections),
            Some(_) => sections.push(section(&mut chars)?),
        }
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn section(chars: &mut Chars<'_>) -> Result<Section, String> {
    let mut section = Section::default();
    let first = token(chars)?;
    if first.contains('=') {
        section.props.push(prop(&first)?);
    } else {
        section.value = first;
    }
    while chars.next_if_eq(&',').is_some() {
        let text = token(chars)?;
        if text.is_empty() {
            return Err("expecting prop".into());
        }
        section.props.push(prop(&text)?);
    }
    Ok(section)
}

fn prop(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err("empty prop name".into());
    }
    Ok((name.into(), value.into()))
}

/// Text up to an unquoted comma, space or `#`, without its quotes.
fn token(chars: &mut Chars<'_>) -> Result<String, String> {
    let mut text = String::new();
    while let Some(c) = chars.next_if(|c| !matches!(c, ',' | ' ' | '#')) {
        if c != '"' {
            text.push(c);
            continue;
        }
        loop {
            match chars.next().ok_or("unterminated quoted section")? {
                '"' => break,
                '\\' => match chars.next().ok_or("unterminated escape sequence")? {
                    c @ ('\\' | '"') => text.push(c),
                    c => return Err(format!("unexpected escape character: {c}")),
                },
                c => text.push(c),
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(line: &str) -> Vec<String> {
        split(line).unwrap().into_iter().map(|s| s.value).collect()
    }

    #[test]
    fn spaces_separate_and_tabs_do_not() {
        assert_eq!(values("  a   b\tc  "), ["a", "b\tc"]);
    }

    #[test]
    fn a_hash_ends_the_line_even_inside_a_word() {
        assert_eq!(values("foo#bar baz"), ["foo"]);
        assert_eq!(values("# x"), Vec::<String>::new());
    }

    #[test]
    fn quotes_protect_in_the_middle_of_a_word() {
        let sections = split(r##"*,from="a, b"c,x="q\"\\#" t"##).unwrap();
        assert_eq!(sections[0].prop("from"), Some("a, bc"));
        assert_eq!(sections[0].prop("x"), Some("q\"\\#"));
    }

    #[test]
    fn bad_escapes_are_named() {
        assert_eq!(split(r#""a\n""#), Err("unexpected escape character: n".into()));
        assert_eq!(split(r#""a\"#), Err("unterminated escape sequence".into()));
    }

    #[test]
    fn the_last_of_equal_properties_counts() {
        assert_eq!(split("*,a=1,a=2").unwrap()[0].prop("a"), Some("2"));
    }
}
