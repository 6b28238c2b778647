//! What a pod's annotations ask for, read and checked, with the settings where they ask for nothing.

use heddle_model::yaml;
use serde_json::{Map, Value, json};

use super::{
    InjectionSettings, InterceptionMode, Rejected,
    capture::Capture,
    names::{
        DISCOVERY, GROUPS, HONOURED, INTERCEPTION, ISTIO_STATUS, LOG_LEVEL, MERGE_METRICS,
        NATIVE_SIDECAR, Name, PROXY_CONFIG, PROXY_CPU, PROXY_CPU_LIMIT, PROXY_IMAGE, PROXY_MEMORY,
        PROXY_MEMORY_LIMIT, READY_DELAY, READY_FAILURES, READY_PERIOD, REWRITE_PROBES, STATUS,
        USER_VOLUME, USER_VOLUME_MOUNT,
    },
    pod::Pod,
};

/// Most worker threads a sidecar takes.
const CONCURRENCY_MAX: u64 = 256;
/// Longest drain a sidecar takes, seconds.
const DRAIN_SECONDS_MAX: u64 = 3600;

/// All that can be asked for.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
pub(super) struct Options {
    pub(super) native: bool,
    pub(super) hold: bool,
    pub(super) rewrite_probes: bool,
    pub(super) scrape: bool,
    pub(super) capture_dns: bool,
    pub(super) capture: Capture,
    pub(super) mode: InterceptionMode,
    pub(super) image: String,
    pub(super) resources: Value,
    pub(super) log_level: Option<String>,
    pub(super) concurrency: Option<u64>,
    /// How long the sidecar goes on accepting when it is to end, seconds.
    pub(super) drain_seconds: Option<u64>,
    pub(super) discovery_address: String,
    pub(super) readiness: Readiness,
    pub(super) user_volumes: Vec<Value>,
    pub(super) user_mounts: Vec<Value>,
    /// Which annotation the user's volumes are from, for messages.
    pub(super) user_volumes_from: &'static str,
    pub(super) warnings: Vec<String>,
}

/// How the kubelet asks whether the sidecar is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) delay_seconds: u64,
    pub(super) period_seconds: u64,
    pub(super) failures: u64,
}

impl Options {
    pub(super) fn read(pod: &Pod, settings: &InjectionSettings) -> Result<Self, Rejected> {
        let mut warnings = not_honoured(pod);
        let mesh = MeshConfig::read(pod, &mut warnings)?;
        let mode = match pod.annotation(INTERCEPTION)? {
            Some((key, text)) => Some(mode(&format!("annotation {key}"), text)?),
            None => mesh.mode,
        };
        let (from, user_volumes) = objects(pod, USER_VOLUME)?;
        let text = |name: Name, check: fn(&str) -> bool, right: &str| {
            let Some((key, text)) = pod.annotation(name)? else { return Ok(None) };
            if check(text) {
                return Ok(Some(text.to_owned()));
            }
            Err(Rejected::new(format!("annotation {key}: `{text}` is no {right}")))
        };
        let image = text(PROXY_IMAGE, is_word, "image, as `registry.example.com/heddle:1.0`")?;
        let address =
            text(DISCOVERY, is_word, "address, as `heddle-control.heddle-system.svc:15012`")?;
        Ok(Self {
            native: flag(pod, NATIVE_SIDECAR)?.unwrap_or(settings.native_sidecars),
            hold: mesh.hold.unwrap_or(settings.hold_application_until_proxy_starts),
            rewrite_probes: flag(pod, REWRITE_PROBES)?.unwrap_or(settings.rewrite_probes),
            scrape: flag(pod, MERGE_METRICS)?.unwrap_or(settings.scrape),
            capture_dns: mesh.capture_dns.unwrap_or(settings.capture_dns),
            capture: Capture::read(pod, settings)?,
            mode: mode.unwrap_or(settings.interception_mode),
            image: image.unwrap_or_else(|| settings.image.clone()),
            resources: resources(pod)?.unwrap_or_else(|| settings.proxy_resources.clone()),
            log_level: log_level(pod)?.or_else(|| settings.log_level.clone()),
            concurrency: mesh.concurrency.or_else(|| settings.concurrency.map(u64::from)),
            drain_seconds: mesh.drain_seconds,
            discovery_address: address
                .or(mesh.discovery_address)
                .unwrap_or_else(|| settings.discovery_address.clone()),
            readiness: Readiness {
                delay_seconds: number(pod, READY_DELAY)?.unwrap_or(0),
                period_seconds: number(pod, READY_PERIOD)?.unwrap_or(15).max(1),
                failures: number(pod, READY_FAILURES)?.unwrap_or(4).max(1),
            },
            user_volumes,
            user_mounts: objects(pod, USER_VOLUME_MOUNT)?.1,
            user_volumes_from: from,
            warnings,
        })
    }
}

