//! Which of the server's resources are read.

use std::collections::{BTreeSet, HashMap};

use kube::Client;
use kube::core::ApiResource;

use crate::cluster::Kind;

/// A kind and the resource it is read from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) resource: ApiResource,
}

/// What a server offers of a kind.
#[derive(Clone, Debug)]
pub(super) enum Offer {
    Source(Source),
    /// It may have it: the server behind that part of the API does not say.
    Unavailable(String),
    /// It does not have it: policies that are not installed decide nothing.
    No,
}

/// What a version of a group holds.
enum Group {
    Resources(BTreeSet<String>),
    Unavailable(String),
}

/// What the server offers of what is read, each in its best version. `followed` says in which version a kind
/// is followed already, which then counts as offered as long as its group is.
///
/// # Errors
/// Where the server does not answer, or does not take us.
pub(super) async fn offered(
    client: &Client,
    followed: impl Fn(Kind) -> Option<String>,
) -> kube::Result<Vec<(Kind, Offer)>> {
    let groups = client.list_api_groups().await?;
    let served: BTreeSet<&str> = groups
        .groups
        .iter()
        .flat_map(|group| &group.versions)
        .map(|version| version.group_version.as_str())
        .collect();
    let mut asked: HashMap<String, Group> = HashMap::new();
    let mut offers = Vec::new();
    for kind in Kind::ALL {
        let followed = followed(kind);
        let mut offer = Offer::No;
        for version in kind.versions() {
            if !version.contains('/') {
                offer = Offer::Source(source(kind, version));
                break;
            }
            if !served.contains(version) {
                continue;
            }
            if followed.as_deref() == Some(version) {
                offer = Offer::Source(source(kind, version));
                break;
            }
            if !asked.contains_key(*version) {
                asked.insert((*version).to_owned(), group(client, version).await?);
            }
            match &asked[*version] {
                Group::Resources(names) if names.contains(kind.plural()) => {
                    offer = Offer::Source(source(kind, version));
                    break;
                }
                Group::Resources(_) => {}
                Group::Unavailable(problem) => offer = Offer::Unavailable(problem.clone()),
            }
        }
        if matches!(offer, Offer::No)
            && let Some(version) = only_otherwise(client, kind, &served, &mut asked).await?
        {
            offer = Offer::Unavailable(format!(
                "the server has it as {version} only, which is not read here"
            ));
        }
        offers.push((kind, offer));
    }
    let slices = offers
        .iter()
        .any(|(kind, offer)| *kind == Kind::EndpointSlice && matches!(offer, Offer::Source(_)));
    // Both say the same, and one of them is enough.
    for (kind, offer) in &mut offers {
        if slices && *kind == Kind::Endpoints {
            *offer = Offer::No;
        }
    }
    Ok(offers)
}

/// A version that the server has a kind in where it has it in none that is read.
async fn only_otherwise(
    client: &Client,
    kind: Kind,
    served: &BTreeSet<&str>,
    asked: &mut HashMap<String, Group>,
) -> kube::Result<Option<String>> {
    let group_of = |version: &str| version.split_once('/').map(|(group, _)| group.to_owned());
    let groups: BTreeSet<String> = kind.versions().iter().filter_map(|v| group_of(v)).collect();
    for version in served {
        let ours = group_of(version).is_some_and(|own| groups.contains(&own));
        if !ours || kind.versions().contains(version) {
            continue;
        }
        if !asked.contains_key(*version) {
            asked.insert((*version).to_owned(), group(client, version).await?);
        }
        if matches!(&asked[*version], Group::Resources(names) if names.contains(kind.plural())) {
            return Ok(Some((*version).to_owned()));
        }
    }
    Ok(None)
}

/// What a group holds: it may be there without all of its CRDs.
async fn group(client: &Client, version: &str) -> kube::Result<Group> {
    match client.list_api_group_resources(version).await {
        Ok(list) => Ok(Group::Resources(
            list.resources.into_iter().map(|own| own.name).collect(),
        )),
        Err(kube::Error::Api(status)) => match status.code {
            404 => Ok(Group::Resources(BTreeSet::new())),
            401 => Err(kube::Error::Api(status)),
            // Discovery of an aggregated group fails with its server.
            _ => Ok(Group::Unavailable(status.message.clone())),
        },
        Err(error) => Err(error),
    }
}

pub(super) fn source(kind: Kind, version: &str) -> Source {
    let (group, short) = version.split_once('/').unwrap_or(("", version));
    Source {
        kind,
        resource: ApiResource {
            group: group.to_owned(),
            version: short.to_owned(),
            api_version: version.to_owned(),
            kind: kind.name().to_owned(),
            plural: kind.plural().to_owned(),
        },
    }
}
