//! Statistics that assume no distribution: medians, slopes with exact bounds, ratios of pairs. `[pure]`
//!
//! Two ideas carry the file. A slope is the median of all pairwise slopes (Theil 1950, Sen 1968), and its bounds come from
//! the exact null distribution of Kendall's S (Hollander & Wolfe, *Nonparametric Statistical Methods*, §9.3), so that
//! neither normality nor a large sample is assumed. A ratio of two programs comes from pairs of runs, and its interval
//! from signed ranks or from signs alone (ibid., §3.2 and §3.6). What the figures mean is `judge/`.

use std::cmp::Ordering;

/// The most points a slope is taken over: the table costs `n³`, and a run has few barriers.
pub const POINTS_MAX: usize = 512;

/// The value in the middle, or the mean of the two. `None` without values.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The quantile `share` in 0..=1, interpolated between neighbours (definition 7 of Hyndman & Fan 1996, the default of R
/// and NumPy). `None` without values.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let sorted = sorted(values);
    let at = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

/// The nearest-rank percentile: the smallest of the values that at least `percent` of them do not exceed, so that a value is
/// told that occurred. `None` without values.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    sorted(values).get(rank.max(1) - 1).copied()
}

/// The exact null distribution of Kendall's S over `n` untied points.
///
/// With ties S varies less than this says, so a bound taken from here is too wide and never too narrow.
#[derive(Debug, Clone)]
pub struct Kendall {
    pairs: i64,
    /// `P(inversions ≤ i)`.
    cumulative: Vec<f64>,
}

impl Kendall {
    /// The distribution for `n` points.
    ///
    /// Shares of permutations by their number of inversions: the point that comes last adds any number of inversions from
    /// 0 to `n − 1` with equal chance, so each row is a moving average of the one before. Only positive terms are added,
    /// hence no digits are lost where counting permutations would overflow any integer.
    ///
    /// # Panics
    /// Beyond [`POINTS_MAX`] points.
    pub fn new(n: usize) -> Self {
        assert!(n <= POINTS_MAX, "{n} points exceed {POINTS_MAX}");
        let mut shares = vec![1.0];
        for points in 2..=n {
            let mut next = vec![0.0; shares.len() + points - 1];
            for (inversions, share) in shares.iter().enumerate() {
                for more in 0..points {
                    next[inversions + more] += share / points as f64;
                }
            }
            shares = next;
        }
        let mut sum = 0.0;
        let cumulative = shares.iter().map(|share| {
            sum += share;
            sum
        });
        Self { pairs: (n * n.saturating_sub(1) / 2) as i64, cumulative: cumulative.collect() }
    }

    /// `P(S ≥ s)` when there is no trend.
    pub fn tail(&self, s: i64) -> f64 {
        // S and the number of pairs differ by twice the inversions.
        let inversions = (self.pairs - s).div_euclid(2);
        if inversions < 0 { 0.0 } else { self.cumulative.get(inversions as usize).copied().unwrap_or(1.0) }
    }

    /// The smallest S that happens with a chance of at most `alpha` when there is no trend. `None` where even a perfect
    /// order is more likely than that.
    pub fn critical(&self, alpha: f64) -> Option<i64> {
        (0..=self.pairs).filter(|s| (self.pairs - s) % 2 == 0).find(|s| self.tail(*s) <= alpha)
    }
}

/// A slope and where it may lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slope {
    /// The median of the pairwise slopes.
    pub estimate: f64,
    /// The true slope is below this with a chance of at most `alpha`.
    pub lower: f64,
    /// The true slope is above this with a chance of at most `alpha`.
    pub upper: f64,
}

/// The Theil–Sen slope of `(x, y)` with one-sided bounds at `alpha` each.
///
/// Points that share their x have no slope between them; for the lower bound each such pair counts as a steep fall and
/// for the upper as a steep rise, so that lost information widens the interval. `None` below three points or where the
/// points are too few for `alpha`.
pub fn theil_sen(points: &[(f64, f64)], alpha: f64) -> Option<Slope> {
    if points.len() < 3 {
        return None;
    }
    let mut slopes = Vec::new();
    for (at, (x, y)) in points.iter().enumerate() {
        for (later_x, later_y) in &points[at + 1..] {
            if later_x != x {
                slopes.push((later_y - y) / (later_x - x));
            }
        }
    }
    slopes.sort_by(f64::total_cmp);
    let pairs = points.len() * (points.len() - 1) / 2;
    let critical = Kendall::new(points.len()).critical(alpha)? as usize;
    let lost = pairs - slopes.len();
    let outside = (pairs - critical) / 2;
    let inner = |from_the_end: bool| {
        let at = outside.checked_sub(lost)?;
        let at = if from_the_end { slopes.len().checked_sub(at + 1)? } else { at };
        slopes.get(at).copied()
    };
    Some(Slope {
        estimate: median(&slopes)?,
        lower: inner(false).unwrap_or(f64::NEG_INFINITY),
        upper: inner(true).unwrap_or(f64::INFINITY),
    })
}

