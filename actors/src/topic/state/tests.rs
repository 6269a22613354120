//! Scripts for the thinking half of a topic, on virtual time. Storms over a virtual network are in `tests/storm.rs`.

use super::{housekeeping::ANSWER_WAIT, kept::ENTRY_BYTES, *};
use crate::wire::inspect::inspect;

fn key(seed: u8) -> EndpointId {
    iroh::SecretKey::from_bytes(&[seed; 32]).public()
}

fn state(seed: u8, now: Instant) -> State {
    State::new(key(seed), Limits::default(), StdRng::seed_from_u64(u64::from(seed)), now)
}

/// What `from` would hear of a message: through the codec and the inspector, as over a real connection.
fn inbound(message: &ProtoMessage, me: EndpointId) -> Inbound {
    let frame = wire::encode(message).expect("a message that fits");
    inspect(&frame[4..], &me).expect("a message that may enter")
}

fn message(body: &[u8]) -> ProtoMessage {
    postcard::from_bytes(body).expect("a valid body")
}

fn payload(content: &[u8]) -> ProtoMessage {
    let mut body = vec![1, 0];
    body.extend(blake3::hash(content).as_bytes());
    body.push(u8::try_from(content.len()).expect("a short content"));
    body.extend(content);
    body.extend([0, 0]);
    message(&body)
}

fn ihave(ids: impl Iterator<Item = u64>) -> ProtoMessage {
    let ids: Vec<_> = ids.collect();
    let mut body = vec![1, 3, u8::try_from(ids.len()).expect("few ids")];
    for id in ids {
        body.extend(made_up_id(id));
        body.push(0);
    }
    message(&body)
}

fn made_up_id(id: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&id.to_be_bytes());
    bytes
}

/// Entries of a private map or set of the protocol's state, read from its description.
fn entries(state: &State, field: &str) -> usize {
    let text = state.describe();
    let start = text.find(&format!("{field}: {{")).unwrap_or_else(|| panic!("no field {field} in {text}"));
    let (mut depth, mut commas, mut any) = (0, 0, false);
    for byte in text[start + field.len() + 2..].bytes() {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' if depth == 1 => break,
            b'}' | b']' | b')' => depth -= 1,
            b',' if depth == 1 => commas += 1,
            b' ' => {}
            _ => any = true,
        }
    }
    if any { commas + 1 } else { 0 }
}

const PRIVATE_MAPS: [&str; 7] = [
    "pending_neighbor_requests",
    "peer_data",
    "alive_disconnect_peers",
    "missing_messages",
    "lazy_push_queue",
    "eager_push_peers",
    "lazy_push_peers",
];

/// Lets `state` keep house for `period` from `now`, and returns all it wanted meanwhile.
fn pass_time(state: &mut State, now: &mut Instant, period: Duration) -> Vec<Effect> {
    let end = *now + period;
    let mut effects = Vec::new();
    while state.next_deadline() <= end {
        *now = state.next_deadline();
        effects.extend(state.on_deadlines(*now));
    }
    *now = end;
    effects
}

#[test]
fn a_lonely_topic_asks_its_bootstrap_again_with_growing_pauses() {
    let mut now = Instant::now();
    let mut state = state(1, now);
    let joins = |effects: Vec<Effect>| {
        effects.iter().filter(|effect| matches!(effect, Effect::Send { to, .. } if *to == key(2))).count()
    };
    assert_eq!(joins(state.on_join(vec![key(1), key(2)], now)), 1, "asked at once, and not itself");
    let first_minute = joins(pass_time(&mut state, &mut now, Duration::from_secs(60)));
    let second_minute = joins(pass_time(&mut state, &mut now, Duration::from_secs(60)));
    assert!((4..=10).contains(&first_minute), "{first_minute} attempts in the first minute");
    assert!((2..=4).contains(&second_minute), "{second_minute} attempts in the second minute");
}

#[test]
fn a_stranger_that_falls_silent_is_parted_from_and_leaves_no_trace() {
    let mut now = Instant::now();
    let mut state = state(1, now);
    // The end of someone's random walk: a ShuffleReply from a remote that is no neighbour.
    state.on_message(key(2), 1, inbound(&wire::farewell(), key(1)), now);
    assert!(state.is_open(&key(2)));
    let effects = pass_time(&mut state, &mut now, Limits::default().linger + Duration::from_secs(1));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Farewell(peer) if *peer == key(2))));
    assert!(!state.is_open(&key(2)), "parting: no lease is to be held");
    pass_time(&mut state, &mut now, Limits::default().farewell_timeout + Duration::from_secs(1));
    assert_eq!(state.contacts(), 0);
    for map in PRIVATE_MAPS {
        assert_eq!(entries(&state, map), 0, "{map}");
    }
}

