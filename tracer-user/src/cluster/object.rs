//! One object of the API, cut down to what is used.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1 as admission;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracer_policy::model::{self, ApiCallKind, ObjectError, ObjectRef};
use tracer_policy::{Cluster, CompileError, PolicyKind};

use super::kind::Kind;
use super::nulls;

/// An object in the form the cluster state takes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Object {
    /// `v1` Namespace.
    Namespace(model::Namespace),
    /// `v1` Pod.
    Pod(Box<model::Pod>),
    /// `v1` Node.
    Node(Box<model::Node>),
    /// `v1` Service.
    Service(Box<model::Service>),
    /// `v1` Endpoints: what it says now, subset by subset.
    Endpoints(ObjectRef, Vec<model::Endpoints>),
    /// `discovery.k8s.io/v1` EndpointSlice; `None` where it holds no addresses of use.
    EndpointSlice(ObjectRef, Option<Box<model::Endpoints>>),
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy(Box<networking::NetworkPolicy>),
    /// What the API server calls, by this object.
    ApiCalls(ApiCallKind, String, Vec<model::ApiCall>),
    /// A policy that is asked in an order, as the API has it.
    Ordered(PolicyKind, Value),
}

/// A field that does not hold what the API says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {problem}")]
pub struct FieldError {
    /// Kind and name, as far as they can be told.
    pub object: String,
    /// Path of the field.
    pub field: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl From<CompileError> for FieldError {
    fn from(error: CompileError) -> Self {
        Self {
            object: format!("{} {}", error.kind.as_str(), error.policy),
            field: error.field,
            problem: error.problem.to_string(),
        }
    }
}

impl From<ObjectError> for FieldError {
    fn from(error: ObjectError) -> Self {
        Self {
            object: format!("{} {}", error.kind, error.object),
            field: error.field,
            problem: error.problem,
        }
    }
}

/// What to make of a field of a policy's `spec` that the API does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// An error: in a file it is misspelt, and may be the very line that was meant to let traffic
    /// through.
    Refuse,
    /// Passed over: the API server has taken it, so it is newer than we are.
    Ignore,
}

impl Object {
    /// Takes an object over, and drops what is of no use.
    ///
    /// # Errors
    /// The first field that does not hold what the API says.
    pub fn read(kind: Kind, object: &Value, unknown: Unknown) -> Result<Self, FieldError> {
        // Looked for only where something is wrong: it is a walk over the whole object.
        Self::take(kind, object, unknown).or_else(|error| match nulls::filled(object) {
            Some(filled) => Self::take(kind, &filled, unknown),
            None => Err(error),
        })
    }

