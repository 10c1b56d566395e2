//! `Sheet`: an SVG picture of panels, one below the other, in the colours that the reader's system has.

use std::fmt::{Display, Write};

/// Everything is this wide.
pub(super) const WIDTH: f64 = 900.0;
/// What is drawn and written lies between these.
pub(super) const LEFT: f64 = 20.0;
pub(super) const RIGHT: f64 = WIDTH - 20.0;

const STYLE: &str = "\
svg { --page: #fff; --ink: #1f2328; --faint: #59636e; --line: #d8dee4; --own: #1f6feb; --limit: #d4730a }
@media (prefers-color-scheme: dark) {
  svg { --page: #0d1117; --ink: #e6edf3; --faint: #9198a1; --line: #2b323b; --own: #58a6ff; --limit: #f0a04b }
}
text { font: 13px system-ui, sans-serif; fill: var(--faint) }
.title { font-size: 16px; font-weight: 600; fill: var(--ink) } .page { fill: var(--page) }
.own { fill: var(--own) } .limit { fill: var(--limit) } text.own, text.limit { font-weight: 600 }
.band { fill-opacity: .22 } .bars { fill-opacity: .75 }
.line { fill: none; stroke-width: 2 } .line.own, .median.own { stroke: var(--own) }
.line.limit, .median.limit { stroke: var(--limit) } .median { stroke-width: 2 }
.grid { stroke: var(--line); stroke-width: 1 } .base { stroke: var(--faint); stroke-width: 1 }
.middle { text-anchor: middle } .end { text-anchor: end }
";

/// A picture that grows downwards.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    body: String,
    height: f64,
}

impl Sheet {
    /// Begins a panel, with its title, what is told beside it, and what the two colours are. Says where it begins.
    pub(super) fn begin(
        &mut self,
        title: &str,
        told: &str,
        own: &str,
        limit: Option<&str>,
        height: f64,
    ) -> f64 {
        let top = self.height;
        self.height += height;
        self.text(LEFT, top + 28.0, "title", title);
        self.text(RIGHT, top + 28.0, "end", told);
        self.text(LEFT, top + 50.0, "own", &format!("■ {own}"));
        if let Some(limit) = limit {
            // As wide as the words before it, more or less.
            let left = LEFT + 32.0 + 8.0 * own.chars().count() as f64;
            self.text(left, top + 50.0, "limit", &format!("■ {limit}"));
        }
        top
    }

    /// Words at a place.
    pub(super) fn text(&mut self, x: f64, y: f64, class: &str, words: &str) {
        let words = escaped(words);
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{words}</text>"));
    }

    /// A line between two places.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        ));
    }

    /// A line through many places, or what it encloses.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut d = String::new();
        for (number, (x, y)) in points.iter().enumerate() {
            let _ = write!(d, "{}{x:.1} {y:.1}", if number == 0 { 'M' } else { 'L' });
        }
        self.add(format_args!("<path d=\"{d}\" class=\"{class}\"/>"));
    }

    /// A dot.
    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64)) {
        self.add(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" class=\"{class}\"/>"));
    }

    fn add(&mut self, element: impl Display) {
        let _ = writeln!(self.body, "{element}");
    }

    /// The file.
    pub(super) fn finish(self, title: &str) -> String {
        let (height, body, title) = (self.height + 12.0, self.body, escaped(title));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" class=\"page\"/>\n{body}</svg>\n"
        )
    }
}

/// Text in which nothing is markup; what XML cannot say at all is shown as such.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
