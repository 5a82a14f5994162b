//! A suggestion as YAML that `kubectl apply -f -` takes, its explanation as comments.

use std::fmt;

use super::{Advice, NewlyAllowed, Suggestion};
use crate::yaml;

/// How many newly allowed tuples are printed one by one.
const SHOWN: usize = 12;

impl fmt::Display for NewlyAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "peer {}, pod {}, port {}/{}",
            self.peer, self.pod, self.port, self.protocol
        )
    }
}

impl Advice {
    /// Every suggestion as one stream of YAML documents; empty where there is none.
    pub fn to_yaml(&self) -> String {
        let documents: Vec<String> = self.suggestions.iter().map(Suggestion::to_yaml).collect();
        documents.join("---\n")
    }
}

impl Suggestion {
    /// The object as one YAML document that ends in a newline, without a `---` line.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        for flow in self.flows.iter().take(SHOWN) {
            comment(&mut out, "", &format!("Lets through: {flow}"));
        }
        if self.flows.len() > SHOWN {
            comment(
                &mut out,
                "",
                &format!("and {} more flows", self.flows.len() - SHOWN),
            );
        }
        comment(
            &mut out,
            "",
            "Proven: allowed with it, denied without each of its peers and ports.",
        );
        let count = self.newly_allowed.len();
        comment(&mut out, "", &format!("Newly allowed in all, {count}:"));
        for tuple in self.newly_allowed.iter().take(SHOWN) {
            comment(&mut out, "", &format!("  {tuple}"));
        }
        if count > SHOWN {
            comment(&mut out, "", &format!("  and {} more", count - SHOWN));
        }
        for note in &self.notes {
            comment(&mut out, "", &format!("Note: {note}"));
        }
        let value = serde_json::to_value(&self.policy).unwrap_or_default();
        let mut next_rule = 0;
        for line in yaml::block(&value, "") {
            let rule = format!("spec.{}[{next_rule}]", self.direction.as_str());
            if line.is_within(&rule) {
                let indent = " ".repeat(line.text.len() - line.text.trim_start().len());
                if let Some(reason) = self.reasons.get(next_rule) {
                    comment(&mut out, &indent, reason);
                }
                next_rule += 1;
            }
            out.push_str(&line.text);
            out.push('\n');
        }
        out
    }
}

/// A comment line; whatever could end the line early is shown as a space.
pub(super) fn comment(out: &mut String, indent: &str, text: &str) {
    out.push_str(indent);
    out.push_str("# ");
    out.extend(text.chars().map(|c| {
        let breaks = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}');
        if breaks { ' ' } else { c }
    }));
    out.push('\n');
}
