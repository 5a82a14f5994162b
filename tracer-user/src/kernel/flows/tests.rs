//! More flows than are taken at a time, and when they leave the table.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::*;

const IDLE: Duration = Duration::from_mins(1);

/// Tables that hand out their flows in the same order each time, as the kernel's do.
#[derive(Default)]
struct Fake {
    flows: Vec<(FlowKey, FlowValue)>,
    overflow: BTreeMap<u32, u64>,
    looked_at: Cell<usize>,
}

impl Tables for Fake {
    fn each(&self, mut each: impl FnMut(FlowKey, FlowValue) -> bool) -> Result<bool, Error> {
        let each = |(key, value): &(FlowKey, FlowValue)| {
            self.looked_at.set(self.looked_at.get() + 1);
            each(*key, *value)
        };
        Ok(self.flows.iter().all(each))
    }

    fn take(
        &mut self,
        flows: &[Silent],
        _: Duration,
        mut each: impl FnMut(FlowKey, FlowValue),
    ) -> Result<(), Error> {
        let is_taken = |key: &FlowKey| flows.iter().any(|flow| flow.key == *key);
        let taken = self.flows.extract_if(.., |(key, _)| is_taken(key));
        taken.for_each(|(key, value)| each(key, value));
        Ok(())
    }

    fn overflowed(&self, index: u32) -> Result<u64, Error> {
        Ok(self.overflow.get(&index).copied().unwrap_or(0))
    }
}

fn event(port: u16) -> DropEvent {
    let mut event = DropEvent::new_zeroed();
    event.fields = field::HEADERS;
    event.headers.destination_port = port;
    event.count = 1;
    event
}

fn with(flows: u16) -> Flows<Fake> {
    let flows = (0..flows).map(|port| {
        let event = event(port);
        let mut value = FlowValue::new_zeroed();
        value.packets = 1;
        value
            .head
            .as_mut_bytes()
            .copy_from_slice(&event.as_bytes()[..HEAD]);
        (FlowKey::of(&event), value)
    });
    let fake = Fake {
        flows: flows.collect(),
        ..Fake::default()
    };
    Flows::new(fake, 100, IDLE, Arc::default(), None).unwrap()
}

/// Counts another packet of each flow.
fn go_on(flows: &mut Flows<Fake>) {
    for (_, value) in &mut flows.tables.flows {
        value.packets += 1;
    }
}

/// What was handed on: packets by port.
type Heard = BTreeMap<u16, u64>;

fn port(event: &DropEvent) -> u16 {
    event.headers.destination_port
}

const LOOK: Look = Look {
    now_ns: 1,
    fresh_ns: u64::MAX,
    kept_marks: Some(0),
};

/// A look, of which no more than `room` records are taken.
fn sweep(flows: &mut Flows<Fake>, heard: &mut Heard, room: usize, look: Look) {
    let mut room = room;
    let mut each = |record: &[u8]| {
        let event = DropEvent::read_from_bytes(record).unwrap();
        let taken = room > 0;
        if taken {
            room -= 1;
            *heard.entry(port(&event)).or_default() += event.count;
        }
        taken
    };
    flows.sweep(None, look, &mut each).unwrap();
}

#[test]
fn where_more_flows_go_on_than_are_taken_each_has_its_turn() {
    let mut flows = with(10);
    let mut heard = Heard::new();
    for looks in 1..=3 {
        sweep(&mut flows, &mut heard, 4, LOOK);
        assert_eq!(heard.len(), (4 * looks).min(10), "{heard:?}");
        assert_eq!(flows.is_owing(), looks < 3);
        assert_eq!(flows.is_caught_up(), looks == 3);
        assert!(flows.is_unmarked(), "marks can be had in the middle of it");
        go_on(&mut flows);
    }
    // The next round begins with the first again, and tells all that came meanwhile.
    for _ in 0..3 {
        sweep(&mut flows, &mut heard, 4, LOOK);
    }
    let counted: Heard = (0..10).map(|port| (port, 4)).collect();
    assert_eq!(heard, counted);
    assert!(!flows.is_owing());
}

#[test]
fn what_came_in_the_middle_of_a_round_is_not_forgotten_when_nothing_more_comes() {
    let mut flows = with(3);
    let mut heard = Heard::new();
    let counted = Some(Counted {
        folded: 3,
        ..Counted::default()
    });
    sweep(&mut flows, &mut heard, 2, LOOK);
    go_on(&mut flows);
    for _ in 0..2 {
        let mut each = |record: &[u8]| {
            let event = DropEvent::read_from_bytes(record).unwrap();
            *heard.entry(port(&event)).or_default() += event.count;
            true
        };
        flows.sweep(counted, LOOK, &mut each).unwrap();
    }
    assert_eq!(heard, (0..3).map(|port| (port, 2)).collect());
}

