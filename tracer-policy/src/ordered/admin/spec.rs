//! The objects as they are written.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    /// v1alpha2 only.
    pub(super) tier: Option<String>,
    pub(super) priority: Option<i64>,
    pub(super) subject: SubjectSpec,
    /// [`RuleSpec`]s.
    pub(super) ingress: Option<Vec<Value>>,
    pub(super) egress: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SubjectSpec {
    pub(super) namespaces: Option<SelectorSpec>,
    pub(super) pods: Option<PodsSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PodsSpec {
    #[serde(default)]
    pub(super) namespace_selector: SelectorSpec,
    #[serde(default)]
    pub(super) pod_selector: SelectorSpec,
}

/// The API's own type passes over what it does not know, and a selector that lost a line selects more.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SelectorSpec {
    pub(super) match_labels: Option<BTreeMap<String, String>>,
    pub(super) match_expressions: Option<Vec<RequirementSpec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RequirementSpec {
    pub(super) key: String,
    pub(super) operator: String,
    pub(super) values: Option<Vec<String>>,
}

impl SelectorSpec {
    pub(super) fn to_api(&self) -> LabelSelector {
        let expressions = self.match_expressions.as_ref().map(|all| {
            all.iter()
                .map(|own| LabelSelectorRequirement {
                    key: own.key.clone(),
                    operator: own.operator.clone(),
                    values: own.values.clone(),
                })
                .collect()
        });
        LabelSelector {
            match_labels: self.match_labels.clone(),
            match_expressions: expressions,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RuleSpec {
    pub(super) name: Option<String>,
    pub(super) action: String,
    pub(super) from: Option<Vec<PeerSpec>>,
    pub(super) to: Option<Vec<PeerSpec>>,
    /// v1alpha1.
    pub(super) ports: Option<Vec<PortSpec>>,
    /// v1alpha2.
    pub(super) protocols: Option<Vec<ProtocolSpec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PeerSpec {
    pub(super) namespaces: Option<SelectorSpec>,
    pub(super) pods: Option<PodsSpec>,
    pub(super) nodes: Option<SelectorSpec>,
    pub(super) networks: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PortSpec {
    pub(super) port_number: Option<NumberSpec>,
    pub(super) port_range: Option<RangeSpec>,
    pub(super) named_port: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NumberSpec {
    pub(super) protocol: Option<String>,
    pub(super) port: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RangeSpec {
    pub(super) protocol: Option<String>,
    pub(super) start: i32,
    pub(super) end: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ProtocolSpec {
    pub(super) tcp: Option<TransportSpec>,
    pub(super) udp: Option<TransportSpec>,
    pub(super) sctp: Option<TransportSpec>,
    pub(super) destination_named_port: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TransportSpec {
    pub(super) destination_port: Option<DestinationSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DestinationSpec {
    pub(super) number: Option<i32>,
    pub(super) range: Option<RangeSpec>,
}
