//! One row as a picture: every pair with both its figures on an axis that starts at zero. `[pure]`

use super::{row::Reading, table, verdict::Judged};
use crate::page::plot::{NAMESPACE, escape, nice_step, short};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 30.0;
const PAIR: f64 = 22.0;

/// The picture of a row. Figures below zero are drawn at zero, because what is left of noise is nothing.
pub(crate) fn svg(judged: &Judged, subjects: [&str; 2]) -> String {
    let height = TOP + BOTTOM + PAIR * judged.pairs.len() as f64;
    let told = judged.pairs.iter().flatten().filter_map(|side| side.as_ref().ok());
    let highest = told.map(|reading| reading.value()).filter(|value| value.is_finite()).fold(0.0, f64::max);
    let step = nice_step(highest);
    let most = (highest / step).ceil().max(1.0) * step;
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * (value / most).clamp(0.0, 1.0);
    let title = format!("{} {} ({})", judged.row.id, judged.row.title, judged.row.unit.name());
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"{NAMESPACE}\" role=\"img\">");
    out += &format!("<title>{}</title>", escape(&title));
    out += &format!("<text class=\"t\" x=\"{LEFT}\" y=\"16\">{}</text>", escape(&title));
    out += &format!(
        "<text text-anchor=\"end\" x=\"{:.1}\" y=\"16\">a ÷ b {}</text>",
        WIDTH - RIGHT,
        escape(&table::against(judged))
    );
    for (class, place, name) in [("a", LEFT, subjects[0]), ("b", LEFT + 260.0, subjects[1])] {
        out += &format!("<text class=\"{class}\" x=\"{place}\" y=\"36\">● {class} {}</text>", escape(name));
    }
    let bottom = height - BOTTOM;
    for tick in 0..=(most / step).round() as i64 {
        let (value, at) = (tick as f64 * step, x(tick as f64 * step));
        out += &format!("<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>");
        out += &format!(
            "<text text-anchor=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            height - 10.0,
            tick_label(value)
        );
    }
    for (number, pair) in judged.pairs.iter().enumerate() {
        let y = TOP + PAIR * (number as f64 + 0.5);
        out += &format!("<text x=\"8\" y=\"{:.1}\">pair {}</text>", y + 4.0, number + 1);
        if let [Ok(a), Ok(b)] = pair {
            let (a, b) = (x(a.value()), x(b.value()));
            out += &format!("<line class=\"grid\" x1=\"{a:.1}\" x2=\"{b:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        }
        for (side, class) in pair.iter().zip(["a", "b"]) {
            out += &side.as_ref().map_or(String::new(), |reading| dot(*reading, class, (x(reading.value()), y)));
        }
    }
    out + "</svg>"
}

/// A dot, with an arrow where the truth is larger.
fn dot(reading: Reading, class: &str, (x, y): (f64, f64)) -> String {
    let arrow = match reading {
        Reading::Is(_) => String::new(),
        Reading::AtLeast(_) => format!("<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">→</text>", x + 5.0, y + 4.0),
    };
    format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>{arrow}")
}

fn tick_label(value: f64) -> String {
    match value {
        large if large >= 1e6 => format!("{}M", short(large / 1e6)),
        large if large >= 1e4 => format!("{}k", short(large / 1e3)),
        small if small > 0.0 && small < 0.1 => format!("{small:.3}"),
        plain => short(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            row::{Goal, Kind, Row, Unit},
            verdict::{Circumstances, judge},
        },
        *,
    };

    #[test]
    fn every_told_figure_is_a_dot_and_zero_is_at_the_left() {
        const ROW: Row = Row {
            id: "P8-view",
            title: "a < b",
            unit: Unit::Seconds,
            kind: Kind::Time,
            goals: &[Goal::AtMost(2.0)],
            source: "made up",
        };
        let pairs =
            vec![[Ok(Reading::Is(-1.0)), Ok(Reading::AtLeast(20.0))], [Err("silent".into()), Ok(Reading::Is(10.0))]];
        let svg = svg(&judge(&ROW, pairs, Circumstances::default()), ["ours", "stock & co"]);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains(&format!("class=\"a\" cx=\"{LEFT:.1}\"")), "{svg}");
        assert_eq!(svg.matches('→').count(), 1);
        assert!(svg.contains("a &lt; b") && svg.contains("stock &amp; co") && !svg.contains("NaN"), "{svg}");
    }
}
