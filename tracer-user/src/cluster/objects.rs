//! Objects → cluster state.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracer_policy::Cluster;
use tracer_policy::model::{self, ObjectError};

use super::documents::Found;
use super::error::{LoadError, Place, Warning};

/// Cluster state from files, and what was found on the way.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The state.
    pub cluster: Cluster,
    /// How many objects of each kind are used.
    pub used: BTreeMap<String, usize>,
    /// How many objects of each kind (with its API group's version) are of no use here.
    pub skipped: BTreeMap<String, usize>,
    /// Where each policy stands.
    pub policies: Vec<PolicySource>,
    warnings: Vec<Warning>,
    seen: HashSet<(&'static str, String)>,
}

/// A policy and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySource {
    /// `namespace/name`.
    pub policy: String,
    /// Where.
    pub place: Place,
}

impl Loaded {
    /// What is worth saying.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    /// Takes one object over, or counts it as skipped.
    pub(super) fn take(&mut self, found: Found) -> Result<(), LoadError> {
        let text = |field: &str| {
            found
                .object
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
        if !found.object.is_object() || kind.is_empty() || version.is_empty() {
            return Err(LoadError::Syntax {
                place: Box::new(found.place),
                problem:
                    "no Kubernetes object: expected apiVersion and kind, as `kubectl get -o yaml` \
                          prints them"
                        .into(),
            });
        }
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let cluster = &mut self.cluster;
        let place = found.place.clone();
        let name = match (group, kind.as_str()) {
            ("", "Namespace") => {
                let object: core::Namespace = parse(&found)?;
                let namespace = model::Namespace::try_from(&object).map_err(at(&found.place))?;
                let name = namespace.name.clone();
                cluster.apply_namespace(namespace);
                ("Namespace", name)
            }
            ("", "Pod") => {
                let object: core::Pod = parse(&found)?;
                let pod = model::Pod::try_from(&object).map_err(at(&found.place))?;
                let name = pod.id.to_string();
                cluster.apply_pod(pod);
                ("Pod", name)
            }
            ("", "Node") => {
                let object: core::Node = parse(&found)?;
                let node = model::Node::try_from(&object).map_err(at(&found.place))?;
                let name = node.name.clone();
                cluster.apply_node(node);
                ("Node", name)
            }
            ("", "Service") => {
                let object: core::Service = parse(&found)?;
                let service = model::Service::try_from(&object).map_err(at(&found.place))?;
                let name = service.id.to_string();
                cluster.apply_service(service);
                ("Service", name)
            }
            ("", "Endpoints") => {
                let object: core::Endpoints = parse(&found)?;
                let subsets = model::from_endpoints(&object).map_err(at(&found.place))?;
                for subset in subsets {
                    cluster.apply_endpoints(subset);
                }
                ("Endpoints", full_name(&found.object))
            }
            ("discovery.k8s.io", "EndpointSlice") => {
                let object: discovery::EndpointSlice = parse(&found)?;
                let slice = model::from_endpoint_slice(&object).map_err(at(&found.place))?;
                if let Some(slice) = slice {
                    cluster.apply_endpoints(slice);
                }
                ("EndpointSlice", full_name(&found.object))
            }
            ("networking.k8s.io", "NetworkPolicy") => {
                let mut object: networking::NetworkPolicy = parse_strictly(&found)?;
                // As kubectl would apply it.
                object
                    .metadata
                    .namespace
                    .get_or_insert_with(|| "default".to_owned());
                cluster
                    .apply_network_policy(&object)
                    .map_err(|error| LoadError::Field {
                        place: Box::new(found.place.clone()),
                        object: format!("NetworkPolicy {}", error.policy),
                        field: error.field,
                        problem: error.problem.to_string(),
                    })?;
                let policy = full_name(&found.object);
                self.policies.retain(|source| source.policy != policy);
                self.policies.push(PolicySource {
                    policy: policy.clone(),
                    place: found.place.clone(),
                });
                ("NetworkPolicy", policy)
            }
            _ => {
                *self.skipped.entry(format!("{version} {kind}")).or_default() += 1;
                return Ok(());
            }
        };
        if self.seen.insert(name.clone()) {
            *self.used.entry(kind).or_default() += 1;
        } else {
            let object = format!("{} {}", name.0, name.1);
            self.warnings.push(Warning::Twice { object, place });
        }
        Ok(())
    }
}

/// `namespace/name`, or `name`, for messages.
fn full_name(object: &Value) -> String {
    let metadata = |field: &str| object.get("metadata")?.get(field)?.as_str();
    let name = metadata("name").unwrap_or("(without a name)");
    format!("{}/{name}", metadata("namespace").unwrap_or("default"))
}

fn describe(object: &Value) -> String {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or("object");
    format!("{kind} {}", full_name(object))
}

/// Adds the place to what the model says.
fn at(place: &Place) -> impl FnOnce(ObjectError) -> LoadError {
    let place = Box::new(place.clone());
    move |error| LoadError::Field {
        place,
        object: format!("{} {}", error.kind, error.object),
        field: error.field,
        problem: error.problem,
    }
}

fn parse<T: DeserializeOwned>(found: &Found) -> Result<T, LoadError> {
    serde_path_to_error::deserialize(&found.object).map_err(|error| LoadError::Field {
        place: Box::new(found.place.clone()),
        object: describe(&found.object),
        field: error.path().to_string(),
        problem: error.inner().to_string(),
    })
}

/// As [`parse`], and a field of `spec` that the API does not know is an error: in a policy it may be
/// the very line that was meant to let the traffic through.
fn parse_strictly<T: DeserializeOwned>(found: &Found) -> Result<T, LoadError> {
    let mut unknown = None;
    let mut note = |path: serde_ignored::Path<'_>| {
        let path = plain(&path);
        if path.starts_with("spec") && unknown.is_none() {
            unknown = Some(path);
        }
    };
    let parsed = serde_ignored::deserialize::<_, _, T>(&found.object, &mut note);
    // Parsed once more for an error that has a path.
    let Ok(parsed) = parsed else {
        return parse(found);
    };
    match unknown {
        None => Ok(parsed),
        Some(field) => Err(LoadError::Field {
            place: Box::new(found.place.clone()),
            object: describe(&found.object),
            field,
            problem: "no field of this name in the API; is it misspelt or wrongly indented?".into(),
        }),
    }
}

/// The path in the way the API writes it: `spec.ingress[0].from`.
fn plain(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", plain(parent)),
        Path::Map { parent, key } => {
            let parent = plain(parent);
            if parent.is_empty() {
                key.clone()
            } else {
                format!("{parent}.{key}")
            }
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => plain(parent),
    }
}
