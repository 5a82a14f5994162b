//! What could not be read.

use tracer_policy::Decides;

use super::*;

#[test]
fn what_could_not_be_read_is_never_taken_for_leave() {
    let isolated = base(&[("a", "podSelector: {}, policyTypes: [Ingress]")]);
    let mut cluster = isolated.clone();
    cluster.mark_unread("adminnetworkpolicies", Decides::Policies);
    let back = tcp("a/web", "b/client", 80);
    unknown(&cluster, &back, "adminnetworkpolicies could not be read");
    let verdict = denied(&cluster, &tcp("b/client", "a/web", 80));
    assert!(
        verdict.notes[0].contains("adminnetworkpolicies"),
        "{verdict:?}"
    );
    // Between nodes no policy has a say.
    allowed(&cluster, &tcp("10.10.0.11", "10.10.0.12", 80));
    cluster.mark_read("adminnetworkpolicies");
    allowed(&cluster, &back);

    cluster.mark_unread("pods", Decides::Ends);
    allowed(&cluster, &back);
    let out = tcp("a/web", "192.0.2.1", 80);
    unknown(&cluster, &out, "pods could not be read");
    cluster.mark_read("pods");
    allowed(&cluster, &out);
}

#[test]
fn what_is_missing_of_one_namespace_or_address_leaves_the_others_alone() {
    let mut cluster = base(&[]);
    let (within, without) = (
        tcp("b/client", "a/web", 80),
        tcp("b/client", "192.0.2.1", 80),
    );
    let policies = "cilium.io/v2 CiliumNetworkPolicy";
    cluster.mark_unread_in(policies, "a");
    unknown(
        &cluster,
        &within,
        "cilium.io/v2 CiliumNetworkPolicy could not be read",
    );
    allowed(&cluster, &without);
    cluster.mark_unread_in(policies, "b");
    unknown(&cluster, &within, "what they decide is not known");
    unknown(&cluster, &without, "what they decide is not known");
    cluster.mark_read(policies);
    cluster.mark_unread_at("Pod a/odd", ["192.0.2.1".parse().unwrap()]);
    allowed(&cluster, &within);
    unknown(
        &cluster,
        &without,
        "Pod a/odd could not be read: whose this address is",
    );
    allowed(&cluster, &tcp("b/client", "192.0.2.2", 80));
}
