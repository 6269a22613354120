//! Every figure is within its budget, in both directions, and no bucket is larger than in the baseline.

mod program;

#[test]
fn every_figure_keeps_to_its_budget() {
    // Two minutes, most of them spent waiting until what is kept for a time is forgotten.
    let told = program::run(&["measure"]);
    program::expect_exit(0, &told);
}
