//! What can be kept of an object that is not as the API says.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1 as networking;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracer_policy::{Cluster, CompileError, Decides, PolicyKind, Problem};

use super::kind::Kind;
use super::object::{FieldError, Object, Unknown, describe, full_name};

/// An object has more fields than this wrong: it is none of ours.
const MOST_ERRORS: usize = 64;

/// What of an object was lost.
pub(super) enum Lost {
    /// Verdicts hang on it.
    Decides(FieldError),
    /// No verdict does.
    Aside(FieldError),
}

/// Takes over what can be read of an object that failed with `error`, and has the cluster know what could not.
pub(super) fn salvage(
    kind: Kind,
    object: Value,
    error: FieldError,
    cluster: &mut Cluster,
) -> Vec<Lost> {
    match kind {
        Kind::NetworkPolicy => {
            let policy = rest_of_policy(&object);
            let what = CompileError {
                kind: PolicyKind::NetworkPolicy,
                policy: full_name(&object),
                field: error.field.clone(),
                problem: Problem::Unsupported(error.problem.clone()),
            };
            cluster.apply_unreadable_network_policy(&policy, what);
            vec![Lost::Decides(error)]
        }
        Kind::Namespace => {
            cluster.mark_unread_in(&describe(&object), &full_name(&object));
            vec![Lost::Decides(error)]
        }
        Kind::Pod | Kind::Node | Kind::Service | Kind::Endpoints | Kind::EndpointSlice => {
            without_the_wrong(kind, object, error, cluster)
        }
        _ => {
            let lost = if let Some(decides) = kind.decides() {
                cluster.mark_unread(&describe(&object), decides);
                Lost::Decides(error)
            } else {
                Lost::Aside(error)
            };
            vec![lost]
        }
    }
}

/// Name, selector and types of a policy: whom it isolates, whatever it lets through.
fn rest_of_policy(object: &Value) -> networking::NetworkPolicy {
    let mut policy = networking::NetworkPolicy::default();
    policy.metadata.name = part(&object["metadata"]["name"]);
    policy.metadata.namespace = part(&object["metadata"]["namespace"]);
    let spec = &object["spec"];
    let has_egress = !matches!(&spec["egress"], Value::Null)
        && spec["egress"]
            .as_array()
            .is_none_or(|rules| !rules.is_empty());
    // The API's default, said out loud, since the rules are not kept.
    let by_rules = if has_egress {
        &["Ingress", "Egress"][..]
    } else {
        &["Ingress"]
    };
    let types: Option<Vec<String>> = part(&spec["policyTypes"]);
    policy.spec = Some(networking::NetworkPolicySpec {
        pod_selector: part(&spec["podSelector"]),
        policy_types: Some(
            types
                .filter(|types| !types.is_empty())
                .unwrap_or_else(|| by_rules.iter().map(|&name| name.to_owned()).collect()),
        ),
        ..networking::NetworkPolicySpec::default()
    });
    policy
}

fn part<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

/// Leaves out field by field what is wrong. An object that lacks a field by which it decides whose an address
/// is, or who a pod is, counts as unread.
fn without_the_wrong(
    kind: Kind,
    mut object: Value,
    mut error: FieldError,
    cluster: &mut Cluster,
) -> Vec<Lost> {
    let name = describe(&object);
    let mut lost = Vec::new();
    for _ in 0..MOST_ERRORS {
        if decides(kind, &error.field) || !cut(&mut object, &error.field) {
            break;
        }
        lost.push(Lost::Aside(error));
        match Object::read(kind, &object, Unknown::Ignore) {
            Ok(object) => {
                // Of these kinds none fails here.
                if let Err(error) = object.apply(cluster) {
                    lost.push(Lost::Aside(error));
                }
                return lost;
            }
            Err(next) => error = next,
        }
    }
    match addresses(kind, &object) {
        Some(ips) => cluster.mark_unread_at(&name, ips),
        None => cluster.mark_unread(&name, Decides::Ends),
    }
    lost.push(Lost::Decides(error));
    lost
}

