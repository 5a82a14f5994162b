//! Calico's selector language.
//!
//! `has(k)`, `k == 'v'`, `k != 'v'`, `k in {'a', 'b'}`, `k not in {..}`, `k contains 'v'`, `k starts with 'v'`,
//! `k ends with 'v'`, `all()`, `global()`, with `!`, `&&`, `||` and parentheses. What a label is not there for is
//! true for `!=` and `not in`, and false for the others.
//! <https://docs.tigera.io/calico/latest/reference/resources/networkpolicy#selectors>

use std::fmt;

/// Deepest nesting, so that no text can exhaust the stack.
const DEPTH: usize = 64;
/// Longest text, in bytes.
const LENGTH: usize = 64 << 10;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    All,
    /// What is in no namespace.
    Global,
    Has(String),
    Equals(String, String),
    Differs(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Contains(String, String),
    StartsWith(String, String),
    EndsWith(String, String),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

/// What is wrong with a selector, and where in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SelectorError {
    /// Bytes before it.
    at: usize,
    wanted: &'static str,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: expected {}", self.at + 1, self.wanted)
    }
}

impl Selector {
    /// Parses a text that is not empty.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > LENGTH {
            return Err(SelectorError {
                at: LENGTH,
                wanted: "a selector of 64 KiB at most",
            });
        }
        let mut parser = Parser { text, at: 0 };
        let parsed = parser.or(0)?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.error("&&, || or the end"));
        }
        Ok(parsed)
    }

    /// Whether it selects something with these labels; nothing that has a namespace is global.
    pub(crate) fn matches<'a>(&self, label: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::All => true,
            Self::Global => false,
            Self::Has(key) => label(key).is_some(),
            Self::Equals(key, value) => label(key) == Some(value),
            Self::Differs(key, value) => label(key) != Some(value),
            Self::In(key, values) => label(key).is_some_and(|own| values.iter().any(|v| v == own)),
            Self::NotIn(key, values) => {
                label(key).is_none_or(|own| values.iter().all(|v| v != own))
            }
            Self::Contains(key, part) => label(key).is_some_and(|own| own.contains(part)),
            Self::StartsWith(key, part) => label(key).is_some_and(|own| own.starts_with(part)),
            Self::EndsWith(key, part) => label(key).is_some_and(|own| own.ends_with(part)),
            Self::Not(inner) => !inner.matches(label),
            Self::And(parts) => parts.iter().all(|part| part.matches(label)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(label)),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn error(&self, wanted: &'static str) -> SelectorError {
        SelectorError {
            at: self.at,
            wanted,
        }
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes `token` after any space.
    fn take(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Takes words with any space between them.
    fn take_words(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        for word in words {
            let taken = self.take(word);
            let ends = !self
                .rest()
                .starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            if !taken || !ends {
                self.at = start;
                return false;
            }
        }
        true
    }

    fn or(&mut self, depth: usize) -> Result<Selector, SelectorError> {
        let mut parts = vec![self.and(depth)?];
        while self.take("||") {
            parts.push(self.and(depth)?);
        }
        Ok(joined(parts, Selector::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Selector, SelectorError> {
        let mut parts = vec![self.unary(depth)?];
        while self.take("&&") {
            parts.push(self.unary(depth)?);
        }
        Ok(joined(parts, Selector::And))
    }

    fn unary(&mut self, depth: usize) -> Result<Selector, SelectorError> {
        if depth > DEPTH {
            return Err(self.error("no more than 64 levels of nesting"));
        }
        if self.take("!") {
            return Ok(Selector::Not(Box::new(self.unary(depth + 1)?)));
        }
        if self.take("(") {
            let inner = self.or(depth + 1)?;
            return self.close(inner);
        }
        let start = self.at;
        let name = self.label()?;
        if self.take("(") {
            return match name.as_str() {
                "all" => self.close(Selector::All),
                "global" => self.close(Selector::Global),
                "has" => {
                    let key = self.label()?;
                    self.close(Selector::Has(key))
                }
                _ => {
                    self.at = start;
                    Err(self.error("all(), global() or has(label)"))
                }
            };
        }
        self.condition(name)
    }

    fn close(&mut self, inner: Selector) -> Result<Selector, SelectorError> {
        if self.take(")") {
            Ok(inner)
        } else {
            Err(self.error("`)`"))
        }
    }

    fn condition(&mut self, key: String) -> Result<Selector, SelectorError> {
        if self.take("==") {
            Ok(Selector::Equals(key, self.value()?))
        } else if self.take("!=") {
            Ok(Selector::Differs(key, self.value()?))
        } else if self.take_words(&["not", "in"]) {
            Ok(Selector::NotIn(key, self.values()?))
        } else if self.take_words(&["in"]) {
            Ok(Selector::In(key, self.values()?))
        } else if self.take_words(&["contains"]) {
            Ok(Selector::Contains(key, self.value()?))
        } else if self.take_words(&["starts", "with"]) {
            Ok(Selector::StartsWith(key, self.value()?))
        } else if self.take_words(&["ends", "with"]) {
            Ok(Selector::EndsWith(key, self.value()?))
        } else {
            Err(self.error("==, !=, in, not in, contains, starts with or ends with"))
        }
    }

    fn label(&mut self) -> Result<String, SelectorError> {
        self.space();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "_./-".contains(c)))
            .unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error("a label"));
        }
        let label = rest[..end].to_owned();
        self.at += end;
        Ok(label)
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        self.space();
        let rest = self.rest();
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let Some(quote) = quote else {
            return Err(self.error("a value in quotes"));
        };
        let Some(end) = rest[1..].find(quote) else {
            return Err(self.error("a value whose quote ends"));
        };
        let value = rest[1..=end].to_owned();
        self.at += end + 2;
        Ok(value)
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.take("{") {
            return Err(self.error("`{`"));
        }
        let mut values = Vec::new();
        if self.take("}") {
            return Ok(values);
        }
        loop {
            values.push(self.value()?);
            if self.take("}") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(self.error("`,` or `}`"));
            }
        }
    }
}

