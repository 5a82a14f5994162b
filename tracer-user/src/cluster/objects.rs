//! Objects → cluster state.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracer_policy::Cluster;
use tracer_policy::model::{self, ObjectError, ObjectRef};

use super::error::{LoadError, Place, Warning};
use super::kind::{Kind, Known};
use super::stream::Found;

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
    seen: HashSet<(Kind, String)>,
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
        let known = match Kind::known(&version, &kind) {
            Known::Read(known) => known,
            Known::Otherwise(known) => {
                return Err(LoadError::Field {
                    object: describe(&found.object),
                    field: "apiVersion".into(),
                    problem: format!("{version} is not read here, expected {}", known.version()),
                    place: Box::new(found.place),
                });
            }
            Known::Unused => {
                let full = format!("{version} {kind}");
                if is_policy(&kind) && !self.skipped.contains_key(&full) {
                    self.warnings.push(Warning::Policy {
                        kind: full.clone(),
                        place: found.place,
                    });
                }
                *self.skipped.entry(full).or_default() += 1;
                return Ok(());
            }
        };
        let place = found.place.clone();
        let name = full_name(&found.object);
        self.apply(known, found)?;
        if known == Kind::NetworkPolicy {
            self.policies.retain(|source| source.policy != name);
            self.policies.push(PolicySource {
                policy: name.clone(),
                place: place.clone(),
            });
        }
        if self.seen.insert((known, name.clone())) {
            *self.used.entry(kind).or_default() += 1;
        } else {
            let object = format!("{kind} {name}");
            self.warnings.push(Warning::Twice { object, place });
        }
        Ok(())
    }

    fn apply(&mut self, kind: Kind, mut found: Found) -> Result<(), LoadError> {
        let cluster = &mut self.cluster;
        let place = &found.place;
        match kind {
            Kind::Namespace => {
                let object: core::Namespace = parse(&found)?;
                cluster.apply_namespace(model::Namespace::try_from(&object).map_err(at(place))?);
            }
            Kind::Pod => {
                let object: core::Pod = parse(&found)?;
                cluster.apply_pod(model::Pod::try_from(&object).map_err(at(place))?);
            }
            Kind::Node => {
                let object: core::Node = parse(&found)?;
                cluster.apply_node(model::Node::try_from(&object).map_err(at(place))?);
            }
            Kind::Service => {
                let object: core::Service = parse(&found)?;
                cluster.apply_service(model::Service::try_from(&object).map_err(at(place))?);
            }
            Kind::Endpoints => {
                let object: core::Endpoints = parse(&found)?;
                let subsets = model::from_endpoints(&object).map_err(at(place))?;
                forget_subsets(cluster, &id(&found.object));
                for subset in subsets {
                    cluster.apply_endpoints(subset);
                }
            }
            Kind::EndpointSlice => {
                // v1beta1, all that servers before 1.21 have, differs in no field that is used.
                found.object["apiVersion"] = kind.version().into();
                let object: discovery::EndpointSlice = parse(&found)?;
                match model::from_endpoint_slice(&object).map_err(at(&found.place))? {
                    Some(slice) => cluster.apply_endpoints(slice),
                    None => cluster.remove_endpoints(&id(&found.object)),
                }
            }
            Kind::NetworkPolicy => {
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
            }
        }
        Ok(())
    }
}

/// Whether objects of this kind decide what passes, by the name that every such kind ends in:
/// `CiliumNetworkPolicy`, Calico's `GlobalNetworkPolicy`, `AdminNetworkPolicy`. Calico's `Staged...`
/// only pretend to.
fn is_policy(kind: &str) -> bool {
    kind.ends_with("NetworkPolicy") && !kind.starts_with("Staged")
}

/// Forgets what an Endpoints object said before: it may have fewer subsets now.
fn forget_subsets(cluster: &mut Cluster, id: &ObjectRef) {
    let own = |name: &str| {
        name.split_once('#')
            .is_some_and(|(name, _)| name == id.name)
    };
    let stale: Vec<_> = cluster
        .endpoints_of(id)
        .map(|endpoints| endpoints.id.clone())
        .filter(|subset| own(&subset.name))
        .collect();
    for subset in &stale {
        cluster.remove_endpoints(subset);
    }
}

/// Namespace and name as the model has them.
fn id(object: &Value) -> ObjectRef {
    let metadata = |field: &str| object.get("metadata")?.get(field)?.as_str();
    ObjectRef::new(
        metadata("namespace").unwrap_or("default"),
        metadata("name").unwrap_or_default(),
    )
}

/// `namespace/name`, or `name` for kinds without a namespace, for messages.
fn full_name(object: &Value) -> String {
    let metadata = |field: &str| object.get("metadata")?.get(field)?.as_str();
    let name = metadata("name").unwrap_or("(without a name)");
    if matches!(object["kind"].as_str(), Some("Namespace" | "Node")) {
        return name.to_owned();
    }
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
