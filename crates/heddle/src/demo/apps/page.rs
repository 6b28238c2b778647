//! What the review site shows: its small world of restaurants, and the page a browser gets.

use serde_json::Value;

use super::http::Response;

const RESTAURANTS: [(&str, &str); 12] = [
    ("Golden Loom", "noodles"),
    ("The Shuttle", "grill"),
    ("Warp & Weft", "tapas"),
    ("Indigo", "curry"),
    ("Selvedge", "bakery"),
    ("Twill House", "dumplings"),
    ("Bobbin", "coffee"),
    ("The Spinning Wheel", "pizza"),
    ("Damask", "mezze"),
    ("Calico Kitchen", "breakfast"),
    ("Muslin", "salads"),
    ("Tweed", "pies"),
];
const REVIEWS: [&str; 4] = [
    "Would walk across town for this.",
    "The soup alone is worth it.",
    "Quiet on weekdays, lively on Fridays.",
    "Friendly people, fair prices.",
];

/// Name and kind of a restaurant.
pub(super) fn restaurant(id: usize) -> (&'static str, &'static str) {
    RESTAURANTS[id % RESTAURANTS.len()]
}

/// Two reviews of a restaurant.
pub(super) fn reviews(id: usize) -> [&'static str; 2] {
    [REVIEWS[id % REVIEWS.len()], REVIEWS[(id + 1) % REVIEWS.len()]]
}

/// Stars of a restaurant, 1 to 5.
pub(super) fn stars(id: usize) -> usize {
    1 + (id * 7 + 3) % 5
}

/// How many of its tables are free tonight; `None` for one that takes no bookings.
pub(super) fn free_tables(id: usize) -> Option<u64> {
    let (_, kind) = restaurant(id);
    (kind != "bakery").then_some((id as u64 * 5 + 2) % 7)
}

/// What is recommended tonight.
pub(super) fn special(id: usize) -> String {
    format!("{} of the day", restaurant(id).1)
}

/// Names of a restaurant's photos.
pub(super) fn photos(id: usize) -> [String; 2] {
    [format!("{id}-front.jpg"), format!("{id}-table.jpg")]
}

/// The page of one restaurant: each part says which service gave it, or why it is missing.
pub(super) fn html(id: usize, parts: &[(&str, Result<Value, String>)]) -> Response {
    let section = |(service, part): &(&str, Result<Value, String>)| {
        let (class, text) = match part {
            Ok(value) => ("ok", serde_json::to_string_pretty(value).unwrap_or_default()),
            Err(error) => ("failed", format!("not available: {error}")),
        };
        format!("<section class={class}><h2>{service}</h2><pre>{}</pre></section>", escape(&text))
    };
    let links: String = (0..RESTAURANTS.len())
        .map(|n| format!("<a href=/restaurants/{n}>{}</a> ", RESTAURANTS[n].0))
        .collect();
    let body = format!(
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{name}</title><style>body{{font:15px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         section{{border-left:4px solid #9aa;padding:0 1rem;margin:1rem 0}}.failed{{border-color:#c33}}</style>\
         <h1>{name}</h1><p>{links}</p>{}",
        parts.iter().map(section).collect::<String>(),
        name = restaurant(id).0,
    );
    Response { status: 200, content_type: "text/html; charset=utf-8", body }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