    fn take(kind: Kind, object: &Value, unknown: Unknown) -> Result<Self, FieldError> {
        let ordered = |kind| Self::Ordered(kind, object.clone());
        Ok(match kind {
            Kind::Namespace => {
                let object: core::Namespace = parse(object)?;
                Self::Namespace(model::Namespace::try_from(&object)?)
            }
            Kind::Pod => {
                let object: core::Pod = parse(object)?;
                Self::Pod(Box::new(model::Pod::try_from(&object)?))
            }
            Kind::Node => {
                let object: core::Node = parse(object)?;
                Self::Node(Box::new(model::Node::try_from(&object)?))
            }
            Kind::Service => {
                let object: core::Service = parse(object)?;
                Self::Service(Box::new(model::Service::try_from(&object)?))
            }
            Kind::Endpoints => {
                let id = id(object);
                let object: core::Endpoints = parse(object)?;
                Self::Endpoints(id, model::from_endpoints(&object)?)
            }
            Kind::EndpointSlice => {
                let id = id(object);
                // v1beta1, all that servers before 1.21 have, differs in no field that is used.
                let mut object = object.clone();
                object["apiVersion"] = kind.version().into();
                let object: discovery::EndpointSlice = parse(&object)?;
                Self::EndpointSlice(id, model::from_endpoint_slice(&object)?.map(Box::new))
            }
            Kind::NetworkPolicy => {
                let mut object: networking::NetworkPolicy = match unknown {
                    Unknown::Refuse => parse_strictly(object)?,
                    Unknown::Ignore => parse(object)?,
                };
                // As kubectl would apply it.
                object
                    .metadata
                    .namespace
                    .get_or_insert_with(|| "default".to_owned());
                Self::NetworkPolicy(Box::new(object))
            }
            Kind::ValidatingWebhooks => {
                let object: admission::ValidatingWebhookConfiguration = parse(object)?;
                let calls = model::ApiCall::of_validating(&object);
                Self::api_calls(ApiCallKind::Validating, object.metadata.name, calls)
            }
            Kind::MutatingWebhooks => {
                let object: admission::MutatingWebhookConfiguration = parse(object)?;
                let calls = model::ApiCall::of_mutating(&object);
                Self::api_calls(ApiCallKind::Mutating, object.metadata.name, calls)
            }
            Kind::ApiService => {
                let object: APIService = parse(object)?;
                let calls = model::ApiCall::of_api_service(&object);
                Self::api_calls(ApiCallKind::Aggregated, object.metadata.name, calls)
            }
            Kind::AdminNetworkPolicy => ordered(PolicyKind::AdminNetworkPolicy),
            Kind::BaselineAdminNetworkPolicy => ordered(PolicyKind::BaselineAdminNetworkPolicy),
            Kind::ClusterNetworkPolicy => ordered(PolicyKind::ClusterNetworkPolicy),
            Kind::CalicoNetworkPolicy => ordered(PolicyKind::CalicoNetworkPolicy),
            Kind::GlobalNetworkPolicy => ordered(PolicyKind::GlobalNetworkPolicy),
            Kind::CalicoTier => ordered(PolicyKind::CalicoTier),
            Kind::CalicoNetworkSet | Kind::GlobalNetworkSet => {
                ordered(PolicyKind::CalicoNetworkSet)
            }
        })
    }

    fn api_calls(kind: ApiCallKind, name: Option<String>, calls: Vec<model::ApiCall>) -> Self {
        Self::ApiCalls(kind, name.unwrap_or_default(), calls)
    }

    /// Adds it to the cluster state, or replaces what was there of the same name.
    ///
    /// # Errors
    /// Where the API server would refuse it; a policy is then kept as one whose rules are not known.
    pub fn apply(self, cluster: &mut Cluster) -> Result<(), FieldError> {
        match self {
            Self::Namespace(namespace) => cluster.apply_namespace(namespace),
            Self::Pod(pod) => cluster.apply_pod(*pod),
            Self::Node(node) => cluster.apply_node(*node),
            Self::Service(service) => cluster.apply_service(*service),
            Self::Endpoints(id, subsets) => {
                forget_subsets(cluster, &id);
                for subset in subsets {
                    cluster.apply_endpoints(subset);
                }
            }
            Self::EndpointSlice(_, Some(slice)) => cluster.apply_endpoints(*slice),
            Self::EndpointSlice(id, None) => cluster.remove_endpoints(&id),
            Self::NetworkPolicy(policy) => cluster.apply_network_policy(&policy)?,
            Self::ApiCalls(kind, name, calls) => cluster.apply_api_calls(kind, &name, calls),
            Self::Ordered(kind, object) => match kind {
                PolicyKind::CalicoTier => cluster.apply_calico_tier(&object)?,
                PolicyKind::CalicoNetworkSet => cluster.apply_network_set(&object)?,
                _ => cluster.apply_ordered(kind, &object)?,
            },
        }
        Ok(())
    }

    /// As [`Object::apply`], of an object that became known at `time`: what it decided until then is remembered.
    ///
    /// # Errors
    /// As there.
    pub fn succeed(self, cluster: &mut Cluster, time: Timestamp) -> Result<(), FieldError> {
        match self {
            Self::Pod(pod) => cluster.succeed_pod(*pod, time),
            Self::NetworkPolicy(policy) => cluster.succeed_network_policy(&policy, time)?,
            Self::Ordered(kind, object)
                if !matches!(kind, PolicyKind::CalicoTier | PolicyKind::CalicoNetworkSet) =>
            {
                cluster.succeed_ordered(kind, &object, time)?;
            }
            other => other.apply(cluster)?,
        }
        Ok(())
    }
}