/// Whether verdicts hang on a field: what a pod is selected by, what its ports are called, and whose an address is.
fn decides(kind: Kind, field: &str) -> bool {
    // No flow goes to a port that is none, whatever it is called.
    let called = field.ends_with("].protocol") || field.ends_with("].name");
    let listed = field.ends_with("ontainers") || field.ends_with("].ports");
    if kind == Kind::Pod && ((called && field.contains(".ports[")) || listed) {
        return true;
    }
    let within = |known: &str| {
        field
            .strip_prefix(known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let fields: &[&str] = match kind {
        Kind::Pod => &[
            "metadata.labels",
            "metadata.name",
            "metadata.namespace",
            "spec.hostNetwork",
            "spec.nodeName",
            "status.hostIP",
            "status.hostIPs",
            "status.phase",
            "status.podIP",
            "status.podIPs",
        ],
        Kind::Node => &[
            "metadata.name",
            "spec.podCIDR",
            "spec.podCIDRs",
            "status.addresses",
        ],
        // An address that is none is nobody's, and a port that is none is served by nobody.
        _ => &["metadata.name", "metadata.namespace"],
    };
    fields.iter().any(|known| within(known))
}

/// The addresses that an object of one pod has, where they can be told.
fn addresses(kind: Kind, object: &Value) -> Option<Vec<IpAddr>> {
    if kind != Kind::Pod {
        return None;
    }
    let status = &object["status"];
    if !status.is_null() && !status.is_object() {
        return None;
    }
    let many = match &status["podIPs"] {
        Value::Null => &[][..],
        Value::Array(many) => many,
        _ => return None,
    };
    let texts = many.iter().map(|entry| &entry["ip"]);
    texts
        .chain([&status["podIP"]])
        .filter(|text| !text.is_null() && text.as_str() != Some(""))
        .map(|text| text.as_str()?.parse().ok())
        .collect()
}

/// Removes the field at `path` (`spec.containers[0].ports`), or what of the way to it is there: the object, the
/// entry of a list. Whether anything was removed: a whole `spec` or `status` never is, since too much hangs on it.
fn cut(object: &mut Value, path: &str) -> bool {
    let mut steps = Vec::new();
    let mut at = &*object;
    let mut rest = path;
    while !rest.is_empty() {
        let (step, next) = match at {
            Value::Object(map) => {
                rest = rest.strip_prefix('.').unwrap_or(rest);
                // A key may have a dot in it.
                let fits = |key: &&String| {
                    rest.strip_prefix(key.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                };
                let Some(key) = map.keys().filter(fits).max_by_key(|key| key.len()) else {
                    break;
                };
                rest = &rest[key.len()..];
                (Step::Key(key.clone()), &map[key])
            }
            Value::Array(list) => {
                let index = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                let Some((index, after)) = index
                    .and_then(|(index, after)| Some((index.parse::<usize>().ok()?, after)))
                    .filter(|(index, _)| *index < list.len())
                else {
                    break;
                };
                rest = after;
                (Step::Index(index), &list[index])
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => break,
        };
        steps.push(step);
        at = next;
    }
    // A port without its protocol would be another one.
    let port = steps
        .windows(2)
        .position(|pair| matches!(pair, [Step::Key(key), Step::Index(_)] if key == "ports"));
    if let Some(port) = port {
        steps.truncate(port + 2);
    }
    let last = match steps.pop() {
        Some(last) if !steps.is_empty() => last,
        _ => return false,
    };
    let parent = steps.iter().try_fold(object, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(*index),
    });
    match (parent, last) {
        (Some(Value::Object(map)), Step::Key(key)) => map.remove(&key).is_some(),
        (Some(Value::Array(list)), Step::Index(index)) => {
            list.remove(index);
            true
        }
        _ => false,
    }
}

enum Step {
    Key(String),
    Index(usize),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_field_is_cut_out_or_what_of_the_way_to_it_is_there() {
        let cut = |path: &str| {
            let mut object = json!({"a": {"b.c": [{"d": 1}, {"e": 2}], "b": 3}, "f": 4});
            cut(&mut object, path).then_some(object)
        };
        for (path, left) in [
            ("a.b", json!({"a": {"b.c": [{"d": 1}, {"e": 2}]}, "f": 4})),
            (
                "a.b.c[1].e",
                json!({"a": {"b.c": [{"d": 1}, {}], "b": 3}, "f": 4}),
            ),
            (
                "a.b.c[1].x",
                json!({"a": {"b.c": [{"d": 1}], "b": 3}, "f": 4}),
            ),
            ("a.b.c[].x", json!({"a": {"b": 3}, "f": 4})),
            ("a.b.c[7].x", json!({"a": {"b": 3}, "f": 4})),
        ] {
            assert_eq!(cut(path), Some(left), "{path}");
        }
        for path in ["f", "f.g", "a", "x.y", "."] {
            assert_eq!(cut(path), None, "{path}");
        }
    }

    #[test]
    fn a_port_goes_as_a_whole() {
        let mut object = json!({"spec": {"ports": [{"port": 1}, {"port": 2, "protocol": "x"}]}});
        assert!(cut(&mut object, "spec.ports[1].protocol"));
        assert_eq!(object, json!({"spec": {"ports": [{"port": 1}]}}));
    }
}
