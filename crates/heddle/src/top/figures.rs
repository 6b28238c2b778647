//! Numbers as people read them, spelled as on the dashboard.

use heddle_model::{ServiceName, name::DEFAULT_NAMESPACE};

/// Where there is nothing to tell.
pub(crate) const NONE: &str = "-";

/// A service; the namespace only where it is not the default one. Callers whom nobody knows are `outside`.
pub(crate) fn name(service: &ServiceName) -> String {
    match service.namespace.as_str() {
        "" if service.name == "unknown" => "outside".to_owned(),
        "" | DEFAULT_NAMESPACE => service.name.clone(),
        // A host of an entry: with the namespace behind a dot it would be another host.
        namespace if service.is_host() => format!("{} ({namespace})", service.name),
        namespace => format!("{}.{namespace}", service.name),
    }
}

/// Something per second.
pub(crate) fn rate(value: f64) -> String {
    if value > 0.0 && value < 0.1 { "<0.1".to_owned() } else { short(value) }
}

/// A share of 1 in percent. What is not all is never shown as all, what is something never as nothing.
pub(crate) fn percent(share: f64) -> String {
    match share * 100.0 {
        all if all >= 100.0 => "100 %".to_owned(),
        none if none <= 0.0 => "0 %".to_owned(),
        most if most > 99.9 => ">99.9 %".to_owned(),
        little if little < 0.1 => "<0.1 %".to_owned(),
        middle if (9.95..99.0).contains(&middle) => format!("{middle:.0} %"),
        edge => format!("{edge:.1} %"),
    }
}

/// A latency.
pub(crate) fn milliseconds(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(value) if value < 10.0 => format!("{value:.1} ms"),
        Some(value) if value < 1_000.0 => format!("{value:.0} ms"),
        Some(value) if value < 60_000.0 => format!("{} s", short(value / 1_000.0)),
        Some(value) => format!("{} min", short(value / 60_000.0)),
    }
}

/// Bytes per second.
pub(crate) fn bytes(value: f64) -> String {
    match value {
        value if value < 1e3 => format!("{value:.0} B/s"),
        value if value < 1e6 => format!("{} kB/s", short(value / 1e3)),
        value if value < 1e9 => format!("{} MB/s", short(value / 1e6)),
        value => format!("{} GB/s", short(value / 1e9)),
    }
}

/// Three significant places.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e4 => format!("{:.1}k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_all_is_never_shown_as_all() {
        let shown = [1.0, 0.99999, 0.995, 0.5, 0.0001, 0.0].map(percent);
        assert_eq!(shown, ["100 %", ">99.9 %", "99.5 %", "50 %", "<0.1 %", "0 %"]);
    }

    #[test]
    fn units_follow_the_size() {
        let shown =
            [Some(0.25), Some(42.0), Some(1_500.0), Some(120_000.0), None].map(milliseconds);
        assert_eq!(shown, ["0.2 ms", "42 ms", "1.5 s", "2.0 min", "-"]);
        assert_eq!([12.0, 1_234.0, 5e6].map(bytes), ["12 B/s", "1.2 kB/s", "5.0 MB/s"]);
        assert_eq!(
            [0.0, 0.04, 3.21, 456.7, 12_345.0].map(rate),
            ["0", "<0.1", "3.2", "457", "12.3k"]
        );
    }

    #[test]
    fn the_default_namespace_goes_without_saying() {
        let name_of = |name, namespace| super::name(&ServiceName::new(name, namespace).unwrap());
        assert_eq!((name_of("a", "default"), name_of("a", "shop")), ("a".into(), "a.shop".into()));
    }
}