#[test]
fn a_word_during_the_parting_takes_it_back() {
    let mut now = Instant::now();
    let mut state = state(1, now);
    state.on_message(key(2), 1, inbound(&wire::farewell(), key(1)), now);
    pass_time(&mut state, &mut now, Limits::default().linger + Duration::from_secs(1));
    assert!(!state.is_open(&key(2)));
    let join = message(&[0, 0, 0]);
    let effects = state.on_message(key(2), 1, inbound(&join, key(1)), now);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Emit(Event::NeighborUp(peer)) if *peer == key(2))));
    pass_time(&mut state, &mut now, Duration::from_secs(30));
    assert_eq!(state.neighbors().collect::<Vec<_>>(), [key(2)]);
}

#[test]
fn a_stranger_that_believes_to_be_a_neighbour_is_told_otherwise() {
    let mut now = Instant::now();
    let mut state = state(1, now);
    let mut told = false;
    for second in 0..20u64 {
        state.on_message(key(2), 1, inbound(&payload(&second.to_be_bytes()), key(1)), now);
        let effects = pass_time(&mut state, &mut now, Duration::from_secs(1));
        told |= effects
            .iter()
            .any(|effect| matches!(effect, Effect::Send { to, message } if *to == key(2) && message.is_disconnect()));
        assert!(second > 10 || !told, "not before its patience is over");
    }
    assert!(told);
}

#[test]
fn every_way_to_lose_a_neighbour_has_its_reason() {
    let now = Instant::now();
    let join = message(&[0, 0, 0]);
    let reason_after = |lose: &dyn Fn(&mut State) -> Vec<Effect>| {
        let mut state = state(1, now);
        state.on_message(key(2), 1, inbound(&join, key(1)), now);
        lose(&mut state).into_iter().find_map(|effect| match effect {
            Effect::Emit(Event::NeighborDown { reason, .. }) => Some(reason),
            _ => None,
        })
    };
    let goodbye = |state: &mut State| state.on_message(key(2), 1, inbound(&wire::disconnect(false), key(1)), now);
    assert_eq!(reason_after(&goodbye), Some(DownReason::Left));
    assert_eq!(reason_after(&|state| state.on_gone(key(2), Gone::Lost, now)), Some(DownReason::ConnectionLost));
    let mute = |connection| {
        reason_after(&|state| {
            state.on_stream_ended(key(2), connection, now);
            pass_time(state, &mut now.clone(), STREAM_END_GRACE * 2)
        })
    };
    assert_eq!(mute(1), Some(DownReason::ConnectionLost));
    assert_eq!(mute(0), None, "an older connection's stream");
    let crowd = |state: &mut State| {
        (3..=7).flat_map(|seed| state.on_message(key(seed), 1, inbound(&join, key(1)), now)).collect()
    };
    assert_eq!(reason_after(&crowd), Some(DownReason::Evicted));
}

#[test]
fn a_neighbour_that_was_restarted_is_answered() {
    let now = Instant::now();
    let mut state = state(1, now);
    for connection in 1..5 {
        // Over a new connection each time, as a restarted node does.
        let effects = state.on_message(key(2), connection, inbound(&wire::join(), key(1)), now);
        let answers = effects.iter().filter(|effect| matches!(effect, Effect::Send { to, .. } if *to == key(2)));
        assert_eq!(answers.count(), 1, "join {connection} is answered");
        assert_eq!(state.neighbors().collect::<Vec<_>>(), [key(2)]);
    }
}

#[test]
fn a_neighbour_that_joins_again_and_again_is_answered_once() {
    let now = Instant::now();
    let mut state = state(1, now);
    state.on_message(key(2), 1, inbound(&wire::join(), key(1)), now);
    state.on_message(key(3), 1, inbound(&wire::join(), key(1)), now);
    let answered = (0..100).filter(|_| {
        let effects = state.on_message(key(2), 1, inbound(&wire::join(), key(1)), now);
        !matches!(effects[..], [Effect::Count(Reason::JoinRepeated, 1)])
    });
    assert_eq!(answered.count(), 1, "each answer would start a walk through our other neighbours");
}

#[test]
fn a_view_is_filled_again_although_its_neighbours_came_by_themselves() {
    let mut now = Instant::now();
    let mut state = state(1, now);
    for seed in 2..=6 {
        state.on_message(key(seed), 1, inbound(&wire::join(), key(1)), now);
    }
    assert_eq!(entries(&state, "pending_neighbor_requests"), 5, "the protocol waits for answers to its answers");
    pass_time(&mut state, &mut now, ANSWER_WAIT * 2);
    assert_eq!(entries(&state, "pending_neighbor_requests"), 0);
    assert_eq!(state.neighbors().len(), 5);
    // One makes room and another leaves: the first is asked back at once.
    state.on_message(key(2), 1, inbound(&wire::disconnect(true), key(1)), now);
    let effects = state.on_gone(key(3), Gone::Lost, now);
    let asks =
        |effect: &Effect| matches!(effect, Effect::Send { to, message } if *to == key(2) && wire::is_neighbor(message));
    assert!(effects.iter().any(asks), "{effects:?}");
}