/// A location and where it may lie, two-sided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub estimate: f64,
    pub lower: f64,
    pub upper: f64,
}

/// The ratio `a / b` over pairs of positive figures: their geometric middle by Hodges and Lehmann, with the exact interval
/// of the signed-rank test at `1 − alpha`. `None` with a figure that is not positive, or with too few pairs for `alpha`:
/// below six for 5 %.
///
/// A ratio may be claimed only when the whole interval lies on one side of one.
pub fn ratio(pairs: &[(f64, f64)], alpha: f64) -> Option<Interval> {
    let logs: Option<Vec<f64>> = pairs.iter().map(|(a, b)| (*a > 0.0 && *b > 0.0).then(|| (a / b).ln())).collect();
    let Interval { estimate, lower, upper } = hodges_lehmann(&logs?, alpha)?;
    Some(Interval { estimate: estimate.exp(), lower: lower.exp(), upper: upper.exp() })
}

/// The median of all averages of two values, each with itself included, and the interval of the signed-rank test
/// (Hollander & Wolfe §3.2). The values must be spread alike on both sides of their centre.
pub fn hodges_lehmann(values: &[f64], alpha: f64) -> Option<Interval> {
    let mut averages = Vec::new();
    for (at, value) in values.iter().enumerate() {
        averages.extend(values[at..].iter().map(|other| (value + other) / 2.0));
    }
    averages.sort_by(f64::total_cmp);
    let outside = outside(&signed_ranks(values.len()), alpha)?;
    let estimate = median(&averages)?;
    Some(Interval { estimate, lower: averages[outside], upper: averages[averages.len() - 1 - outside] })
}

/// The median and the interval of the sign test (Hollander & Wolfe §3.6), which assumes nothing but independence.
pub fn sign_interval(values: &[f64], alpha: f64) -> Option<Interval> {
    let sorted = sorted(values);
    let mut shares = vec![1.0];
    for _ in values {
        shares = added(&shares, 1);
    }
    let outside = outside(&shares, alpha)?;
    let estimate = median(&sorted)?;
    Some(Interval { estimate, lower: sorted[outside], upper: sorted[sorted.len() - 1 - outside] })
}

/// An interval and the chance with which it covers what it is an interval of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Covered {
    pub interval: Interval,
    /// From 0 to 1.
    pub coverage: f64,
}

/// The median between two order statistics: the narrowest pair that covers the true one with a chance of at least
/// `1 − alpha` (Hollander & Wolfe §3.6), or, where so few values cannot, their whole range with the chance it has, which is
/// `1 − 2^(1 − n)`: nothing for one value, 93.75 % for five. `None` without values.
pub fn median_interval(values: &[f64], alpha: f64) -> Option<Covered> {
    let sorted = sorted(values);
    let last = sorted.len().checked_sub(1)?;
    let shares = values.iter().fold(vec![1.0], |shares, _| added(&shares, 1));
    let outside = outside(&shares, alpha).unwrap_or(0).min(last / 2);
    let missed: f64 = shares[..=outside].iter().sum();
    let interval = Interval { estimate: median(&sorted)?, lower: sorted[outside], upper: sorted[last - outside] };
    Some(Covered { interval, coverage: (1.0 - 2.0 * missed).max(0.0) })
}

/// Shares of the signed-rank sum over `n` values without a trend.
fn signed_ranks(n: usize) -> Vec<f64> {
    (1..=n).fold(vec![1.0], |shares, rank| added(&shares, rank))
}

/// The distribution of a sum after one more term that is `step` or nothing, with equal chance.
fn added(shares: &[f64], step: usize) -> Vec<f64> {
    let mut next = vec![0.0; shares.len() + step];
    for (sum, share) in shares.iter().enumerate() {
        next[sum] += share / 2.0;
        next[sum + step] += share / 2.0;
    }
    next
}