/// Takes an object out of the cluster state; what it decided until `time` is remembered.
pub fn retire(kind: Kind, id: &ObjectRef, cluster: &mut Cluster, time: Timestamp) {
    let mut ordered = |kind| {
        let namespace = (kind == PolicyKind::CalicoNetworkPolicy).then_some(id.namespace.as_str());
        cluster.retire_ordered_object(kind, namespace, &id.name, time);
    };
    match kind {
        Kind::Namespace => cluster.remove_namespace(&id.name),
        Kind::Pod => cluster.retire_pod(id, time),
        Kind::Node => cluster.remove_node(&id.name),
        Kind::Service => cluster.remove_service(id),
        Kind::Endpoints => forget_subsets(cluster, id),
        Kind::EndpointSlice => cluster.remove_endpoints(id),
        Kind::NetworkPolicy => cluster.retire_network_policy(id, time),
        Kind::AdminNetworkPolicy => ordered(PolicyKind::AdminNetworkPolicy),
        Kind::BaselineAdminNetworkPolicy => ordered(PolicyKind::BaselineAdminNetworkPolicy),
        Kind::ClusterNetworkPolicy => ordered(PolicyKind::ClusterNetworkPolicy),
        Kind::CalicoNetworkPolicy => ordered(PolicyKind::CalicoNetworkPolicy),
        Kind::GlobalNetworkPolicy => ordered(PolicyKind::GlobalNetworkPolicy),
        Kind::ValidatingWebhooks => cluster.remove_api_calls(ApiCallKind::Validating, &id.name),
        Kind::MutatingWebhooks => cluster.remove_api_calls(ApiCallKind::Mutating, &id.name),
        Kind::ApiService => cluster.remove_api_calls(ApiCallKind::Aggregated, &id.name),
        Kind::CalicoTier => cluster.remove_calico_tier(&id.name),
        Kind::CalicoNetworkSet => cluster.remove_network_set(Some(&id.namespace), &id.name),
        Kind::GlobalNetworkSet => cluster.remove_network_set(None, &id.name),
    }
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
pub(super) fn full_name(object: &Value) -> String {
    let metadata = |field: &str| object.get("metadata")?.get(field)?.as_str();
    let name = metadata("name").unwrap_or("(without a name)");
    if !object["kind"].as_str().is_some_and(is_namespaced) {
        return name.to_owned();
    }
    format!("{}/{name}", metadata("namespace").unwrap_or("default"))
}

fn is_namespaced(kind: &str) -> bool {
    !matches!(
        kind,
        "Namespace"
            | "Node"
            | "AdminNetworkPolicy"
            | "BaselineAdminNetworkPolicy"
            | "ClusterNetworkPolicy"
            | "GlobalNetworkPolicy"
            | "GlobalNetworkSet"
            | "Tier"
            | "ValidatingWebhookConfiguration"
            | "MutatingWebhookConfiguration"
            | "APIService"
    )
}

/// Kind and name, for messages.
pub(super) fn describe(object: &Value) -> String {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or("object");
    format!("{kind} {}", full_name(object))
}

pub(super) fn parse<T: DeserializeOwned>(object: &Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(object).map_err(|error| FieldError {
        object: describe(object),
        field: error.path().to_string(),
        problem: error.inner().to_string(),
    })
}

/// As [`parse`], and a field of `spec` that the API does not know is an error.
fn parse_strictly<T: DeserializeOwned>(object: &Value) -> Result<T, FieldError> {
    let mut unknown = None;
    let mut note = |path: serde_ignored::Path<'_>| {
        let path = plain(&path);
        if path.starts_with("spec") && unknown.is_none() {
            unknown = Some(path);
        }
    };
    let parsed = serde_ignored::deserialize::<_, _, T>(object, &mut note);
    // Parsed once more for an error that has a path.
    let Ok(parsed) = parsed else {
        return parse(object);
    };
    match unknown {
        None => Ok(parsed),
        Some(field) => Err(FieldError {
            object: describe(object),
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
