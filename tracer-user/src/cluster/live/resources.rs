//! Which of the server's resources are read.

use std::collections::BTreeSet;

use kube::Client;
use kube::core::ApiResource;

use crate::cluster::Kind;

/// A kind and the resource it is read from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) resource: ApiResource,
}

/// What the server offers of what is read. A kind that comes from nowhere is left out: only EndpointSlices
/// have a stand-in (Endpoints), and policies that are not installed decide nothing.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn offered(client: &Client) -> kube::Result<Vec<Source>> {
    let groups = client.list_api_groups().await?;
    let served: BTreeSet<&str> = groups
        .groups
        .iter()
        .flat_map(|group| &group.versions)
        .map(|version| version.group_version.as_str())
        .collect();
    let mut sources = Vec::new();
    for kind in Kind::ALL {
        let version = kind
            .versions()
            .iter()
            .find(|version| !version.contains('/') || served.contains(**version));
        let Some(version) = version else { continue };
        if version.contains('/') && !is_served(client, version, kind).await? {
            continue;
        }
        sources.push(source(kind, version));
    }
    // Both say the same, and one of them is enough.
    if sources
        .iter()
        .any(|source| source.kind == Kind::EndpointSlice)
    {
        sources.retain(|source| source.kind != Kind::Endpoints);
    }
    Ok(sources)
}

/// Whether the group has the kind: a group may be there without all of its CRDs.
async fn is_served(client: &Client, version: &str, kind: Kind) -> kube::Result<bool> {
    match client.list_api_group_resources(version).await {
        Ok(list) => Ok(list.resources.iter().any(|own| own.name == kind.plural())),
        // Discovery of an aggregated group fails with its server.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 503 => Ok(false),
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
