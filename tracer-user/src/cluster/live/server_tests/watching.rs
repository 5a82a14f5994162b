//! Watches that are refused, forgotten and cut off.

use std::time::Duration;

use serde_json::json;
use tracer_policy::Decides;

use super::{Followed, Health, POLICIES, Server, closed, list, refusal, version};

#[tokio::test(start_paused = true)]
async fn a_watch_whose_moment_is_forgotten_lists_anew() {
    let server = Server::new();
    let watched = format!("{POLICIES}#watch");
    server.say(POLICIES, 200, list(&[closed("a")], None));
    // At the start of the watch, and in the midst of it.
    let gone = json!({"type": "ERROR", "object": refusal(410)});
    for (status, answer) in [(410, refusal(410)), (200, gone)] {
        server.say(&watched, status, answer);
        let mut followed = Followed::new(&server);
        followed.until("read", |own| own.policies() == ["a"]).await;
        server.say(POLICIES, 200, list(&[closed("b"), closed("c")], None));
        followed
            .until("read anew", |own| own.policies() == ["b", "c"])
            .await;
        server.asked(POLICIES);
        followed.for_secs(60, "followed", |_| true).await;
        let (lists, _) = server.asked(POLICIES);
        assert!((10..=30).contains(&lists), "{lists} lists in a minute");
        server.unsay(&watched);
        followed
            .until("synced", |own| own.health().is_synced())
            .await;
        server.say(POLICIES, 200, list(&[closed("a")], None));
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_listed_but_not_watched_is_unknown_until_it_may() {
    let server = Server::new();
    let watched = format!("{POLICIES}#watch");
    server.say(POLICIES, 200, list(&[closed("deny")], None));
    server.refuse(&watched, 403);
    let mut followed = Followed::new(&server);
    let partial = Health::Partial(vec!["networkpolicies.networking.k8s.io".to_owned()]);
    followed
        .until("partial", |own| own.health() == partial)
        .await;
    let unread = |own: &Followed| own.cluster.unread(Decides::Policies).count();
    followed.until("unread", |own| unread(own) == 1).await;
    server.asked(POLICIES);
    followed
        .for_secs(300, "partial", |own| {
            own.health() == partial && unread(own) == 1
        })
        .await;
    let (lists, watches) = server.asked(POLICIES);
    assert!((8..=25).contains(&lists), "{lists} lists in five minutes");
    assert_eq!(lists, watches);

    server.unsay(&watched);
    followed
        .until("synced", |own| own.health().is_synced())
        .await;
    followed.until("read", |own| unread(own) == 0).await;
    assert_eq!(followed.policies(), ["deny"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_for_long_leaves_the_state_behind() {
    for status in [429, 503] {
        let server = Server::new();
        server.say(POLICIES, 200, list(&[closed("deny")], None));
        server.refuse(&format!("{POLICIES}#watch"), status);
        let mut followed = Followed::new(&server);
        followed
            .until("synced", |own| own.health().is_synced())
            .await;
        followed
            .until("behind", |own| {
                matches!(own.health(), Health::Behind { .. })
            })
            .await;
        let said = followed.updates.status.to_string();
        let refused = format!("(refused with {status})");
        assert!(
            said.contains("networkpolicies.networking.k8s.io") && said.contains(&refused),
            "{said}"
        );
        assert!(followed.updates.status.as_of().is_some());
        assert_eq!(
            followed.cluster.unread(Decides::Policies).count(),
            0,
            "merely old"
        );
        server.asked(POLICIES);
        let behind = |own: &Followed| !own.health().is_synced();
        followed.for_secs(60, "behind", behind).await;
        let (lists, watches) = server.asked(POLICIES);
        assert_eq!(lists, 0, "it is listed");
        assert!(
            (10..=30).contains(&watches),
            "{watches} attempts in a minute"
        );
        server.unsay(&format!("{POLICIES}#watch"));
        let since = tokio::time::Instant::now();
        followed
            .until("synced", |own| own.health().is_synced())
            .await;
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "{:?}",
            since.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_makes_nothing_current_by_itself() {
    let server = Server::new();
    server.say(POLICIES, 200, list(&[closed("old")], None));
    let mut followed = Followed::new(&server);
    followed
        .until("synced", |own| own.health().is_synced())
        .await;
    // The connections that watch die without a word: the streams go on to say nothing.
    server.refuse("/version", 500);
    let stale = |own: &Followed| matches!(own.health(), Health::Stale { .. });
    followed.until("stale", stale).await;
    followed.for_secs(90, "stale", stale).await;
    server.say(POLICIES, 200, list(&[closed("new")], None));
    server.refuse(&format!("{POLICIES}#watch"), 503);
    server.say("/version", 200, version());
    followed.until("no longer stale", |own| !stale(own)).await;
    assert_eq!(followed.health(), Health::Starting);
    let since = tokio::time::Instant::now();
    followed
        .until("listed anew", |own| own.policies() == ["new"])
        .await;
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
    followed
        .until("behind", |own| {
            matches!(own.health(), Health::Behind { .. })
        })
        .await;
    server.unsay(&format!("{POLICIES}#watch"));
    followed
        .until("synced", |own| own.health().is_synced())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_short_absence_lists_nothing_anew() {
    let server = Server::new();
    let mut followed = Followed::new(&server);
    followed
        .until("synced", |own| own.health().is_synced())
        .await;
    server.refuse("/version", 500);
    followed
        .until("stale", |own| matches!(own.health(), Health::Stale { .. }))
        .await;
    server.asked(POLICIES);
    server.say("/version", 200, version());
    followed
        .until("synced", |own| own.health().is_synced())
        .await;
    assert_eq!(server.asked(POLICIES), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_the_server_offers_may_be_refused_at_first() {
    let server = Server::new();
    server.refuse("/apis", 403);
    let mut followed = Followed::new(&server);
    let partial = Health::Partial(vec!["API groups".to_owned()]);
    followed
        .until("partial", |own| own.health() == partial)
        .await;
    server.say("/apis", 200, json!({"groups": []}));
    followed
        .until("synced", |own| own.health().is_synced())
        .await;
}
