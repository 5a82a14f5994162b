//! The whole state at once, for commands that answer and end.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde::Deserialize as _;
use serde_json::Value;
use tracer_policy::Cluster;

use super::connect::{ConnectError, Found, connect};
use super::resources::{Offer, Source, offered};
use crate::cluster::object::{FieldError, Object, Unknown};
use crate::cluster::templates::apply_selector;
use crate::cluster::{Kind, Loaded, Warning};

/// Objects a page: what is held of the API's own form at a time.
const PAGE: u32 = 250;

/// Lists everything that is read. What may not be listed is left out and said in the warnings, and verdicts
/// that hang on it are unknown.
///
/// # Errors
/// Where the API server cannot be reached or does not know us.
pub async fn list(found: &Found) -> Result<Loaded, ConnectError> {
    let (client, url) = connect(found).await?;
    list_over(client)
        .await
        .map_err(|error| ConnectError::of(&url, &error))
}

pub(super) async fn list_over(client: kube::Client) -> kube::Result<Loaded> {
    let mut loaded = Loaded::default();
    for (kind, offer) in offered(&client, |_| None).await? {
        let source = match offer {
            Offer::Source(source) => source,
            Offer::Unavailable(problem) => {
                unread(kind, problem, &mut loaded);
                continue;
            }
            Offer::No => continue,
        };
        let api = Api::<DynamicObject>::all_with(client.clone(), &source.resource);
        match pages(&api, &source).await {
            Ok(objects) => take(kind, objects, &mut loaded),
            Err(kube::Error::Api(status)) if status.code == 403 || status.code >= 500 => {
                unread(kind, status.message.clone(), &mut loaded);
            }
            Err(error) => return Err(error),
        }
    }
    workload_selectors(&client, &mut loaded.cluster).await;
    Ok(loaded)
}

/// What workloads select their pods by makes for better suggestions, and is no more than that: whoever may not
/// list them goes without.
async fn workload_selectors(client: &kube::Client, cluster: &mut Cluster) {
    for (kind, plural) in [
        ("Deployment", "deployments"),
        ("StatefulSet", "statefulsets"),
        ("DaemonSet", "daemonsets"),
    ] {
        let gvk = GroupVersionKind::gvk("apps", "v1", kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
        let mut params = ListParams::default().limit(PAGE);
        while let Ok(page) = api.list(&params).await {
            for object in page.items {
                let selector = object
                    .data
                    .get("spec")
                    .and_then(|spec| spec.get("selector"));
                let selector =
                    selector.and_then(|selector| LabelSelector::deserialize(selector).ok());
                if let Some(selector) = selector {
                    apply_selector(kind, &object.metadata, &selector, cluster);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
    }
}

fn unread(kind: Kind, problem: String, loaded: &mut Loaded) {
    let resource = kind.resource();
    if let Some(decides) = kind.decides() {
        loaded.cluster.mark_unread(&resource, decides);
    }
    loaded.warn(Warning::Unread { resource, problem });
}

fn take(kind: Kind, objects: Vec<Result<Object, FieldError>>, loaded: &mut Loaded) {
    for read in objects {
        match read.and_then(|object| object.apply(&mut loaded.cluster)) {
            Ok(()) => {
                *loaded.used.entry(kind.name().to_owned()).or_default() += 1;
            }
            Err(error) => {
                if let Some(decides @ tracer_policy::Decides::Policies) = kind.decides() {
                    loaded.cluster.mark_unread(&error.object, decides);
                }
                loaded.warn(Warning::Unreadable(error.to_string()));
            }
        }
    }
}

/// A list of one moment: page by page, or all at once where the server forgets that moment meanwhile (410).
async fn pages(
    api: &Api<DynamicObject>,
    source: &Source,
) -> kube::Result<Vec<Result<Object, FieldError>>> {
    let mut params = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page = match api.list(&params).await {
            Err(kube::Error::Api(status))
                if status.code == 410 && params.continue_token.is_some() =>
            {
                objects.clear();
                params = ListParams::default();
                continue;
            }
            page => page?,
        };
        objects.extend(
            page.items
                .into_iter()
                .map(|object| Object::read(source.kind, &plain(object, source), Unknown::Ignore)),
        );
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(objects),
        }
    }
}

/// The object as `kubectl get -o json` prints it: items of a list come without their kind.
pub(super) fn plain(object: DynamicObject, source: &Source) -> Value {
    let DynamicObject { metadata, data, .. } = object;
    let mut plain = data;
    plain["apiVersion"] = source.resource.api_version.clone().into();
    plain["kind"] = source.resource.kind.clone().into();
    // ObjectMeta came from JSON and is JSON again without fail.
    plain["metadata"] = serde_json::to_value(metadata).unwrap_or_default();
    plain
}
