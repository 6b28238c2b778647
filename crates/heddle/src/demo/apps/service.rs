//! The HTTP services of the review site.

use std::{cell::RefCell, collections::HashMap, io};

use serde_json::{Value, json};

use super::{
    args::AppArgs,
    counts::Counts,
    http::{self, Client, Request, Response},
    kv, page,
};

/// Headers every service passes on, so that traces and tests by user stay connected.
const FORWARDED: [&str; 10] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "end-user",
];

thread_local! {
    /// Clients by service; a thread serves one connection, so its clients live as long.
    static CLIENTS: RefCell<HashMap<String, Client>> = RefCell::default();
    static STORE: RefCell<kv::Client> = RefCell::default();
}

/// One running service.
#[derive(Debug, Clone)]
struct Service {
    role: String,
    version: String,
    counts: Counts,
}

/// Runs `args.role` for ever.
pub(super) fn run(args: &AppArgs) -> io::Result<()> {
    let counts = Counts::default();
    counts.serve(&args.counts, || {})?;
    let service = Service { role: args.role.clone(), version: args.version.clone(), counts };
    http::serve(args.port, move |request| service.answer(request))
}

impl Service {
    fn answer(&self, request: &Request) -> Response {
        self.counts.received(request.header("x-demo-caller").unwrap_or("unknown"));
        let id = request.path.rsplit('/').next().and_then(|id| id.parse().ok()).unwrap_or(0_usize);
        match self.role.as_str() {
            "frontend" => self.frontend(request, id),
            "restaurants" => self.restaurant(id),
            "reviews" => Response::json(&self.reviews(request, id)),
            "photos" => Response::json(&json!({ "photos": page::photos(id) })),
            _ => Response::json(&json!({ "stars": page::stars(id) })),
        }
    }

    fn frontend(&self, request: &Request, id: usize) -> Response {
        let parts: Vec<(&str, Result<Value, String>)> = ["restaurants", "reviews", "photos"]
            .into_iter()
            .map(|service| (service, self.call(service, &format!("/{service}/{id}"), request)))
            .collect();
        if request.header("accept").is_some_and(|accept| accept.contains("text/html")) {
            return page::html(id, &parts);
        }
        let failed = parts.iter().any(|(_, part)| part.is_err());
        let body: serde_json::Map<_, _> = parts
            .into_iter()
            .map(|(service, part)| {
                (service.to_owned(), part.unwrap_or_else(|e| json!({ "error": e })))
            })
            .collect();
        Response { status: if failed { 502 } else { 200 }, ..Response::json(&Value::Object(body)) }
    }

    fn restaurant(&self, id: usize) -> Response {
        let (name, kind) = page::restaurant(id);
        let found = STORE.with_borrow_mut(|store| {
            store.get_or_set(&format!("restaurant:{id}"), kind, &self.counts)
        });
        match found {
            Ok(kind) => Response::json(&json!({ "id": id, "name": name, "kind": kind })),
            Err(error) => Response {
                status: 502,
                ..Response::json(&json!({ "error": format!("store: {error}") }))
            },
        }
    }

    fn reviews(&self, request: &Request, id: usize) -> Value {
        let stars = match self.version.as_str() {
            "v1" => Value::Null,
            _ => self
                .call("ratings", &format!("/ratings/{id}"), request)
                .map_or_else(|e| json!({ "error": e }), |answer| answer["stars"].clone()),
        };
        json!({ "version": self.version, "language": "rust", "reviews": page::reviews(id), "stars": stars })
    }

    fn call(&self, service: &str, path: &str, request: &Request) -> Result<Value, String> {
        let mut headers =
            vec![("x-demo-caller", self.role.as_str()), ("accept", "application/json")];
        headers.extend(FORWARDED.iter().filter_map(|name| Some((*name, request.header(name)?))));
        let answer = CLIENTS.with_borrow_mut(|clients| {
            let client = clients.entry(service.to_owned()).or_insert_with(|| Client::new(service));
            client.get(path, &headers)
        });
        let ok = matches!(answer, Ok((status, _)) if status < 500);
        self.counts.sent(service, ok);
        match answer {
            Ok((200, body)) => serde_json::from_str(&body).map_err(|e| e.to_string()),
            Ok((status, body)) => Err(format!("{status} {}", body.lines().next().unwrap_or(""))),
            Err(error) => Err(error.to_string()),
        }
    }
}
