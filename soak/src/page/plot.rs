//! A line plot as SVG, drawn by hand: axes that start at zero, a shaded warm-up, a band, a rug of events. `[pure]`
//!
//! Colours come from classes, so that a page in the dark needs no second picture. Which figures are drawn is `page.rs`.

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 44.0;

/// Ticks of the rug. More would be one grey bar.
const RUG_MAX: usize = 400;

/// What is drawn.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    pub title: &'static str,
    pub unit: &'static str,
    /// The last event.
    pub x_max: f64,
    /// Events that were not judged.
    pub warm_up: f64,
    /// How long the run took, for the scale above.
    pub minutes: f64,
    pub rug: Vec<f64>,
    /// Events at which something went wrong.
    pub bad: Vec<f64>,
    pub lines: Vec<Line>,
    /// The corners of an area, in order.
    pub band: Vec<(f64, f64)>,
}

/// One series.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub name: &'static str,
    pub class: &'static str,
    pub points: Vec<(f64, f64)>,
    pub dots: bool,
}

impl Plot {
    /// The picture.
    pub(super) fn svg(&self) -> String {
        let drawn = self.lines.iter().flat_map(|line| &line.points).chain(&self.band);
        let highest = drawn.map(|point| point.1).filter(|y| y.is_finite()).fold(0.0, f64::max);
        let step = nice_step(highest);
        let y_max = (highest / step).ceil().max(1.0) * step;
        let frame = Frame { x_max: self.x_max.max(1.0), y_max };
        let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" xmlns=\"{NAMESPACE}\" role=\"img\">");
        out += &format!("<title>{}</title>", self.title);
        self.axes(&mut out, &frame, step);
        if !self.band.is_empty() && self.band.iter().all(|(x, y)| x.is_finite() && y.is_finite()) {
            out += &format!("<polygon class=\"band\" points=\"{}\"/>", frame.path(&self.band));
        }
        for line in &self.lines {
            self.line(&mut out, &frame, line);
        }
        self.legend(&mut out);
        self.rugs(&mut out, &frame);
        out + "</svg>"
    }

    fn axes(&self, out: &mut String, frame: &Frame, step: f64) {
        let width = frame.x(self.warm_up) - LEFT;
        if width > 0.0 {
            let height = HEIGHT - TOP - BOTTOM;
            *out +=
                &format!("<rect class=\"shade\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"/>");
            *out += &format!("<text x=\"{:.1}\" y=\"{:.1}\">warm-up</text>", LEFT + 4.0, TOP + 12.0);
        }
        let steps = (frame.y_max / step).round() as i64;
        for at in 0..=steps {
            let (value, y) = (at as f64 * step, frame.y(at as f64 * step));
            *out += &format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                WIDTH - RIGHT
            );
            let x = LEFT - 6.0;
            *out += &format!("<text text-anchor=\"end\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", y + 4.0, short(value));
        }
        let step = nice_step(frame.x_max);
        let ticks = (frame.x_max / step).floor() as i64;
        for at in 0..=ticks {
            let value = at as f64 * step;
            let (x, y) = (frame.x(value), HEIGHT - 8.0);
            *out += &format!("<text text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y}\">{}</text>", short(value));
        }
        let title =
            if self.unit.is_empty() { self.title.to_owned() } else { format!("{} ({})", self.title, self.unit) };
        *out += &format!("<text class=\"t\" x=\"{LEFT}\" y=\"16\">{}</text>", escape(&title));
        let scale = format!("{:.0} events in {:.1} min", self.x_max, self.minutes);
        *out += &format!("<text text-anchor=\"end\" x=\"{:.1}\" y=\"16\">{scale}</text>", WIDTH - RIGHT);
    }

    fn line(&self, out: &mut String, frame: &Frame, line: &Line) {
        let points: Vec<_> = line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        if points.is_empty() {
            return;
        }
        *out += &format!("<polyline class=\"{}\" points=\"{}\"/>", line.class, frame.path(&points));
        for (x, y) in points.iter().filter(|_| line.dots) {
            *out += &format!(
                "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.4\"/>",
                line.class,
                frame.x(*x),
                frame.y(*y)
            );
        }
    }

    fn legend(&self, out: &mut String) {
        let mut x = LEFT;
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            *out += &format!("<text class=\"{}\" x=\"{x:.1}\" y=\"34\">– {}</text>", line.class, line.name);
            x += 26.0 + 7.0 * line.name.len() as f64;
        }
    }

    fn rugs(&self, out: &mut String, frame: &Frame) {
        let each = self.rug.len().div_ceil(RUG_MAX).max(1);
        let (top, bottom) = (HEIGHT - BOTTOM + 4.0, HEIGHT - BOTTOM + 14.0);
        let ticks: String =
            self.rug.iter().step_by(each).map(|x| format!("M{:.1} {top}V{bottom}", frame.x(*x))).collect();
        if !ticks.is_empty() {
            *out += &format!("<path class=\"rug\" d=\"{ticks}\"/>");
        }
        let bad: String = self.bad.iter().map(|x| format!("M{:.1} {TOP}V{bottom}", frame.x(*x))).collect();
        if !bad.is_empty() {
            *out += &format!("<path class=\"bad\" d=\"{bad}\"/>");
        }
    }
}

/// What an SVG file calls its language. A name, never fetched.
pub(crate) const NAMESPACE: &str = "http://www.w3.org/2000/svg";

struct Frame {
    x_max: f64,
    y_max: f64,
}

impl Frame {
    fn x(&self, x: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (x / self.x_max).clamp(0.0, 1.0)
    }

    fn y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y / self.y_max).clamp(0.0, 1.0)
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        points.iter().map(|(x, y)| format!("{:.1},{:.1}", self.x(*x), self.y(*y))).collect::<Vec<_>>().join(" ")
    }
}

/// The step of about five ticks up to `highest`: 1, 2 or 5 times a power of ten.
pub(crate) fn nice_step(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let rough = highest / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough * 0.999).unwrap_or(power)
}

pub(crate) fn short(value: f64) -> String {
    if value >= 10.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Text that is safe inside an element.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (highest, step) in [(0.0, 1.0), (4.9, 1.0), (5.1, 2.0), (43.0, 10.0), (320.0, 100.0), (0.4, 0.1)] {
            assert!((nice_step(highest) - step).abs() < 1e-9, "{highest}: {}", nice_step(highest));
        }
    }

    #[test]
    fn zero_is_at_the_bottom_and_nothing_leaves_the_frame() {
        let frame = Frame { x_max: 100.0, y_max: 10.0 };
        assert_eq!(frame.y(0.0), HEIGHT - BOTTOM);
        assert_eq!((frame.y(99.0), frame.x(999.0)), (TOP, WIDTH - RIGHT));
    }
}
