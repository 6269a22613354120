//! That looking at oneself leaves nothing behind. A process of its own, because its whole heap is counted.

use perennial::Vitals;

#[global_allocator]
static HEAP: perennial_heap::Counting = perennial_heap::Counting;

#[test]
fn ten_thousand_looks_at_this_process_leave_nothing_on_its_heap() {
    // Whatever the first ones set up for good.
    let first = (0..100).map(|_| Vitals::read()).next_back().expect("there were some");
    assert!(first.rss_bytes > Some(0) && first.open_fds > Some(2) && first.threads > Some(0), "{first:?}");
    assert!(perennial_heap::live().blocks > 0, "the heap is counted");
    let look = || assert!(Vitals::read().cpu.is_some());
    assert_eq!(left_by(10_000, look), [0, 0], "not a byte, not a block");

    // And that it would be noticed.
    let mut kept = Vec::with_capacity(ROUNDS);
    let [bytes, blocks] = left_by(1, || kept.push(Box::new(Vitals::read())));
    assert_eq!([bytes, blocks], [size_of::<Vitals>() as i64, 1]);
}

/// Another round, if the thread of the test harness allocated something of its own during the last one.
const ROUNDS: usize = 5;

/// Bytes and blocks that so many calls leave on the heap, by the round that left least.
fn left_by(calls: usize, mut call: impl FnMut()) -> [i64; 2] {
    let round = |_| {
        let before = perennial_heap::live();
        (0..calls).for_each(|_| call());
        let after = perennial_heap::live();
        [after.bytes as i64 - before.bytes as i64, after.blocks as i64 - before.blocks as i64]
    };
    (0..ROUNDS).map(round).min_by_key(|[bytes, blocks]| (bytes.abs(), blocks.abs())).expect("there are some rounds")
}
