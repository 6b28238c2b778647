//! The HTTP services of the review site.

use std::{cell::RefCell, collections::HashMap, io};

use serde_json::{Value, json};

use super::{
    args::AppArgs,
    counts::Counts,
    grpc::{self, Status},
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
    static TABLES: RefCell<Option<grpc::Client>> = RefCell::default();
}

/// Where `tables` is, and what it is asked.
const TABLES_PORT: u16 = 50_051;
const FREE_TABLES: &str = "/site.Tables/Free";
/// The service without which the site is still whole.
const OPTIONAL: &str = "specials";
/// The copy of it that fails whatever it is asked.
const BROKEN: &str = "v2";

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

/// Runs the service of gRPC for ever: how many tables of a restaurant are free.
pub(super) fn run_tables(args: &AppArgs) -> io::Result<()> {
    let counts = Counts::default();
    counts.serve(&args.counts, || {})?;
    grpc::serve(args.port, move |path, metadata, message| {
        let caller = metadata.get("x-demo-caller").and_then(|caller| caller.to_str().ok());
        counts.received(caller.unwrap_or("unknown"));
        if path != FREE_TABLES {
            return Err(Status::new(Status::UNIMPLEMENTED, "this service knows Free"));
        }
        let id = grpc::read_number(message).and_then(|id| usize::try_from(id).ok());
        match id.and_then(page::free_tables) {
            Some(free) => Ok(grpc::number(free)),
            None => Err(Status::new(Status::NOT_FOUND, "it takes no bookings")),
        }
    })
}

impl Service {
    fn answer(&self, request: &Request) -> Response {
        self.counts.received(request.header("x-demo-caller").unwrap_or("unknown"));
        let id = request.path.rsplit('/').next().and_then(|id| id.parse().ok()).unwrap_or(0_usize);
        match self.role.as_str() {
            "frontend" => self.frontend(request, id),
            "restaurants" => self.restaurant(id),
            "reviews" => Response::json(&self.reviews(request, id)),
            OPTIONAL => self.specials(id),
            "photos" => Response::json(&json!({ "photos": page::photos(id) })),
            _ => Response::json(&json!({ "stars": page::stars(id) })),
        }
    }

    fn frontend(&self, request: &Request, id: usize) -> Response {
        let mut parts: Vec<(&str, Result<Value, String>)> =
            ["restaurants", "reviews", "photos", OPTIONAL]
                .into_iter()
                .map(|service| (service, self.call(service, &format!("/{service}/{id}"), request)))
                .collect();
        parts.push(("tables", self.tables(id, request)));
        if request.header("accept").is_some_and(|accept| accept.contains("text/html")) {
            return page::html(id, &parts);
        }
        let failed = parts.iter().any(|(service, part)| part.is_err() && *service != OPTIONAL);
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

    fn specials(&self, id: usize) -> Response {
        let body = json!({ "version": self.version, "special": page::special(id) });
        match self.version.as_str() {
            BROKEN => {
                Response { status: 503, ..Response::json(&json!({ "error": "out of order" })) }
            }
            _ => Response::json(&body),
        }
    }

    /// A restaurant that takes no bookings is no failure.
    fn tables(&self, id: usize, request: &Request) -> Result<Value, String> {
        let metadata = self.headers(request);
        let answer = TABLES.with_borrow_mut(|client| {
            if client.is_none() {
                *client = grpc::Client::new("tables", TABLES_PORT).ok();
            }
            let client = client.as_mut()?;
            Some(client.call(FREE_TABLES, &metadata, &grpc::number(id as u64)))
        });
        let none = || Err(Status::new(Status::UNIMPLEMENTED, "no client"));
        let answer = answer.unwrap_or_else(none);
        self.counts.sent("tables", !answer.as_ref().is_err_and(Status::is_failure));
        match answer {
            Ok(message) => Ok(json!({ "free": grpc::read_number(&message) })),
            Err(status) if !status.is_failure() => {
                Ok(json!({ "free": null, "why": status.message }))
            }
            Err(status) => Err(format!("grpc status {}: {}", status.code, status.message)),
        }
    }

    /// What goes with every call.
    fn headers<'r>(&'r self, request: &'r Request) -> Vec<(&'static str, &'r str)> {
        let own = [("x-demo-caller", self.role.as_str())];
        let passed = FORWARDED.iter().filter_map(|name| Some((*name, request.header(name)?)));
        own.into_iter().chain(passed).collect()
    }

    fn call(&self, service: &str, path: &str, request: &Request) -> Result<Value, String> {
        let mut headers = self.headers(request);
        headers.push(("accept", "application/json"));
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
