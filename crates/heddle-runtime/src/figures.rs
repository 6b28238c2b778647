//! What Prometheus' client libraries tell of a process (`process_*`), of this one, from `/proc/self`.

use std::{fmt::Write as _, fs};

/// What the kernel counts processor time in towards programs: ticks per second (`USER_HZ`, the same on all machines
/// this runs on).
const TICKS: f64 = 100.0;

/// In Prometheus' text format; what the kernel does not say is left out.
#[must_use]
pub fn text() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold spaces and parentheses: `state`, the 3rd field, is the first.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) as f64 / TICKS);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes = rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        Some((kilobytes * 1024) as f64)
    };
    let open = fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as f64);
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let most = files.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    let kernel = fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = kernel.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
    let began = booted.zip(field(22)).map(|(booted, after)| booted + after as f64 / TICKS);
    let rows = [
        ("process_start_time_seconds", "gauge", "When it began, seconds since 1970.", began),
        ("process_cpu_seconds_total", "counter", "Time of processors, seconds.", cpu),
        ("process_resident_memory_bytes", "gauge", "Resident memory, bytes.", bytes("VmRSS:")),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory, bytes.", bytes("VmSize:")),
        ("process_open_fds", "gauge", "Open descriptors.", open),
        ("process_max_fds", "gauge", "Most descriptors that may be open.", most),
        ("process_threads", "gauge", "Threads.", field(20).map(|threads| threads as f64)),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told_of_as_the_kernel_sees_it() {
        let text = text();
        let of = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.expect("is told").parse().expect("a number")
        };
        let resident = of("process_resident_memory_bytes");
        assert!(resident > 1e6 && resident < of("process_virtual_memory_bytes"), "{text}");
        assert!(of("process_open_fds") >= 3.0 && of("process_open_fds") < of("process_max_fds"));
        let now = crate::clock::unix_now().as_secs_f64();
        assert!((now - of("process_start_time_seconds")).abs() < 24.0 * 3600.0, "{text}");
        assert!(of("process_cpu_seconds_total") >= 0.0 && of("process_threads") >= 1.0);
    }
}