/// What is honoured of `proxy.istio.io/config`.
#[derive(Debug, Default)]
struct MeshConfig {
    hold: Option<bool>,
    concurrency: Option<u64>,
    discovery_address: Option<String>,
    capture_dns: Option<bool>,
    drain_seconds: Option<u64>,
    mode: Option<InterceptionMode>,
}

impl MeshConfig {
    fn read(pod: &Pod, warnings: &mut Vec<String>) -> Result<Self, Rejected> {
        let mut config = Self::default();
        let Some((key, text)) = pod.annotation(PROXY_CONFIG)? else { return Ok(config) };
        let place = format!("annotation {key}");
        let mut documents = yaml::documents(&place, text)
            .map_err(|errors| {
                Rejected::new(errors.first().map_or_else(|| place.clone(), ToString::to_string))
            })?
            .into_iter();
        let value = documents.next().map(|document| document.value).unwrap_or_default();
        let Value::Object(fields) = value else {
            return match value {
                Value::Null => Ok(config),
                _ => Err(Rejected::new(format!("{place}: it is no mapping"))),
            };
        };
        for (field, value) in &fields {
            let wrong = |right: &str| {
                Err(Rejected::new(format!("{place}: {field}: `{value}` is no {right}")))
            };
            match (field.as_str(), value) {
                ("holdApplicationUntilProxyStarts", Value::Bool(hold)) => config.hold = Some(*hold),
                ("holdApplicationUntilProxyStarts", _) => return wrong("boolean"),
                ("concurrency", value) => {
                    match value.as_u64().filter(|count| *count <= CONCURRENCY_MAX) {
                        Some(count) => config.concurrency = Some(count),
                        None => {
                            return wrong(
                                "number of threads from 1 to 256, or 0 for one each processor",
                            );
                        }
                    }
                }
                ("discoveryAddress", Value::String(text)) if is_word(text) => {
                    config.discovery_address = Some(text.clone());
                }
                ("discoveryAddress", _) => return wrong("address"),
                ("terminationDrainDuration", value) => match value.as_str().and_then(seconds) {
                    Some(seconds) => config.drain_seconds = Some(seconds),
                    None => return wrong("duration of whole seconds, as `5s`, of at most an hour"),
                },
                ("interceptionMode", Value::String(text)) => {
                    config.mode = Some(mode(&format!("{place}: {field}"), text)?);
                }
                ("proxyMetadata", Value::Object(entries)) => {
                    config.metadata(entries, &place, warnings);
                }
                _ => warnings.push(format!("{place}: `{field}` is not honoured")),
            }
        }
        Ok(config)
    }

    fn metadata(&mut self, entries: &Map<String, Value>, place: &str, warnings: &mut Vec<String>) {
        for (name, value) in entries {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match (name.as_str(), text.as_str()) {
                ("ISTIO_META_DNS_CAPTURE", "true") => self.capture_dns = Some(true),
                ("ISTIO_META_DNS_CAPTURE", "false") => self.capture_dns = Some(false),
                _ => warnings.push(format!("{place}: `proxyMetadata.{name}` is not honoured")),
            }
        }
    }
}

/// Annotations that are meant for an injector and mean nothing to this one.
fn not_honoured(pod: &Pod) -> Vec<String> {
    let known = |key: &str| {
        key == STATUS
            || key == ISTIO_STATUS
            || HONOURED.iter().any(|name| name.ours == key || name.istio == key)
    };
    let keys = pod.annotations.keys().map(String::as_str);
    let foreign =
        keys.filter(|key| GROUPS.iter().any(|group| key.starts_with(group)) && !known(key));
    let ours: Vec<&str> = HONOURED.iter().map(|name| name.ours).collect();
    let told = foreign.map(|key| match yaml::did_you_mean(key, &ours) {
        Some(near) if key.starts_with("heddle.dev/") => {
            format!("annotation {key} is not honoured: did you mean `{near}`?")
        }
        _ => format!("annotation {key} is not honoured"),
    });
    told.collect()
}

fn flag(pod: &Pod, name: Name) -> Result<Option<bool>, Rejected> {
    match pod.annotation(name)? {
        None => Ok(None),
        Some((_, "true")) => Ok(Some(true)),
        Some((_, "false")) => Ok(Some(false)),
        Some((key, text)) => Err(Rejected::new(format!(
            "annotation {key}: `{text}` is neither \"true\" nor \"false\""
        ))),
    }
}

/// A number that Kubernetes takes in a probe.
fn number(pod: &Pod, name: Name) -> Result<Option<u64>, Rejected> {
    let Some((key, text)) = pod.annotation(name)? else { return Ok(None) };
    match text.parse::<u32>() {
        Ok(number) if number <= i32::MAX as u32 => Ok(Some(u64::from(number))),
        _ => Err(Rejected::new(format!("annotation {key}: `{text}` is no whole number from 0 on"))),
    }
}

