//! Policies that are asked in an order, and may deny: AdminNetworkPolicy, BaselineAdminNetworkPolicy,
//! ClusterNetworkPolicy, and Calico's own.
//!
//! They stand in tiers. Within a tier the first rule that matches decides: it allows, denies, or passes
//! the flow on to the next tier. NetworkPolicies have their place in the `default` tier, between `admin`
//! and `baseline`.

mod admin;
mod calico;
mod judge;

use std::cmp::Ordering;
use std::sync::Arc;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::evaluate::Who;
use crate::model::Change;
use crate::policy::{CompileError, Direction, PolicyKind, PolicyRef, Port, Problem};
use crate::selector::Selector;
use crate::verdict::RuleRef;
use crate::yaml;

pub(crate) use calico::NetworkSet;
pub(crate) use judge::judge;

/// A tier, and where it stands among the others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tier {
    order: f64,
    name: Arc<str>,
    /// What becomes of a flow that policies of the tier applied to and none matched.
    denies_rest: bool,
}

impl Tier {
    /// Ahead of NetworkPolicies.
    fn admin() -> Self {
        Self {
            order: 1e3,
            name: "admin".into(),
            denies_rest: false,
        }
    }

    /// Where NetworkPolicies are.
    fn default() -> Self {
        Self {
            order: 1e6,
            name: "default".into(),
            denies_rest: true,
        }
    }

    /// One of which nothing is known but its name.
    fn last(name: &str) -> Self {
        Self {
            order: f64::INFINITY,
            name: name.into(),
            denies_rest: true,
        }
    }

    /// For pods that no NetworkPolicy isolates.
    fn baseline() -> Self {
        Self {
            order: 1e7,
            name: "baseline".into(),
            denies_rest: false,
        }
    }

    fn cmp(&self, other: &Self) -> Ordering {
        self.order
            .total_cmp(&other.order)
            .then_with(|| self.name.cmp(&other.name))
    }
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
    /// On to the next tier.
    Pass,
}

/// A compiled policy.
#[derive(Clone, Debug)]
pub struct OrderedPolicy {
    id: PolicyRef,
    /// The name that its object has, where that is another: Calico's CRDs put the tier's before it.
    object: Option<Box<str>>,
    tier: Tier,
    /// Within the tier, the lowest first.
    order: f64,
    subject: Whom,
    /// By direction; `None` where it says nothing of that direction.
    rules: [Option<Box<[OrderedRule]>>; 2],
    /// Why none of its rules is known.
    broken: Option<Arc<CompileError>>,
    changed: Option<Change>,
}

/// Whom a policy is about; hostNetwork pods never.
#[derive(Clone, Debug, PartialEq)]
enum Whom {
    Labels(Subject),
    Calico(calico::Subject),
}

/// Pods by labels.
#[derive(Clone, Debug, Default, PartialEq)]
struct Subject {
    namespaces: Selector,
    pods: Selector,
}

#[derive(Clone, Debug, PartialEq)]
struct OrderedRule {
    action: Action,
    path: Arc<str>,
    /// The rule as the YAML has it, on one line.
    text: Arc<str>,
    matcher: Matcher,
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq)]
enum Matcher {
    Peers {
        /// One of these.
        peers: Box<[Peer]>,
        /// `None`: any port of any protocol.
        ports: Option<Box<[Port]>>,
    },
    Calico(Box<calico::Criteria>),
    /// It says something that is not known here.
    NotKnown(Arc<CompileError>),
}

#[derive(Clone, Debug, PartialEq)]
enum Peer {
    Pods {
        namespaces: Selector,
        pods: Selector,
    },
    /// Nodes by their labels.
    Nodes(Selector),
    /// Addresses, whoever has them.
    Networks(Box<[IpNet]>),
}

impl OrderedPolicy {
    /// Its name.
    pub const fn id(&self) -> &PolicyRef {
        &self.id
    }

    /// When it was last changed, and by whom, where the object says.
    pub const fn changed(&self) -> Option<&Change> {
        self.changed.as_ref()
    }

