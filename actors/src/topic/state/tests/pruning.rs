//! Which links a duplicate cuts, and that a publisher is never left without one.

use super::*;

fn sent_to(effects: &[Effect], class: Class) -> Vec<EndpointId> {
    let of_class = |effect: &Effect| match effect {
        Effect::Send { to, message } if wire::classify(message) == class => Some(*to),
        _ => None,
    };
    effects.iter().filter_map(of_class).collect()
}

/// A state with these neighbours, all of whom it pushes to.
fn among(neighbors: &[u8], now: Instant) -> State {
    let mut state = state(1, now);
    for seed in neighbors {
        state.on_message(key(*seed), 1, inbound(&wire::join(), key(1)), now);
    }
    assert_eq!(state.neighbors().len(), neighbors.len());
    state
}

#[test]
fn a_link_that_has_just_brought_something_new_outlives_a_duplicate_and_an_idle_one_does_not() {
    let start = Instant::now();
    let mut state = among(&[2, 3], start);
    let mut hear = |from: u8, text: &str, after: u64| {
        let now = start + Duration::from_millis(after);
        let effects = state.on_message(key(from), 1, inbound(&payload(text.as_bytes()), key(1)), now);
        (sent_to(&effects, Class::Announce), sent_to(&effects, Class::Payload))
    };
    let nobody = Vec::new;
    assert_eq!(hear(2, "a", 0), (nobody(), vec![key(3)]));
    assert_eq!(hear(3, "b", 1), (nobody(), vec![key(2)]));
    // As in a burst, where each of them is first with something.
    assert_eq!(hear(3, "a", 2), (nobody(), nobody()), "spared");
    assert_eq!(hear(2, "b", 3), (nobody(), nobody()), "spared");
    assert_eq!(hear(2, "c", 4), (nobody(), vec![key(3)]), "our end of a spared link is not cut either");
    assert_eq!(hear(3, "c", 100), (vec![key(3)], nobody()), "nothing new for long: pruned at once, as the paper says");
    assert_eq!(hear(2, "d", 101), (nobody(), nobody()), "and no longer pushed to");
}

#[test]
fn of_two_links_that_keep_bringing_news_one_is_cut_in_the_end() {
    let start = Instant::now();
    let mut state = among(&[2, 3], start);
    let mut cut = 0;
    for number in 0..5_000u32 {
        let now = start + Duration::from_micros(100) * number;
        let message = payload(&number.to_be_bytes());
        let (first, second) = if number % 2 == 0 { (2, 3) } else { (3, 2) };
        state.on_message(key(first), 1, inbound(&message, key(1)), now);
        let effects = state.on_message(key(second), 1, inbound(&message, key(1)), now);
        cut += sent_to(&effects, Class::Announce).len();
    }
    assert!((2..40).contains(&cut), "{cut} of 5000 duplicates cut a link where one in 512 should");
}

#[test]
fn what_is_published_is_pushed_to_one_neighbour_even_if_all_have_pruned() {
    let now = Instant::now();
    let mut state = among(&[2, 3, 4], now);
    let publish = |state: &mut State, text: &'static str| {
        let (_repeated, effects) = state.on_publish(Bytes::from_static(text.as_bytes()), now).expect("short enough");
        sent_to(&effects, Class::Payload)
    };
    assert_eq!(publish(&mut state, "a").len(), 3);
    let prune = message(&[1, 1]);
    for seed in [2, 3, 4] {
        state.on_message(key(seed), 1, inbound(&prune, key(1)), now);
    }
    let pushed_to = publish(&mut state, "b");
    assert_eq!(pushed_to.len(), 1);
    assert_eq!(publish(&mut state, "c"), pushed_to, "and so is what follows");

    let mut state = among(&[2], now);
    state.on_message(key(2), 1, inbound(&prune, key(1)), now);
    assert_eq!(publish(&mut state, "d"), [], "the Prune of an only neighbour is heeded");
}
