//! Just enough YAML to quote a policy's own words: flow style on one line, block style for documents.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

/// `value` in flow style: `{matchLabels: {app: web}}`.
pub(crate) fn flow(value: &impl Serialize) -> String {
    let mut out = String::new();
    // Only a map with keys that are not strings fails to serialise; API types have none.
    if let Ok(value) = serde_json::to_value(value) {
        write_flow(&mut out, &value);
    }
    out
}

fn write_flow(out: &mut String, value: &Value) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_flow(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                out.push_str(&scalar(key));
                out.push_str(": ");
                write_flow(out, item);
            }
            out.push('}');
        }
        Value::String(text) => out.push_str(&scalar(text)),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// `text` as a YAML string: plain where every reader takes it as that very string, else quoted.
pub(crate) fn scalar(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Cow::Owned(out)
}

/// Words YAML 1.1 takes for a boolean or a null.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// Conservative on purpose: letters, digits and `. _ - /` only, and nothing that YAML 1.1 or 1.2 could
/// take for a number, a date, a boolean or a null.
fn is_plain(text: &str) -> bool {
    let mut bytes = text.bytes();
    let starts_well = match bytes.next() {
        Some(b) if b.is_ascii_alphabetic() => true,
        // An address or a CIDR: digits and dots with at least two dots is never a number.
        Some(b) if b.is_ascii_digit() => text.bytes().filter(|b| *b == b'.').count() >= 2,
        _ => false,
    };
    starts_well
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_stay_strings() {
        for plain in ["web", "app.kubernetes.io/name", "10.42.0.1/32", "v1.2.3"] {
            assert_eq!(scalar(plain), plain);
        }
        for quoted in [
            "",
            "true",
            "No",
            "null",
            "1",
            "1.5",
            "0x1f",
            "1e3",
            "2024-01-01",
            "-a",
            "a: b",
            "a #b",
            "fd00::1/128",
            "*",
            "&a",
            "y",
            "~",
            "12e4567",
            "0b1",
            "1_000",
            ".5",
        ] {
            assert!(scalar(quoted).starts_with('"'), "{quoted}");
        }
        assert_eq!(scalar("a\"b\\c\n\u{1}"), r#""a\"b\\c\n\u0001""#);
    }

    #[test]
    fn flow_style() {
        let value = serde_json::json!({"b": ["x", 1, true], "a": {"k": "1"}, "e": {}});
        assert_eq!(flow(&value), r#"{a: {k: "1"}, b: [x, 1, true], e: {}}"#);
    }
}
