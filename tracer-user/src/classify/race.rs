//! Drops while a node was still catching up with the API.

use jiff::{SignedDuration, Timestamp};
use tracer_policy::{Cluster, Direction};

use crate::enrich::Ends;

/// How long a node may take until the rules for a new pod are in place.
const POD: SignedDuration = SignedDuration::from_secs(10);
/// How long it may take until a changed policy is.
const POLICY: SignedDuration = SignedDuration::from_secs(5);
/// How long it may take until those of a policy that is gone, or was another, are not in place any more.
const FORMER: SignedDuration = SignedDuration::from_secs(10);

/// What was too new when it was dropped for its rules to be relied on: a pod at either end, or a policy that
/// isolates one of them; or a policy that did until then.
///
/// The API keeps times to the second, which is the precision of this.
pub fn race(ends: &Ends<'_>, cluster: &Cluster) -> Option<String> {
    let pods = || ends.source_pod().into_iter().chain(ends.destination_pod());
    let age = |since: Timestamp, limit| {
        let age = ends.time.duration_since(since);
        // A drop may come up to a second "before" what is kept to the second.
        (age >= SignedDuration::from_secs(-1) && age < limit).then(|| age.as_secs().max(0))
    };
    let young_pod = pods().find_map(|pod| Some((pod, age(cluster.started(pod)?, POD)?)));
    if let Some((pod, seconds)) = young_pod {
        return Some(format!(
            "pod {} was started {seconds} s before this drop",
            pod.id
        ));
    }
    let former = pods()
        .flat_map(|pod| cluster.former_policies(pod))
        .filter(|former| ends.time.duration_since(former.until) < FORMER)
        .max_by_key(|former| former.until);
    if let Some(former) = former {
        let what = if former.deleted { "deleted" } else { "changed" };
        let age = ends.time.duration_since(former.until);
        let when = if age.is_negative() {
            "just after".to_owned()
        } else {
            format!("{} s before", age.as_secs())
        };
        return Some(format!(
            "policy {} was {what} {when} this drop",
            former.policy
        ));
    }
    pods()
        .flat_map(|pod| {
            let id = &pod.id;
            Direction::ALL
                .into_iter()
                .flat_map(move |side| cluster.isolating(&id.namespace, &id.name, side))
        })
        .filter_map(|id| cluster.policy(id.namespace()?, id.name()))
        .find_map(|policy| {
            let change = policy.changed()?;
            let seconds = age(change.time, POLICY)?;
            let what = if change.created { "created" } else { "changed" };
            Some(format!(
                "policy {} was {what} {seconds} s before this drop",
                policy.id()
            ))
        })
}
