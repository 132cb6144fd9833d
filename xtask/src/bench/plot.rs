//! Bars as SVG: nothing but rectangles and texts, readable on light and dark pages. What is drawn is `report`'s.

use std::fmt::Write as _;

/// Bars that belong together.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<(String, f64)>,
}

/// A picture of horizontal bars on one scale.
pub(super) fn bars(title: &str, groups: &[Group]) -> String {
    let most = groups
        .iter()
        .flat_map(|group| &group.bars)
        .map(|(_, value)| *value)
        .fold(f64::MIN_POSITIVE, f64::max);
    let mut body = String::new();
    let mut y = 40;
    for group in groups {
        let _ = writeln!(
            body,
            "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{}</text>",
            y + 14,
            escaped(&group.name)
        );
        y += STEP;
        for (name, value) in &group.bars {
            let colour = if name == "bastide" { "#0b7285" } else { "#adb5bd" };
            let width = value / most * BAR;
            let _ = writeln!(
                body,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n\
                 <rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"16\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{}\">{}</text>",
                LEFT - 8,
                y + 13,
                escaped(name),
                f64::from(LEFT) + width + 6.0,
                y + 13,
                number(*value)
            );
            y += STEP;
        }
        y += 8;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{y}\" viewBox=\"0 0 760 {y}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#495057\">\n<rect width=\"760\" height=\"{y}\" \
         fill=\"#ffffff\"/>\n<text x=\"8\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>\n{body}</svg>\n",
        escaped(title)
    )
}

/// Three digits that mean something.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

const STEP: u32 = 20;
const LEFT: u32 = 190;
const BAR: f64 = 490.0;

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_picture() {
        let group = Group { name: "a<b".into(), bars: vec![("bastide".into(), 2.0), ("limit".into(), 1.0)] };
        let picture = bars("title", &[group]);
        assert!(picture.contains("width=\"490.0\"") && picture.contains("width=\"245.0\""), "{picture}");
        assert!(picture.contains("a&lt;b") && picture.ends_with("</svg>\n"));
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown: Vec<String> = [0.6543, 1.05, 12.34, 1014.2].into_iter().map(number).collect();
        assert_eq!(shown, ["0.654", "1.05", "12.3", "1014"]);
    }
}