fn joined(mut parts: Vec<Selector>, join: fn(Vec<Selector>) -> Selector) -> Selector {
    match parts.len() {
        1 => parts.remove(0),
        _ => join(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(text: &str, labels: &[(&'static str, &'static str)]) -> bool {
        let get = |key: &str| labels.iter().find(|(own, _)| *own == key).map(|(_, v)| *v);
        Selector::parse(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .matches(&get)
    }

    #[test]
    fn every_operator_with_the_label_there_and_missing() {
        let web = [("app", "web-front")];
        for (text, there, missing) in [
            ("all()", true, true),
            ("global()", false, false),
            ("has(app)", true, false),
            ("!has(app)", false, true),
            ("app == 'web-front'", true, false),
            ("app == \"other\"", false, false),
            ("app != 'web-front'", false, true),
            ("app in {'a', 'web-front'}", true, false),
            ("app in { }", false, false),
            ("app not in {'a','b'}", true, true),
            ("app not in {'web-front'}", false, true),
            ("app contains 'b-f'", true, false),
            ("app starts with 'web'", true, false),
            ("app ends with 'web'", false, false),
            ("app ends  with 'front'", true, false),
        ] {
            assert_eq!(is(text, &web), there, "{text}");
            assert_eq!(is(text, &[]), missing, "{text}");
        }
    }

    #[test]
    fn and_binds_more_than_or_and_not_more_than_both() {
        let a = [("a", "1")];
        assert!(is("has(a) || has(b) && has(c)", &a));
        assert!(!is("(has(a) || has(b)) && has(c)", &a));
        assert!(is("!has(b) && has(a)", &a));
        assert!(!is("!(!has(b) && has(a))", &a));
        assert!(is("! ! has(a)", &a));
        assert!(is("k8s.io/x-y_z.w == 'v'", &[("k8s.io/x-y_z.w", "v")]));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, said) in [
            ("app = 'x'", "at character 5: expected ==, !=, in"),
            ("app == x", "at character 8: expected a value in quotes"),
            (
                "app == 'x",
                "at character 8: expected a value whose quote ends",
            ),
            ("has(app", "at character 8: expected `)`"),
            (
                "some(app)",
                "at character 1: expected all(), global() or has(label)",
            ),
            (
                "has(a) has(b)",
                "at character 8: expected &&, || or the end",
            ),
            ("a in ['x']", "at character 6: expected `{`"),
            ("&& has(a)", "at character 1: expected a label"),
            ("a in {'x' 'y'}", "at character 11: expected `,` or `}`"),
            ("", "at character 1: expected a label"),
        ] {
            let error = Selector::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }

    #[test]
    fn neither_depth_nor_length_exhausts_anything() {
        for text in [
            "!".repeat(100_000),
            "(".repeat(60_000),
            "has(a)&&".repeat(9_000),
        ] {
            assert!(Selector::parse(&text).is_err());
        }
        let wide = vec!["has(a)"; 7_000].join("||");
        assert!(is(&wide, &[("a", "")]));
    }
}
