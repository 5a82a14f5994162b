//! One Event an object, reason and action: created once, and counted on from then on.
//!
//! kube's own recorder names an Event by the object's whole name, which leaves no room for what follows it
//! where that is a long one, and goes on counting on an Event that was deleted.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::note::{Key, Note};

/// Who writes, as the API shows it.
const CONTROLLER: &str = "tracer";
/// An Event is counted on for this long after it was written; then there is a new one.
const COUNTED_ON: SignedDuration = SignedDuration::from_mins(6);
/// The longest name of an object.
const LONGEST_NAME: usize = 253;
/// The API's limit of `reportingInstance`.
/// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/apis/core/validation/events.go>
const LONGEST_INSTANCE: usize = 128;

/// An Event that is there.
#[derive(Debug)]
struct Known {
    name: String,
    count: i32,
    last: Timestamp,
}

/// Writes notes as Events.
pub(super) struct Recorder {
    client: Client,
    instance: String,
    known: HashMap<Key, Known>,
}

impl Recorder {
    /// On behalf of the agent of `node`.
    pub(super) fn new(client: Client, node: &str) -> Self {
        Self {
            client,
            instance: node[..node.floor_char_boundary(LONGEST_INSTANCE)].to_owned(),
            known: HashMap::new(),
        }
    }

    /// Creates an Event, or counts on with the one that says the same.
    pub(super) async fn write(&mut self, note: &Note) -> kube::Result<()> {
        let now = Timestamp::now();
        self.known
            .retain(|_, known| now.duration_since(known.last) < COUNTED_ON);
        let events = Api::<Event>::namespaced(self.client.clone(), &note.about.namespace);
        let key = note.key();
        if let Some(known) = self.known.get_mut(&key) {
            let count = known.count.saturating_add(1);
            let series = json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}});
            let patch = Patch::Merge(series);
            match events
                .patch(&known.name, &PatchParams::default(), &patch)
                .await
            {
                Ok(_) => {
                    (known.count, known.last) = (count, now);
                    return Ok(());
                }
                // Somebody deleted it.
                Err(kube::Error::Api(answer)) if answer.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let name = name(&note.about.name, now);
        let event = self.event(note, name.clone(), now);
        events.create(&PostParams::default(), &event).await?;
        let (count, last) = (1, now);
        self.known.insert(key, Known { name, count, last });
        Ok(())
    }

    fn event(&self, note: &Note, name: String, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                namespace: Some(note.about.namespace.clone()),
                name: Some(name),
                ..ObjectMeta::default()
            },
            type_: Some("Warning".to_owned()),
            reason: Some(note.reason.clone()),
            action: Some(note.action.to_owned()),
            note: Some(note.text.clone()),
            event_time: Some(MicroTime(now)),
            regarding: Some(ObjectReference {
                api_version: Some(note.about.api_version.to_owned()),
                kind: Some(note.about.kind.to_owned()),
                namespace: Some(note.about.namespace.clone()),
                name: Some(note.about.name.clone()),
                uid: note.about.uid.clone(),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

/// The object's name and the time, as client-go has it; of a long name its beginning.
fn name(object: &str, now: Timestamp) -> String {
    let end = format!(".{:x}", now.as_nanosecond());
    let room = object.floor_char_boundary(LONGEST_NAME - end.len());
    // A part of a name must end in a letter or a digit.
    let start = object[..room].trim_end_matches(['-', '.']);
    format!("{start}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_long_name_has_a_name_that_the_api_takes() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(name("vault-0", now), "vault-0.18fae27693b40000");
        let long = format!("{}.{}", "a".repeat(235), "b".repeat(17));
        assert_eq!(long.len(), LONGEST_NAME);
        let short = name(&long, now);
        assert_eq!(short, format!("{}.18fae27693b40000", "a".repeat(235)));
        assert!(name(&"a".repeat(253), now).len() == LONGEST_NAME);
    }
}