    /// Why it, or one of its rules, is not known: verdicts that hang on that are unknown.
    pub fn problem(&self) -> Option<&CompileError> {
        let rules = self.rules.iter().flatten().flatten();
        let mut of_rules = rules.filter_map(|rule| match &rule.matcher {
            Matcher::NotKnown(error) => Some(&**error),
            Matcher::Peers { .. } | Matcher::Calico(_) => None,
        });
        self.broken.as_deref().or_else(|| of_rules.next())
    }

    /// Whether the API leaves open which of two policies is asked first. Calico asks by name then.
    fn ties_with(&self, other: &Self) -> bool {
        self.id != other.id
            && !self.id.kind().is_calico()
            && !other.id.kind().is_calico()
            && self.tier == other.tier
            && self.order.total_cmp(&other.order) == Ordering::Equal
    }

    /// Whether it is about a pod, in whatever direction.
    pub(crate) fn is_about(&self, who: &Who<'_>) -> bool {
        let Who::Pod { entry, namespace } = who else {
            return false;
        };
        match &self.subject {
            Whom::Labels(whom) => {
                whom.namespaces.matches(&namespace.label_set) && whom.pods.matches(&entry.labels)
            }
            Whom::Calico(whom) => whom.is(who),
        }
    }

    /// Whether it decides about the same pods in the same way.
    pub(crate) fn decides_as(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
            && self.subject == other.subject
            && self.rules == other.rules
            && self.broken == other.broken
    }

    fn rules(&self, direction: Direction) -> Option<&[OrderedRule]> {
        self.rules[direction as usize].as_deref()
    }

    fn cmp(&self, other: &Self) -> Ordering {
        self.tier
            .cmp(&other.tier)
            .then_with(|| self.order.total_cmp(&other.order))
            .then_with(|| self.id.cmp(&other.id))
    }

    /// Where NetworkPolicies stand among a tier's: each as one of order 1000, named after itself.
    fn is_before_network_policies(&self) -> bool {
        match self.order.total_cmp(&1000.0) {
            Ordering::Less => true,
            Ordering::Equal => self.id.name() < "knp.default",
            Ordering::Greater => false,
        }
    }

    fn read(kind: PolicyKind, object: &Value, cluster: &mut Cluster) -> Self {
        let metadata = &object["metadata"];
        let full_name = metadata["name"].as_str().unwrap_or_default();
        let mut name = full_name;
        let mut namespace = None;
        if kind.is_calico() {
            name = calico::plain_name(name, object);
        }
        let own_object = (name != full_name).then(|| full_name.into());
        if kind == PolicyKind::CalicoNetworkPolicy {
            let own = metadata["namespace"].as_str().unwrap_or("default");
            namespace = Some(own.to_owned());
        }
        let id = PolicyRef::new(kind, namespace, name.to_owned());
        let changed = serde_json::from_value(metadata.clone())
            .ok()
            .as_ref()
            .and_then(Change::of);
        let read = if kind.is_calico() {
            calico::read(id.clone(), object, cluster)
        } else {
            admin::read(id.clone(), object, cluster.interner_mut())
        };
        let mut policy = read.unwrap_or_else(|(field, problem)| {
            let error = CompileError {
                kind,
                policy: id.to_string(),
                field,
                problem,
            };
            if kind.is_calico() {
                calico::broken(id, error, object, cluster)
            } else {
                admin::broken(id, error, object, cluster.interner_mut())
            }
        });
        policy.changed = changed;
        policy.object = own_object;
        policy
    }

    /// The name that its object has.
    fn object_name(&self) -> &str {
        self.object.as_deref().unwrap_or(self.id.name())
    }

    pub(crate) fn is_of(&self, kind: PolicyKind, namespace: Option<&str>, object: &str) -> bool {
        self.id.kind() == kind && self.id.namespace() == namespace && self.object_name() == object
    }
}