#[test]
fn a_refusal_silences_our_requests_and_not_our_answers() {
    let now = Instant::now();
    let mut state = state(1, now);
    state.on_message(key(2), 1, inbound(&wire::disconnect(true), key(1)), now);
    let effects = state.on_message(key(2), 1, inbound(&wire::neighbor_request(), key(1)), now);
    let answers = |effect: &Effect| matches!(effect, Effect::Send { to, .. } if *to == key(2));
    assert!(effects.iter().any(answers), "or it would never know that we are neighbours: {effects:?}");
}

#[test]
fn a_stranger_cannot_make_us_dial_or_push() {
    let now = Instant::now();
    let mut state = state(1, now);
    let mut walk_end = vec![0, 2];
    walk_end.extend(key(9).as_bytes());
    walk_end.extend([0, 0]);
    for forged in [message(&walk_end), message(&[1, 1]), ihave(1..2)] {
        let effects = state.on_message(key(2), 1, inbound(&forged, key(1)), now);
        assert!(matches!(effects[..], [Effect::Count(Reason::FromStranger, 1)]), "{effects:?}");
    }
}

#[test]
fn whoever_is_parted_from_in_order_stays_known() {
    for (how, stays) in [(Gone::Retired, true), (Gone::NotDialed, true), (Gone::Lost, false)] {
        let now = Instant::now();
        let mut state = state(1, now);
        // A neighbour introduces another node, which then gets in touch.
        state.on_message(key(3), 1, inbound(&wire::join(), key(1)), now);
        let introduction = inbound(&wire::farewell(), key(1));
        let address = crate::wire::addr::AddrInfo::default();
        let introduction = Inbound { learned: vec![(key(2), address)], ..introduction };
        state.on_message(key(3), 1, introduction, now);
        state.on_message(key(2), 1, inbound(&wire::farewell(), key(1)), now);
        state.on_gone(key(2), how, now);
        assert_eq!(state.acquaintances.candidates(&state.neighbors).contains(&key(2)), stays, "{how:?}");
        assert_eq!(state.contacts(), 1, "the neighbour");
    }
}

#[test]
fn a_connection_replaced_by_another_ends_without_a_loss() {
    let mut now = Instant::now();
    let mut state = state(1, now);
    state.on_message(key(2), 7, inbound(&wire::join(), key(1)), now);
    // The remote moves to another connection, which this side happens to have numbered lower.
    state.on_message(key(2), 4, inbound(&wire::farewell(), key(1)), now);
    state.on_stream_ended(key(2), 7, now);
    let effects = pass_time(&mut state, &mut now, STREAM_END_GRACE * 3);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Emit(_))), "{effects:?}");
    assert_eq!(state.neighbors().len(), 1);
}

#[test]
fn announcements_cannot_grow_the_state_without_bound() {
    let mut now = Instant::now();
    let mut state = state(1, now);
    let limit = Limits::default().announced_max;
    state.on_message(key(2), 1, inbound(&wire::join(), key(1)), now);
    let mut dropped = 0;
    let mut most = 0;
    // All at once, then a steady stream that outlives every timer.
    for frame in 0..3000u64 {
        let announcement = ihave(frame * 100..(frame + 1) * 100);
        for effect in state.on_message(key(2), 1, inbound(&announcement, key(1)), now) {
            dropped += u64::from(matches!(effect, Effect::Count(Reason::AnnouncementsDropped, _)));
        }
        if frame >= 1000 {
            pass_time(&mut state, &mut now, Duration::from_millis(2));
        }
        if frame % 100 == 0 {
            most = most.max(entries(&state, "missing_messages"));
        }
    }
    assert!(dropped > 800, "{dropped} frames dropped");
    assert!(most <= 2 * limit + 100, "{most} messages remembered as missing");
    pass_time(&mut state, &mut now, Duration::from_secs(60));
    assert_eq!(entries(&state, "missing_messages"), 0, "what never arrives is swept");
    assert_eq!((state.timers.questions(), state.timers.evictions()), (0, 1), "only the cache is still evicted");
}