/// How many of the smallest outcomes may lie outside on each side at `alpha` over both; `None` for none at all.
fn outside(shares: &[f64], alpha: f64) -> Option<usize> {
    let mut sum = 0.0;
    let below = shares.iter().take_while(|share| {
        sum += **share;
        sum <= alpha / 2.0
    });
    below.count().checked_sub(1)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    sorted
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

    use super::*;

    #[test]
    fn kendalls_table_is_the_published_one() {
        // Critical S for one-sided 0.05, 0.025 and 0.01: tau of the usual tables times the number of pairs.
        let table = [
            (4, [Some(6), None, None]),
            (5, [Some(8), Some(10), Some(10)]),
            (8, [Some(16), Some(18), Some(20)]),
            (10, [Some(21), Some(23), Some(27)]),
            (12, [Some(26), Some(30), Some(36)]),
            (20, [Some(52), Some(62), Some(72)]),
            (30, [Some(95), Some(111), Some(131)]),
            (32, [None, None, Some(144)]),
            (40, [Some(144), Some(170), Some(200)]),
        ];
        for (n, criticals) in table {
            let kendall = Kendall::new(n);
            for (alpha, critical) in [0.05, 0.025, 0.01].into_iter().zip(criticals) {
                if critical.is_some() || n < 6 {
                    assert_eq!(kendall.critical(alpha), critical, "n = {n}, alpha = {alpha}");
                }
            }
        }
        assert!((Kendall::new(4).tail(6) - 1.0 / 24.0).abs() < 1e-12);
        assert!((Kendall::new(5).tail(8) - 5.0 / 120.0).abs() < 1e-12);
        for n in [60, 200] {
            assert!((Kendall::new(n).tail(-1_000_000) - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn the_worked_example_of_cloud_seeding_comes_out() {
        // Hollander & Wolfe, example 9.1: ratios of rainfall over five years.
        let points = [(1.0, 1.26), (2.0, 1.27), (3.0, 1.12), (4.0, 1.16), (5.0, 1.03)];
        let slope = theil_sen(&points, 0.0417).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(slope.estimate, -0.05625);
        close(slope.lower, -0.13);
        close(slope.upper, 0.01);
        assert_eq!(theil_sen(&points, 0.001), None, "five points cannot show 0.1 %");
    }

    #[test]
    fn a_slope_follows_shifts_and_scales() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        for _ in 0..200 {
            let n = rng.random_range(6..20);
            let points: Vec<(f64, f64)> = (0..n).map(|x| (f64::from(x), rng.random_range(-1.0..1.0))).collect();
            let (scale, tilt, shift) =
                (rng.random_range(0.1..9.0), rng.random_range(-5.0..5.0), rng.random_range(-9.0..9.0));
            let moved: Vec<_> = points.iter().map(|(x, y)| (x + shift, scale * y + tilt * x + shift)).collect();
            let turned: Vec<_> = points.iter().map(|(x, y)| (*x, -y)).collect();
            let before = theil_sen(&points, 0.05).unwrap();
            let (after, mirror) = (theil_sen(&moved, 0.05).unwrap(), theil_sen(&turned, 0.05).unwrap());
            let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
            close(after.estimate, scale * before.estimate + tilt);
            close(after.lower, scale * before.lower + tilt);
            close(after.upper, scale * before.upper + tilt);
            close(mirror.lower, -before.upper);
            assert!(before.lower <= before.estimate && before.estimate <= before.upper);
        }
    }

    #[test]
    fn lost_pairs_and_ties_only_widen() {
        let mut points: Vec<(f64, f64)> = (0..12).map(|x| (f64::from(x), f64::from(x * x % 7))).collect();
        let whole = theil_sen(&points, 0.01).unwrap();
        points[3].0 = points[4].0;
        let less = theil_sen(&points, 0.01).unwrap();
        assert!(less.upper - less.lower >= whole.upper - whole.lower, "{less:?} {whole:?}");
        let flat: Vec<(f64, f64)> = (0..12).map(|x| (f64::from(x), 5.0)).collect();
        assert_eq!(theil_sen(&flat, 0.01).unwrap(), Slope { estimate: 0.0, lower: 0.0, upper: 0.0 });
        let stacked = [(1.0, 0.0); 12];
        assert!(theil_sen(&stacked, 0.01).is_none_or(|slope| slope.upper.is_infinite()));
    }

    #[test]
    fn the_bounds_hold_as_often_as_they_say() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(11);
        let (runs, alpha) = (2000, 0.05);
        let mut outside = [0; 2];
        let mut ratios_outside = 0;
        for _ in 0..runs {
            let mut noise = || (0..6).map(|_| rng.random_range(-1.0..1.0)).sum::<f64>();
            let points: Vec<(f64, f64)> = (0..12).map(|x| (f64::from(x), 0.3 * f64::from(x) + noise())).collect();
            let slope = theil_sen(&points, alpha).unwrap();
            outside[0] += usize::from(slope.lower > 0.3);
            outside[1] += usize::from(slope.upper < 0.3);
            let pairs: Vec<(f64, f64)> = (0..8).map(|_| ((1.0 + noise() / 9.0).exp(), (noise() / 9.0).exp())).collect();
            let ratio = ratio(&pairs, alpha).unwrap();
            ratios_outside += usize::from(!(ratio.lower..=ratio.upper).contains(&1_f64.exp()));
        }
        // 100 are expected at most; 130 are three standard deviations more.
        assert!(outside.iter().all(|count| *count <= 130), "{outside:?} of {runs}");
        assert!(ratios_outside <= 130, "{ratios_outside} of {runs}");
    }

    #[test]
    fn medians_and_quantiles() {
        assert_eq!((median(&[]), median(&[3.0]), median(&[4.0, 1.0])), (None, Some(3.0), Some(2.5)));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.25), Some(2.0));
        assert_eq!(quantile(&[1.0, 2.0], 0.99), Some(1.99));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=300).map(f64::from).collect();
        assert_eq!(percentile(&values, 99.0), Some(297.0));
        assert_eq!(percentile(&values, 50.0), Some(150.0));
        assert_eq!(percentile(&values[..1], 99.0), Some(1.0));
        assert_eq!(percentile(&[], 99.0), None);
    }

    #[test]
    fn few_values_say_how_little_they_cover() {
        let coverage = |n: usize| median_interval(&vec![1.0; n], 0.05).unwrap().coverage;
        assert_eq!([coverage(1), coverage(2), coverage(5), coverage(6)], [0.0, 0.5, 0.9375, 0.96875]);
        assert_eq!(median_interval(&[], 0.05), None);
        // With twelve the second and the last but one would cover 99.4 %, the third 96.1 %, the fourth 85.4 %.
        let twelve: Vec<f64> = (1..=12).map(f64::from).collect();
        let covered = median_interval(&twelve, 0.05).unwrap();
        assert_eq!((covered.interval.lower, covered.interval.upper), (3.0, 10.0));
        assert!((covered.coverage - (1.0 - 2.0 * 79.0 / 4096.0)).abs() < 1e-12, "{covered:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_median_interval_keeps_its_order_and_its_word(values in vec(-1e6..1e6_f64, 1..40), alpha in 0.001..0.5_f64) {
            let Covered { interval, coverage } = median_interval(&values, alpha).unwrap();
            prop_assert!(interval.lower <= interval.estimate && interval.estimate <= interval.upper);
            prop_assert!(values.contains(&interval.lower) && values.contains(&interval.upper));
            let widest = 1.0 - 2_f64.powi(1 - values.len() as i32);
            prop_assert!(coverage <= widest + 1e-12);
            prop_assert!(coverage >= 1.0 - alpha - 1e-12 || (coverage - widest).abs() < 1e-12, "{coverage} of {alpha}");
            // Where the sign test reaches its level, both say the same.
            if let Some(same) = sign_interval(&values, alpha) {
                prop_assert_eq!(interval, same);
            }
        }

        #[test]
        fn a_median_interval_follows_any_rising_change(values in vec(0.1..1e3_f64, 1..30)) {
            // Order statistics go where any monotone function sends them; only the mean of two middles does not.
            let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
            let (plain, log) = (median_interval(&values, 0.05).unwrap(), median_interval(&logs, 0.05).unwrap());
            prop_assert_eq!(plain.coverage, log.coverage);
            prop_assert_eq!((plain.interval.lower.ln(), plain.interval.upper.ln()), (log.interval.lower, log.interval.upper));
        }

        #[test]
        fn more_confidence_is_never_narrower(values in vec(-1e3..1e3_f64, 1..40), alpha in 0.01..0.4_f64) {
            let (wide, narrow) = (median_interval(&values, alpha / 2.0).unwrap(), median_interval(&values, alpha).unwrap());
            prop_assert!(wide.interval.lower <= narrow.interval.lower && narrow.interval.upper <= wide.interval.upper);
            prop_assert!(wide.coverage >= narrow.coverage);
        }
    }

    #[test]
    fn intervals_of_pairs_are_the_published_ones() {
        // Hollander & Wolfe, example 3.1 (Hamilton's depression scale, nine patients): the estimate is -0.46, and the
        // interval at 96 % runs from -0.786 to -0.010.
        let changes = [-0.952, 0.147, -1.022, -0.430, -0.620, -0.590, -0.490, 0.080, -0.010];
        let interval = hodges_lehmann(&changes, 0.04).unwrap();
        assert!((interval.estimate + 0.46).abs() < 1e-9, "{interval:?}");
        assert!((interval.lower + 0.786).abs() < 1e-9 && (interval.upper + 0.010).abs() < 1e-9, "{interval:?}");
        // Signs alone: of nine, the second smallest and largest at 96.1 % (1 + 9 of 512 outcomes on each side).
        let signs = sign_interval(&changes, 0.04).unwrap();
        assert_eq!((signs.estimate, signs.lower, signs.upper), (-0.49, -0.952, 0.080));
        assert_eq!(ratio(&[(1.0, 2.0); 5], 0.05), None, "five pairs are too few for 95 %");
        assert_eq!(ratio(&[(1.0, 2.0); 6], 0.05).map(|ratio| ratio.upper), Some(0.5));
        assert_eq!(ratio(&[(1.0, 0.0); 6], 0.05), None);
    }
}
