//! That looking at oneself leaves nothing behind. A process of its own, because its whole heap is counted.

use perennial::Vitals;

#[global_allocator]
static HEAP: perennial_heap::Counting = perennial_heap::Counting;

#[test]
fn ten_thousand_looks_at_this_process_leave_nothing_on_its_heap() {
    // Whatever the first ones set up for good.
    let first = (0..100).map(|_| Vitals::read()).next_back().expect("there were some");
    assert!(first.rss_bytes > Some(0) && first.open_fds > Some(2) && first.threads > Some(0), "{first:?}");
    let before = perennial_heap::live();
    assert!(before.blocks > 0, "the heap is counted");
    let looks = (0..10_000).filter(|_| Vitals::read().cpu.is_some()).count();
    let after = perennial_heap::live();
    assert_eq!((looks, after), (10_000, before), "not a byte, not a block");

    // And that it would be noticed.
    let kept = Box::new(Vitals::read());
    assert_eq!(perennial_heap::live().blocks, before.blocks + 1, "{kept:?}");
}