#[test]
fn the_same_announcement_again_and_again_is_refused() {
    let now = Instant::now();
    let mut state = state(1, now);
    for seed in [2, 3] {
        state.on_message(key(seed), 1, inbound(&wire::join(), key(1)), now);
    }
    let refused = (0..100)
        .filter(|_| {
            let again = inbound(&ihave(7..8), key(1));
            matches!(state.on_message(key(2), 1, again, now)[..], [Effect::Count(Reason::AnnouncementsDropped, 1)])
        })
        .count();
    assert_eq!(refused, 99);
    let effects = state.on_message(key(2), 1, inbound(&ihave(7..10), key(1)), now);
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Count(Reason::AnnouncementsDropped, 1))),
        "{effects:?}"
    );
    assert_eq!(entries(&state, "missing_messages"), 3, "what is new beside it is taken");
    let from_another = state.on_message(key(3), 1, inbound(&ihave(7..8), key(1)), now);
    assert!(from_another.is_empty(), "another remote may announce the same: {from_another:?}");
}

#[test]
fn nothing_is_ever_sent_to_ourselves() {
    let now = Instant::now();
    let mut state = state(1, now);
    let join = message(&[0, 0, 0]);
    state.on_message(key(2), 1, inbound(&join, key(1)), now);
    // Past the inspector, as a later version of it might let it: an introduction of ourselves.
    let mut introduction = vec![0, 1];
    introduction.extend(key(1).as_bytes());
    introduction.extend([0, 6]);
    let forged = Inbound { message: message(&introduction), ..inbound(&join, key(1)) };
    let effects = state.on_message(key(2), 1, forged, now);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Count(Reason::SelfAddressed, 1))));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Send { to, .. } if *to == key(1))));
    assert_eq!(entries(&state, "pending_neighbor_requests"), 1, "the neighbour's, not ours");
}

#[test]
fn a_publish_tells_its_budget_and_a_repetition() {
    let now = Instant::now();
    let mut state = state(1, now);
    let too_large = state.on_publish(vec![0; CONTENT_MAX + 1].into(), now).unwrap_err();
    assert_eq!(too_large, PublishError::TooLarge { size: 4056, limit: 4055 });
    assert!(matches!(state.on_publish(vec![0; CONTENT_MAX].into(), now), Ok((false, _))));
    assert!(matches!(state.on_publish(vec![0; CONTENT_MAX].into(), now), Ok((true, _))));
}

mod approval;
mod pruning;
mod storm;

#[test]
fn the_messages_kept_are_those_of_the_protocol_and_go_with_them() {
    let start = Instant::now();
    let mut state = state(1, start);
    let (ids, cached) = (STORES.iter().position(|store| store.0 == "message_ids"), 3);
    assert_eq!((ids, STORES[cached].0, STORES[cached + 1].0), (Some(2), "message_cache", "message_cache_bytes"));
    for number in 0..50u8 {
        state.on_publish(Bytes::from(vec![number; 20]), start).expect("short enough");
        state.on_publish(Bytes::from(vec![number; 20]), start).expect("short enough");
        state.on_message(key(2), 1, inbound(&payload(&[number; 10]), key(1)), start);
    }
    let sizes = state.sizes();
    assert_eq!((sizes[2], sizes[3], sizes[4]), (100, 100, 50 * 30));
    assert_eq!(entries(&state, "received_messages: TimeBoundCache { map"), 100);
    let mut now = start;
    let mut run_to = |state: &mut State, seconds| {
        while now < start + Duration::from_secs(seconds) {
            now = state.next_deadline().max(now);
            state.on_deadlines(now);
        }
    };
    run_to(&mut state, 13);
    let sizes = state.sizes();
    assert_eq!((sizes[2], sizes[3], sizes[4]), (100, 0, 0), "content is kept for 10 s, ids for 100 s");
    run_to(&mut state, 103);
    assert_eq!(state.sizes()[2], 0);
    assert_eq!(entries(&state, "received_messages: TimeBoundCache { map"), 0);
}

#[test]
fn content_beyond_its_bytes_goes_early_and_its_id_stays() {
    let start = Instant::now();
    let limits = Limits { message_cache_bytes_max: 64 * FRAME_MAX, ..Limits::default() };
    let mut state = State::new(key(1), limits.clone(), StdRng::seed_from_u64(1), start);
    let published = 2000u64;
    for number in 0..published {
        let (content, now) = (number.to_be_bytes().repeat(16), start + Duration::from_millis(number));
        state.on_publish(Bytes::from(content), now).expect("short enough");
    }
    let cached = entries(&state, "cache: TimeBoundCache { map");
    let fit = limits.message_cache_bytes_max / (128 + ENTRY_BYTES);
    assert!((fit / 2..=fit).contains(&cached), "{cached} of {published} are kept where {fit} fit");
    assert_eq!(state.sizes()[3], cached);
    assert_eq!(entries(&state, "received_messages: TimeBoundCache { map"), published as usize);
    assert_eq!(state.timers.evictions(), 1, "what was dropped early did not set the clock once more");
}
