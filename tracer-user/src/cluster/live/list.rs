//! The whole state at once, for commands that answer and end.

use kube::api::{Api, DynamicObject, ListParams};
use serde_json::Value;

use super::connect::{ConnectError, Found, connect};
use super::resources::{Source, offered};
use crate::cluster::object::{Object, Unknown};
use crate::cluster::{Loaded, Warning};

/// Objects a page: what is held of the API's own form at a time.
const PAGE: u32 = 250;

/// Lists everything that is read. What may not be listed is left out and said in the warnings.
///
/// # Errors
/// Where the API server cannot be reached or does not know us.
pub async fn list(found: &Found) -> Result<Loaded, ConnectError> {
    let (client, url) = connect(found).await?;
    let sources = offered(&client)
        .await
        .map_err(|error| ConnectError::of(&url, &error))?;
    let mut loaded = Loaded::default();
    for source in sources {
        let api = Api::<DynamicObject>::all_with(client.clone(), &source.resource);
        match pages(&api, &source, &mut loaded).await {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.code == 403 => {
                loaded.warn(Warning::Forbidden {
                    resource: source.resource.plural.clone(),
                    problem: status.message.clone(),
                });
            }
            Err(error) => return Err(ConnectError::of(&url, &error)),
        }
    }
    Ok(loaded)
}

async fn pages(api: &Api<DynamicObject>, source: &Source, loaded: &mut Loaded) -> kube::Result<()> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        for object in page.items {
            let object = plain(object, source);
            let read = Object::read(source.kind, object, Unknown::Ignore)
                .and_then(|object| object.apply(&mut loaded.cluster));
            match read {
                Ok(()) => {
                    *loaded
                        .used
                        .entry(source.kind.name().to_owned())
                        .or_default() += 1;
                }
                Err(error) => loaded.warn(Warning::Unreadable(error.to_string())),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
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
