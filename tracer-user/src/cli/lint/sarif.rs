//! Findings as code hosts read them:
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use tracer_policy::lint::{RULES, Rule, Severity};

use super::Placed;

/// The log of one run.
pub(super) fn log(findings: &[Placed]) -> Value {
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "tracer",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": RULES.iter().copied().map(rule).collect::<Vec<_>>(),
            }},
            "results": findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

fn rule(rule: &Rule) -> Value {
    let seen = match rule.seen {
        "" => String::new(),
        seen => format!(" Seen: {seen}"),
    };
    json!({
        "id": rule.id,
        "shortDescription": {"text": rule.what},
        "fullDescription": {"text": rule.why},
        "help": {"text": format!("{}.{seen}", rule.fix)},
        "defaultConfiguration": {"level": level(rule.severity)},
    })
}

fn result(placed: &Placed) -> Value {
    let finding = &placed.finding;
    let mut result = json!({
        "ruleId": finding.rule.id,
        "level": level(finding.severity()),
        "message": {"text": format!("{}: {}. Fix: {}.", finding.policy, finding.message, finding.fix)},
    });
    if let Some(index) = RULES.iter().position(|rule| rule.id == finding.rule.id) {
        result["ruleIndex"] = index.into();
    }
    // Standard input is no file that anybody could open.
    let place = placed.place.as_ref();
    if let Some(place) = place.filter(|place| place.file != Path::new("-")) {
        let line = place.line.unwrap_or(1).max(1);
        result["locations"] = json!([{"physicalLocation": {
            "artifactLocation": {"uri": uri(&place.file)},
            "region": {"startLine": line},
        }}]);
    }
    result
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

/// A path as a URI reference (RFC 3986): whatever it does not allow in a path is escaped.
fn uri(path: &Path) -> String {
    let path = path.to_string_lossy();
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=@".contains(&byte);
        if plain {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}