fn mode(place: &str, text: &str) -> Result<InterceptionMode, Rejected> {
    InterceptionMode::named(text).ok_or_else(|| {
        Rejected::new(format!(
            "{place}: `{text}` is not offered: write {}, where the application sees the sidecar as its caller, or {}, \
             where it sees its caller's address",
            InterceptionMode::Redirect.name(),
            InterceptionMode::Tproxy.name()
        ))
    })
}

/// As Istio: where one of the four is given, only what is given holds.
fn resources(pod: &Pod) -> Result<Option<Value>, Rejected> {
    let mut resources = Map::new();
    for (name, group, resource) in [
        (PROXY_CPU, "requests", "cpu"),
        (PROXY_MEMORY, "requests", "memory"),
        (PROXY_CPU_LIMIT, "limits", "cpu"),
        (PROXY_MEMORY_LIMIT, "limits", "memory"),
    ] {
        let Some((key, text)) = pod.annotation(name)? else { continue };
        if !is_quantity(text) {
            return Err(Rejected::new(format!(
                "annotation {key}: `{text}` is no quantity, as `100m` or `128Mi`"
            )));
        }
        let group = resources.entry(group).or_insert_with(|| json!({}));
        if let Value::Object(group) = group {
            group.insert(resource.to_owned(), text.into());
        }
    }
    Ok((!resources.is_empty()).then_some(Value::Object(resources)))
}

fn log_level(pod: &Pod) -> Result<Option<String>, Rejected> {
    let Some((key, text)) = pod.annotation(LOG_LEVEL)? else { return Ok(None) };
    let level = match text {
        "warning" => "warn",
        // Envoy's, which has one more above the errors.
        "critical" => "error",
        "trace" | "debug" | "info" | "warn" | "error" | "off" => text,
        filter if key == LOG_LEVEL.ours && is_word(filter) => filter,
        _ => {
            return Err(Rejected::new(format!(
                "annotation {key}: `{text}` is no level: trace, debug, info, warning, error or off"
            )));
        }
    };
    Ok(Some(level.to_owned()))
}

/// A JSON list of objects with names, or an object of them by name, as Istio takes both.
fn objects(pod: &Pod, name: Name) -> Result<(&'static str, Vec<Value>), Rejected> {
    let Some((key, text)) = pod.annotation(name)? else { return Ok((name.ours, Vec::new())) };
    let wrong = |reason: &str| Rejected::new(format!("annotation {key}: {reason}"));
    let value: Value =
        serde_json::from_str(text).map_err(|error| wrong(&format!("it is no JSON: {error}")))?;
    let items = match value {
        Value::Array(items) => items,
        Value::Object(entries) => {
            let named = entries.into_iter().map(|(name, value)| with_name(name, value));
            named.collect()
        }
        _ => return Err(wrong("it is neither a list nor an object")),
    };
    match items.iter().all(|item| !super::pod::name(item).is_empty()) {
        true => Ok((key, items)),
        false => Err(wrong("each entry is an object with a `name`")),
    }
}

fn with_name(name: String, value: Value) -> Value {
    let mut object = Map::from_iter([("name".to_owned(), name.into())]);
    match value {
        Value::Object(entries) => object.extend(entries),
        _ => return Value::Null,
    }
    Value::Object(object)
}

/// Whole seconds of a duration in one unit: `5s`, `2m`, `1h`.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let of_one = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(of_one)?;
    (seconds <= DRAIN_SECONDS_MAX).then_some(seconds)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Kubernetes' quantities, without a sign.
fn is_quantity(text: &str) -> bool {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, suffix) = text.split_at(digits);
    let is_number = number.bytes().any(|byte| byte.is_ascii_digit())
        && number.bytes().filter(|byte| *byte == b'.').count() <= 1;
    let is_exponent = || {
        let exponent = suffix.strip_prefix(['e', 'E']).unwrap_or_default();
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && exponent.bytes().all(|byte| byte.is_ascii_digit())
    };
    let suffixes =
        ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    is_number && (suffixes.contains(&suffix) || is_exponent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_seconds_of_at_most_an_hour() {
        for (text, expected) in [
            ("5s", Some(5)),
            ("2m", Some(120)),
            ("1h", Some(3600)),
            ("2h", None),
            ("5", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("5ä", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn quantities_are_kubernetes_own() {
        for right in ["1", "100m", "0.5", "128Mi", "1e3", "1E", "2G", "1.5Gi", ".5"] {
            assert!(is_quantity(right), "{right}");
        }
        for wrong in ["", "m", "-1", "1 Gi", "1mi", "1.2.3", "12MB", ".", "1e"] {
            assert!(!is_quantity(wrong), "{wrong}");
        }
    }
}
