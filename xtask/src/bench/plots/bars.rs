//! Bars in groups, as SVG that is readable on light and on dark ground.

use std::fmt::Write as _;

/// A picture.
#[derive(Clone, PartialEq, Debug)]
pub struct Bars {
    pub title: String,
    pub groups: Vec<Group>,
    /// Of the values that are written beside the bars.
    pub decimals: usize,
}

/// Bars under one heading.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    pub label: String,
    pub bars: Vec<Bar>,
}

/// One of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Bar {
    pub label: String,
    pub value: f64,
    /// Drawn in colour.
    pub is_ours: bool,
}

const WIDTH: f64 = 760.0;
const LABELS: f64 = 260.0;
/// Right of the longest bar, for its value.
const VALUES: f64 = 70.0;
const MARGIN: f64 = 16.0;
const BAR: f64 = 16.0;
const LINE: f64 = 22.0;
const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.group { font-weight: 600 }
.ours { fill: #1a6fb5 }
.other { fill: #8a929b }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.ours { fill: #58a6ff }
.other { fill: #768390 }
}";

impl Group {
    /// Adds a bar, unless one of that name is there.
    pub fn add(&mut self, bar: Bar) {
        if self.bars.iter().all(|other| other.label != bar.label) {
            self.bars.push(bar);
        }
    }
}

impl Bars {
    /// The picture, its longest bar as long as there is room.
    pub fn svg(&self) -> String {
        let most = self.groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value).fold(0.0, f64::max);
        let room = WIDTH - LABELS - VALUES - 2.0 * MARGIN;
        let mut y = MARGIN + LINE / 2.0;
        let mut drawn = String::new();
        text(&mut drawn, MARGIN, y, "title", &self.title);
        for group in &self.groups {
            y += 1.5 * LINE;
            text(&mut drawn, MARGIN, y, "group", &group.label);
            for bar in &group.bars {
                y += LINE;
                let width = if most > 0.0 { room * bar.value / most } else { 0.0 };
                let (left, top) = (MARGIN + LABELS, y - BAR + 4.0);
                let class = if bar.is_ours { "ours" } else { "other" };
                text(&mut drawn, MARGIN, y, "label", &bar.label);
                let _ = writeln!(
                    drawn,
                    r#"<rect class="{class}" x="{left}" y="{top}" width="{width:.1}" height="{BAR}"/>"#
                );
                text(&mut drawn, left + width + 6.0, y, "value", &format!("{:.*}", self.decimals, bar.value));
            }
        }
        let height = y + MARGIN;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\">\n<style>\n{STYLE}\n</style>\n{drawn}</svg>\n"
        )
    }
}

fn text(drawn: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(drawn, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_takes_the_room_and_the_others_their_share() {
        let bar = |value, is_ours| Bar { label: format!("{value} < all"), value, is_ours };
        let bars = vec![bar(4.0, true), bar(1.0, false)];
        let groups = vec![Group { label: "a & b".to_owned(), bars }];
        let svg = Bars { title: "title".to_owned(), groups, decimals: 1 }.svg();
        let room = WIDTH - LABELS - VALUES - 2.0 * MARGIN;
        assert!(svg.contains(&format!(r#"class="ours" x="276" y="70" width="{room:.1}""#)), "{svg}");
        assert!(svg.contains(&format!(r#"width="{:.1}""#, room / 4.0)), "{svg}");
        assert!(svg.contains("a &amp; b") && svg.contains("4 &lt; all") && svg.contains(">1.0<"), "{svg}");
    }
}