impl Cluster {
    /// Adds or replaces an AdminNetworkPolicy or BaselineAdminNetworkPolicy (`policy.networking.k8s.io/v1alpha1`),
    /// a ClusterNetworkPolicy (`v1alpha2`), or a NetworkPolicy or GlobalNetworkPolicy of Calico's, as JSON.
    ///
    /// # Errors
    ///
    /// Where it says something that is not known here or that the API would refuse. The rule, or all of it, is
    /// then kept as one that is not known: verdicts that hang on it say so.
    pub fn apply_ordered(&mut self, kind: PolicyKind, object: &Value) -> Result<(), CompileError> {
        let policy = OrderedPolicy::read(kind, object, self);
        let error = policy.problem().cloned();
        self.remove_ordered(&policy.id);
        // In another tier now, hence of another name.
        let id = &policy.id;
        self.remove_ordered_object(id.kind(), id.namespace(), policy.object_name());
        let policies = self.ordered_mut();
        let at = policies.partition_point(|other| other.cmp(&policy) == Ordering::Less);
        policies.insert(at, Arc::new(policy));
        error.map_or(Ok(()), Err)
    }

    /// Removes such a policy.
    pub fn remove_ordered(&mut self, id: &PolicyRef) {
        self.ordered_mut().retain(|policy| policy.id != *id);
    }

    /// Removes such a policy by the name that its object has (`metadata.name`), which may be another than
    /// the policy's: Calico's CRDs put the tier's name before it. `namespace` is `None` for cluster-wide kinds.
    pub fn remove_ordered_object(&mut self, kind: PolicyKind, namespace: Option<&str>, name: &str) {
        self.ordered_mut()
            .retain(|policy| !policy.is_of(kind, namespace, name));
    }

    /// Such policies in the order they are asked.
    pub fn ordered_policies(&self) -> impl Iterator<Item = &OrderedPolicy> {
        self.ordered().iter().map(AsRef::as_ref)
    }

    /// Whether such a policy's rule is asked ahead of NetworkPolicies, so that none can override it.
    pub fn overrules_network_policies(&self, rule: &RuleRef) -> bool {
        self.ordered_policies()
            .find(|policy| policy.id == rule.policy)
            .is_some_and(|policy| match policy.tier.cmp(&Tier::default()) {
                Ordering::Less => true,
                Ordering::Equal => policy.is_before_network_policies(),
                Ordering::Greater => false,
            })
    }

    /// The words of such a policy's rule, on one line.
    pub fn ordered_rule_text(&self, rule: &RuleRef) -> Option<&str> {
        let policy = self
            .ordered_policies()
            .find(|policy| policy.id == rule.policy)?;
        Direction::ALL
            .into_iter()
            .filter_map(|direction| policy.rules(direction))
            .flatten()
            .find(|own| own.path == rule.rule)
            .map(|own| &*own.text)
    }
}

/// A field and what is wrong with it.
type Found<T> = Result<T, (String, Problem)>;

/// Reads one direction's rules, each by itself: one that cannot be read is kept as one that is not known.
/// `compile` gets a rule, its path and its words; it gives none for what decides nothing.
fn read_rules<S: DeserializeOwned>(
    id: &PolicyRef,
    direction: Direction,
    specs: &[Value],
    mut compile: impl FnMut(&S, &str, &str) -> Found<Option<OrderedRule>>,
) -> Box<[OrderedRule]> {
    let read = |(index, value): (usize, &Value)| {
        let path = format!("spec.{}[{index}]", direction.as_str());
        let text = yaml::flow(value);
        let spec = serde_path_to_error::deserialize(value).map_err(|error| {
            let within = error.path().to_string();
            let field = match within.as_str() {
                "." => path.clone(),
                within => format!("{path}.{within}"),
            };
            (field, Problem::Unsupported(error.inner().to_string()))
        });
        match spec.and_then(|spec| compile(&spec, &path, &text)) {
            Ok(rule) => rule,
            Err((field, problem)) => Some(OrderedRule {
                // It never comes to that.
                action: Action::Pass,
                path: path.into(),
                text: text.into(),
                matcher: Matcher::NotKnown(Arc::new(CompileError {
                    kind: id.kind(),
                    policy: id.to_string(),
                    field,
                    problem,
                })),
            }),
        }
    };
    specs.iter().enumerate().filter_map(read).collect()
}

#[cfg(test)]
mod tests;
