//! Plots as SVG files without external resources. Floor 6.

use std::fmt::Write as _;

/// A line of a plot: values at equal steps over the width of the plot.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) values: Vec<f64>,
}

/// Colours that differ also for readers with red-green colour blindness.
const COLOURS: [&str; 8] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#f0e442"];
const STYLE: &str = "text{font:12px sans-serif;fill:#333}.axis{stroke:#999}\
    @media(prefers-color-scheme:dark){text{fill:#ddd}}";
const WIDTH: f64 = 720.0;
const LEFT: f64 = 70.0;
const TALL: f64 = 130.0;
const APART: f64 = 62.0;
const MOST_POINTS: usize = 720;

/// Plots below each other with a common time axis of `hours`.
pub(super) fn plots(title: &str, hours: f64, plots: &[(&str, Vec<Line>)]) -> String {
    let height = 34.0 + plots.len() as f64 * (TALL + APART);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" role=\"img\"><title>{}</title>\
         <style>{STYLE}</style>\n<text x=\"8\" y=\"20\" font-weight=\"bold\">{}</text>\n",
        LEFT + WIDTH + 20.0,
        escaped(title),
        escaped(title)
    );
    for (index, (name, lines)) in plots.iter().enumerate() {
        plot(&mut svg, 56.0 + index as f64 * (TALL + APART), name, hours, lines);
    }
    svg.push_str("</svg>\n");
    svg
}

fn plot(svg: &mut String, top: f64, name: &str, hours: f64, lines: &[Line]) {
    let values = lines.iter().flat_map(|line| line.values.iter().copied());
    let most = round(values.fold(0.0, f64::max));
    let bottom = top + TALL;
    let right = LEFT + WIDTH;
    let _ = write!(
        svg,
        "<text x=\"8\" y=\"{:.0}\">{}</text>\n<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {top}V{bottom}H{right}\"/>\n\
         <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text><text x=\"{:.0}\" y=\"{bottom:.0}\" text-anchor=\"end\">0</text>\n\
         <text x=\"{LEFT}\" y=\"{:.0}\">0 h</text><text x=\"{right}\" y=\"{:.0}\" text-anchor=\"end\">{} h</text>\n",
        top - 8.0,
        escaped(name),
        LEFT - 6.0,
        top + 10.0,
        figure(most),
        LEFT - 6.0,
        bottom + 16.0,
        bottom + 16.0,
        figure(hours)
    );
    let mut x = LEFT + 60.0;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points = thinned(&line.values);
        let step = WIDTH / points.len().max(1) as f64;
        let path: Vec<String> = points
            .iter()
            .enumerate()
            .map(|(index, value)| {
                format!("{:.1} {:.1}", LEFT + index as f64 * step, bottom - value / most * TALL)
            })
            .collect();
        let _ = writeln!(
            svg,
            "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\" d=\"M{}\"/>\
             <text x=\"{x:.0}\" y=\"{:.0}\" style=\"fill:{colour}\">{}</text>",
            path.join("L"),
            bottom + 16.0,
            escaped(&line.name)
        );
        x += 14.0 + 6.4 * line.name.chars().count() as f64;
    }
}

/// Reduces the number of points: each step keeps its highest value, since peaks matter most.
fn thinned(values: &[f64]) -> Vec<f64> {
    let step = values.len().div_ceil(MOST_POINTS).max(1);
    values.chunks(step).map(|chunk| chunk.iter().copied().fold(0.0, f64::max)).collect()
}

/// The next round number.
fn round(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.iter().map(|step| step * power).find(|round| *round >= most).unwrap_or(most)
}

pub(super) fn figure(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_of_one_minute_is_seen_in_a_plot_of_a_month() {
        let mut values = vec![1.0; 43_200];
        values[20_000] = 50.0;
        let points = thinned(&values);
        assert!(points.len() <= MOST_POINTS && points.contains(&50.0));
    }

    #[test]
    fn a_plot_is_whole_and_its_text_is_escaped() {
        let lines = vec![Line { name: "a<b".to_owned(), values: vec![0.0, 3.2, 1.0] }];
        let svg = plots("Vault & sidecars", 24.0, &[("requests a second", lines)]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(
            svg.contains("Vault &amp; sidecars") && svg.contains("a&lt;b") && svg.contains(">4.00<"),
            "{svg}"
        );
    }

    #[test]
    fn nothing_at_all_is_a_plot_too() {
        let svg = plots("nothing", 1.0, &[("x", vec![Line { name: "y".to_owned(), values: vec![] }])]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
