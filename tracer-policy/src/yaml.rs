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

/// A line of a document in block style, and which field it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The path of the innermost field or item the line begins: `spec.ingress[0].from`.
    pub(crate) path: String,
    /// The line, indented, without its end.
    pub(crate) text: String,
}

impl Line {
    /// Whether the line belongs to the field at `path`.
    pub(crate) fn is_within(&self, path: &str) -> bool {
        self.path
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

/// `value` in block style, as `kubectl` prints it but for the order of keys: what a reader looks for
/// first comes first.
pub(crate) fn block(value: &Value, path: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    write_block(&mut lines, value, path, 0, None);
    lines
}

/// The order in which known keys come; others follow by name.
const KEY_ORDER: [&str; 27] = [
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "spec",
    "ipBlock",
    "namespaceSelector",
    "podSelector",
    "policyTypes",
    "ingress",
    "egress",
    "from",
    "to",
    "ports",
    "protocol",
    "port",
    "endPort",
    "cidr",
    "except",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
    "values",
];

fn rank(key: &str) -> usize {
    KEY_ORDER
        .iter()
        .position(|known| *known == key)
        .unwrap_or(KEY_ORDER.len())
}

/// Writes `value` at `indent`; `dash` is the indent of a list item's dash that the first line starts with.
fn write_block(
    lines: &mut Vec<Line>,
    value: &Value,
    path: &str,
    indent: usize,
    dash: Option<usize>,
) {
    let mut first = dash;
    let mut lead = || match first.take() {
        Some(at) => format!("{}- ", " ".repeat(at)),
        None => " ".repeat(indent),
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_by_key(|key| (rank(key), *key));
            for key in keys {
                let item = &map[key.as_str()];
                let below = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                let head = format!("{}{}:", lead(), scalar(key));
                match item {
                    Value::Object(inner) if !inner.is_empty() => {
                        lines.push(Line {
                            path: below.clone(),
                            text: head,
                        });
                        write_block(lines, item, &below, indent + 2, None);
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        lines.push(Line {
                            path: below.clone(),
                            text: head,
                        });
                        write_block(lines, item, &below, indent, None);
                    }
                    leaf => {
                        let text = format!("{head} {}", flow(leaf));
                        lines.push(Line { path: below, text });
                    }
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                let below = format!("{path}[{i}]");
                write_block(lines, item, &below, indent + 2, Some(indent));
            }
        }
        leaf => lines.push(Line {
            path: path.to_owned(),
            text: format!("{}{}", lead(), flow(leaf)),
        }),
    }
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
        && (text.len() > 5 || !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)))
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
    fn block_style() {
        let value = serde_json::json!({
            "spec": {"egress": [{"ports": [{"port": 53}], "to": [{"podSelector": {}}]}], "podSelector": {}},
            "kind": "NetworkPolicy",
        });
        let lines = block(&value, "");
        let text: Vec<&str> = lines.iter().map(|l| l.text.as_str()).collect();
        assert_eq!(
            text,
            [
                "kind: NetworkPolicy",
                "spec:",
                "  podSelector: {}",
                "  egress:",
                "  - to:",
                "    - podSelector: {}",
                "    ports:",
                "    - port: 53",
            ]
        );
        assert_eq!(lines[4].path, "spec.egress[0].to");
        assert!(lines[5].is_within("spec.egress[0].to[0]"));
        assert!(!lines[5].is_within("spec.egress[0].t"));
    }

    #[test]
    fn flow_style() {
        let value = serde_json::json!({"b": ["x", 1, true], "a": {"k": "1"}, "e": {}});
        assert_eq!(flow(&value), r#"{a: {k: "1"}, b: [x, 1, true], e: {}}"#);
    }
}