#[test]
fn after_a_refusal_the_rest_is_not_even_looked_at() {
    let mut flows = with(10);
    sweep(&mut flows, &mut Heard::new(), 4, LOOK);
    assert_eq!(flows.tables.looked_at.get(), 5);
}

#[test]
fn a_flow_that_the_ring_told_first_is_told_on_in_the_same_round() {
    let mut flows = with(2);
    go_on(&mut flows);
    let mut heard = Heard::new();
    flows.first(event(0).as_bytes(), &mut |_| true);
    sweep(&mut flows, &mut heard, 10, LOOK);
    assert_eq!(heard, Heard::from([(0, 1), (1, 2)]));
    assert!(flows.is_caught_up());
}

#[test]
fn what_found_no_room_is_told_once_it_is_taken() {
    let mut flows = with(1);
    flows.tables.overflow = BTreeMap::from([(0, 5), (3, 7)]);
    let mut told = 0;
    for room in [1, 1, 1, 1] {
        let mut room = room;
        let mut each = |record: &[u8]| {
            let taken = room > 0;
            room = 0;
            if taken {
                told += DropEvent::read_from_bytes(record).unwrap().count;
            }
            taken
        };
        let counted = Some(Counted {
            overflowed: 12,
            ..Counted::default()
        });
        flows.sweep(counted, LOOK, &mut each).unwrap();
    }
    assert_eq!(told, 13);
    assert!(!flows.is_owing());
}

#[tokio::test(start_paused = true)]
async fn a_flow_leaves_once_it_is_idle_and_what_was_told_of_it_is_kept() {
    let idle = Look {
        now_ns: u64::try_from(IDLE.as_nanos()).unwrap(),
        ..LOOK
    };
    let mut flows = with(2);
    let mut heard = Heard::new();
    sweep(&mut flows, &mut heard, 10, idle);
    let _lost = flows.marks("generation".into());
    // Told again, of which only the second marks know.
    go_on(&mut flows);
    sweep(&mut flows, &mut heard, 1, idle);
    let mut left = |flows: &mut Flows<Fake>, kept_marks| {
        let look = Look { kept_marks, ..idle };
        sweep(flows, &mut heard, 10, look);
        flows.tables.flows.len()
    };
    tokio::time::advance(IDLE_UNDER_PRESSURE).await;
    assert_eq!(left(&mut flows, None), 2);
    tokio::time::advance(IDLE_UNDER_PRESSURE).await;
    assert_eq!(left(&mut flows, Some(1)), 2);
    tokio::time::advance(IDLE_UNDER_PRESSURE).await;
    assert_eq!(left(&mut flows, Some(2)), 0);
    assert_eq!(heard, Heard::from([(0, 2), (1, 2)]));
}

#[test]
fn what_a_packet_carries_its_repeats_carry_too() {
    for carried in [0, 7] {
        let mut flows = with(1);
        let mut first = event(0);
        first.carried = carried;
        first.captured = 3;
        first.packet[..3].copy_from_slice(b"abc");
        let (key, value) = &mut flows.tables.flows[0];
        *key = FlowKey::of(&first);
        value
            .head
            .as_mut_bytes()
            .copy_from_slice(&first.as_bytes()[..HEAD]);
        let mut told = Vec::new();
        let mut each = |record: &[u8]| {
            told.push(DropEvent::read_from_bytes(record).unwrap());
            true
        };
        flows.first(first.as_bytes(), &mut each);
        go_on(&mut flows);
        flows.sweep(None, LOOK, &mut each).unwrap();
        go_on(&mut flows);
        flows.sweep(None, LOOK, &mut each).unwrap();
        assert_eq!(told.len(), 3);
        for repeat in &told[1..] {
            let remembered = repeat.fields & field::REMEMBERED != 0;
            assert_eq!(remembered, carried != 0);
            assert_eq!(
                &repeat.packet[..usize::from(repeat.captured)],
                if remembered { &b"abc"[..] } else { b"" }
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_leaves_as_soon_as_it_was_idle_for_as_long_as_is_set() {
    let mut flows = with(2);
    flows.idle = Duration::from_secs(2);
    let mut heard = Heard::new();
    let marked = |now_ns| Look {
        now_ns,
        kept_marks: Some(1),
        ..LOOK
    };
    sweep(&mut flows, &mut heard, 10, marked(0));
    tokio::time::advance(Duration::from_secs(2)).await;
    sweep(&mut flows, &mut heard, 10, marked(1_999_999_999));
    assert_eq!(flows.tables.flows.len(), 2);
    tokio::time::advance(Duration::from_secs(2)).await;
    sweep(&mut flows, &mut heard, 10, marked(2_000_000_000));
    assert_eq!(flows.tables.flows.len(), 0);
    assert_eq!(heard, Heard::from([(0, 1), (1, 1)]));
}
