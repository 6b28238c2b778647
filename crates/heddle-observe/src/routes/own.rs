//! The observer's own metrics, in Prometheus' text format: how much it watches, and what that costs.

use std::fmt::Write as _;

use heddle_runtime::figures;

use crate::answers::View;

/// All of them.
pub(super) fn text(view: &View) -> String {
    let roster = &view.roster;
    let (read, failed) = view.scrapes;
    let silent = roster.present().filter(|member| !member.scraped).count();
    let rows = [
        (
            "heddle_observe_sidecars",
            "gauge",
            "Sidecars that are scraped.",
            roster.present().count() as u64,
        ),
        (
            "heddle_observe_sidecars_silent",
            "gauge",
            "Those whose last scrape failed, or that have had none yet.",
            silent as u64,
        ),
        ("heddle_observe_scrapes_total", "counter", "Scrapes that were read to their end.", read),
        ("heddle_observe_scrapes_failed_total", "counter", "Scrapes that were not.", failed),
        (
            "heddle_observe_control_connected",
            "gauge",
            "1 where the control plane answers.",
            u64::from(roster.control),
        ),
        (
            "heddle_observe_generation",
            "gauge",
            "Newest generation that a sidecar runs.",
            roster.generation,
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows {
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    text + &figures::text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_of_itself_is_of_the_format_that_it_reads() {
        let view = View { scrapes: (7, 2), ..View::default() };
        let text = text(&view);
        let samples = crate::exposition::parse(&text).unwrap();
        let of = |name: &str| samples.iter().find(|sample| sample.name == name).unwrap().value;
        assert_eq!(of("heddle_observe_scrapes_total"), 7.0);
        assert_eq!(of("heddle_observe_scrapes_failed_total"), 2.0);
        assert!(of("process_resident_memory_bytes") > 1e6);
    }
}
