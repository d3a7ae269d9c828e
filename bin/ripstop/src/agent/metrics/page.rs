//! The text that Prometheus reads.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

use std::fmt::{Display, Write as _};

/// A page of metrics under construction.
#[derive(Debug, Default)]
pub(super) struct Page(String);

#[derive(Clone, Copy, Debug)]
pub(super) enum Sort {
    Counter,
    Gauge,
    Histogram,
}

/// One metric with its samples.
pub(super) struct Family<'p> {
    page: &'p mut Page,
    name: &'static str,
}

impl Page {
    pub(super) fn family(&mut self, name: &'static str, sort: Sort, help: &str) -> Family<'_> {
        let sort = match sort {
            Sort::Counter => "counter",
            Sort::Gauge => "gauge",
            Sort::Histogram => "histogram",
        };
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {sort}\n"));
        Family { page: self, name }
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Sort::Counter, help).sample(&[], value);
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Sort::Gauge, help).sample(&[], value);
    }

    pub(super) fn text(self) -> String {
        self.0
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(text);
    }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, value);
        self
    }

    /// Counts by upper end of a bucket, none of which has what others have; `sum`
    /// and counts beyond the last end.
    pub(super) fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl Iterator<Item = (f64, u64)>,
        beyond: u64,
        sum: f64,
    ) {
        let mut so_far = 0;
        for (end, count) in buckets {
            so_far += count;
            let end = end.to_string();
            self.line("_bucket", &[labels, &[("le", &end)]].concat(), so_far);
        }
        let all = so_far + beyond;
        self.line("_bucket", &[labels, &[("le", "+Inf")]].concat(), all);
        self.line("_sum", labels, sum);
        self.line("_count", labels, all);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let name = self.name;
        self.page.write(format_args!("{name}{suffix}"));
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let text = escaped(text);
            self.page.write(format_args!("{before}{label}=\"{text}\""));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.page.write(format_args!("{after} {value}\n"));
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_prometheus_reads_it() {
        let mut page = Page::default();
        page.gauge("ripstop_pods", "Pods.", 3);
        page.family("ripstop_x_total", Sort::Counter, "By y.")
            .sample(&[("y", "a\"b\\c\nd"), ("z", "")], 1.5)
            .sample(&[("y", "e"), ("z", "f")], 2);
        page.family("ripstop_t_seconds", Sort::Histogram, "Took.")
            .histogram(&[("by", "g")], [(0.5, 2), (1.0, 3)].into_iter(), 1, 4.25);
        assert_eq!(
            page.text(),
            "# HELP ripstop_pods Pods.\n# TYPE ripstop_pods gauge\nripstop_pods 3\n\
             # HELP ripstop_x_total By y.\n# TYPE ripstop_x_total counter\n\
             ripstop_x_total{y=\"a\\\"b\\\\c\\nd\",z=\"\"} 1.5\n\
             ripstop_x_total{y=\"e\",z=\"f\"} 2\n\
             # HELP ripstop_t_seconds Took.\n# TYPE ripstop_t_seconds histogram\n\
             ripstop_t_seconds_bucket{by=\"g\",le=\"0.5\"} 2\n\
             ripstop_t_seconds_bucket{by=\"g\",le=\"1\"} 5\n\
             ripstop_t_seconds_bucket{by=\"g\",le=\"+Inf\"} 6\n\
             ripstop_t_seconds_sum{by=\"g\"} 4.25\nripstop_t_seconds_count{by=\"g\"} 6\n"
        );
    }
}
