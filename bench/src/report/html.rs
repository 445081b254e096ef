//! A report as one page that opens without a network: data, style and script are in it.

use super::Report;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = concat!(include_str!("plot.js"), include_str!("charts.js"), include_str!("page.js"));
const STYLE: &str = include_str!("page.css");

/// The page.
pub fn to_html(report: &Report) -> String {
    let data = serde_json::to_string(report).unwrap_or_default();
    // Nothing in the data may end the element that it stands in. In JSON the sign occurs in texts only.
    let data = data.replace('<', "\\u003c");
    PAGE.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT).replace("{{data}}", &data)
}

#[cfg(test)]
mod tests {
    use super::super::{Machine, Measured};
    use super::*;

    #[test]
    fn the_page_needs_nothing_else_and_its_data_cannot_break_out() {
        let mut report = Report::new(Machine::default());
        report.results.push(Measured::new("produce", "corelog", "</script><script>alert(1)</script>"));
        let page = to_html(&report);
        assert!(!page.contains("{{") && !page.contains("</script><script>alert"), "{page}");
        for elsewhere in ["src=", "href=\"http", "@import", "url("] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
    }
}
