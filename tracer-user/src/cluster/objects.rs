//! Objects → cluster state.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;
use tracer_policy::{Cluster, Decides};

use super::error::{LoadError, Place, Warning};
use super::kind::{Kind, Known};
use super::object::{FieldError, Object, Unknown, describe, full_name};
use super::salvage::{Lost, salvage};
use super::stream::Found;
use super::templates::Templates;

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
    templates: Templates,
    /// Matters only to who wants the templates' pods.
    refused_template: Option<LoadError>,
    warnings: Vec<Warning>,
    /// Whether what is no object may stand beside those that are.
    in_folder: bool,
    /// Whether an object that is not as the API says is only warned of.
    goes_on: bool,
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

    /// Adds the pods that workloads ask for and that are not there, as they would come to be.
    ///
    /// # Errors
    /// The first template's field that does not hold what the API says.
    pub fn add_pods_of_templates(&mut self) -> Result<(), LoadError> {
        if let Some(error) = self.refused_template.take() {
            return Err(error);
        }
        std::mem::take(&mut self.templates).apply(&mut self.cluster);
        Ok(())
    }

    /// An object that is not as the API says stops nothing from now on.
    pub(super) const fn go_on_past_errors(&mut self) {
        self.goes_on = true;
    }

    /// What comes next stands in a folder, where there may be a chart's values and templates, too.
    pub(super) const fn comes_from_folder(&mut self) {
        self.in_folder = true;
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
            if self.in_folder {
                self.warnings.push(Warning::Foreign {
                    place: found.place,
                    what: "no Kubernetes object",
                });
                return Ok(());
            }
            return Err(LoadError::Syntax {
                place: Box::new(found.place),
                template: false,
                problem:
                    "no Kubernetes object: expected apiVersion and kind, as `kubectl get -o yaml` \
                          prints them"
                        .into(),
            });
        }
        let known = match Kind::known(&version, &kind) {
            Known::Read(known) => known,
            Known::Otherwise(known) => {
                let error = FieldError {
                    object: describe(&found.object),
                    field: "apiVersion".into(),
                    problem: format!("{version} is not read here, expected {}", known.version()),
                };
                return self.refuse(known, found, error);
            }
            Known::Unused => {
                let full = format!("{version} {kind}");
                let taken = self
                    .templates
                    .take(&version, &kind, &found.object, &mut self.cluster);
                if let Err(error) = taken {
                    let error = LoadError::field(found.place.clone(), error);
                    self.refused_template.get_or_insert(error);
                }
                if is_policy(&kind) {
                    match namespace(&found.object) {
                        Some(own) => self.cluster.mark_unread_in(&full, own),
                        None => self.cluster.mark_unread(&full, Decides::Policies),
                    }
                    if !self.skipped.contains_key(&full) {
                        self.warnings.push(Warning::Policy {
                            kind: full.clone(),
                            place: found.place,
                        });
                    }
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

    fn apply(&mut self, kind: Kind, found: Found) -> Result<(), LoadError> {
        let object = match Object::read(kind, &found.object, Unknown::Refuse) {
            Ok(object) => object,
            Err(error) => return self.refuse(kind, found, error),
        };
        let is_policy = matches!(object, Object::Ordered(..) | Object::NetworkPolicy(_));
        let ordered = matches!(object, Object::Ordered(..));
        match object.apply(&mut self.cluster) {
            // It is kept as one that is not known. Ordered kinds still grow.
            Err(error) if ordered || (is_policy && self.goes_on) => {
                if !is_policy_itself(kind) {
                    let name = describe(&found.object);
                    self.cluster.mark_unread(&name, Decides::Policies);
                }
                self.warnings.push(Warning::NotKnown {
                    error: error.to_string(),
                    place: found.place,
                });
                Ok(())
            }
            other => other.map_err(|error| LoadError::field(found.place, error)),
        }
    }

    /// What becomes of an object that is not as the API says.
    fn refuse(&mut self, kind: Kind, found: Found, error: FieldError) -> Result<(), LoadError> {
        let Found { place, object } = found;
        if !self.goes_on {
            return Err(LoadError::field(place, error));
        }
        for lost in salvage(kind, object, error, &mut self.cluster) {
            self.warnings.push(match lost {
                Lost::Decides(error) => Warning::NotKnown {
                    error: error.to_string(),
                    place: place.clone(),
                },
                Lost::Aside(error) => Warning::Unreadable(format!("{place}: {error}")),
            });
        }
        Ok(())
    }
}

/// The namespace it says it is in; a kind that is not known may have none.
fn namespace(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("namespace")?.as_str()
}

/// Whether it is a policy and not what policies refer to.
const fn is_policy_itself(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::CalicoTier | Kind::CalicoNetworkSet | Kind::GlobalNetworkSet
    )
}

/// Whether objects of this kind decide what passes, by the name that every such kind ends in:
/// `CiliumNetworkPolicy`. Calico's `Staged...`
/// only pretend to.
fn is_policy(kind: &str) -> bool {
    kind.ends_with("NetworkPolicy") && !kind.starts_with("Staged")
}
