//! Which of a pod's connections go to the sidecar, as its annotations or the settings say it and as
//! `heddle init` takes it.

use heddle_runtime::netlink::Network;

use super::{
    InjectionSettings, Rejected,
    names::{
        EXCLUDE_INBOUND_PORTS, EXCLUDE_INTERFACES, EXCLUDE_OUTBOUND_PORTS, EXCLUDE_OUTBOUND_RANGES,
        INCLUDE_INBOUND_PORTS, INCLUDE_OUTBOUND_PORTS, INCLUDE_OUTBOUND_RANGES, Name,
    },
    pod::Pod,
};

/// Longest name of an interface, bytes.
const INTERFACE_BYTES_MAX: usize = 15;
/// Entries of one list: each is a rule that connections pass.
const ENTRIES_MAX: usize = 64;

/// The lists, each checked, with commas and without blanks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Capture {
    include_outbound_ranges: List,
    exclude_outbound_ranges: List,
    include_outbound_ports: List,
    exclude_outbound_ports: List,
    include_inbound_ports: List,
    exclude_inbound_ports: List,
    exclude_interfaces: List,
}

/// One list and who gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct List {
    /// The annotation, or the setting.
    from: String,
    entries: Vec<String>,
}

/// What a list's entries may be.
#[derive(Clone, Copy)]
enum Kind {
    Ports,
    Ranges,
    Interfaces,
}

impl Capture {
    pub(super) fn read(pod: &Pod, settings: &InjectionSettings) -> Result<Self, Rejected> {
        let list = |name: Name, usual: &str, kind: Kind, may_be_all: bool| {
            let (from, text) = match pod.annotation(name)? {
                Some((key, text)) => (format!("annotation {key}"), text),
                None => (format!("the mesh's setting for {}", name.ours), usual),
            };
            List::read(from, text, kind, may_be_all)
        };
        let capture = Self {
            include_outbound_ranges: list(
                INCLUDE_OUTBOUND_RANGES,
                &settings.include_outbound_ranges,
                Kind::Ranges,
                true,
            )?,
            exclude_outbound_ranges: list(
                EXCLUDE_OUTBOUND_RANGES,
                &settings.exclude_outbound_ranges,
                Kind::Ranges,
                false,
            )?,
            include_outbound_ports: list(
                INCLUDE_OUTBOUND_PORTS,
                &settings.include_outbound_ports,
                Kind::Ports,
                true,
            )?,
            exclude_outbound_ports: list(
                EXCLUDE_OUTBOUND_PORTS,
                &settings.exclude_outbound_ports,
                Kind::Ports,
                false,
            )?,
            include_inbound_ports: list(
                INCLUDE_INBOUND_PORTS,
                &settings.include_inbound_ports,
                Kind::Ports,
                true,
            )?,
            exclude_inbound_ports: list(
                EXCLUDE_INBOUND_PORTS,
                &settings.exclude_inbound_ports,
                Kind::Ports,
                false,
            )?,
            exclude_interfaces: list(
                EXCLUDE_INTERFACES,
                &settings.exclude_interfaces,
                Kind::Interfaces,
                false,
            )?,
        };
        apart(&capture.include_outbound_ranges, &capture.exclude_outbound_ranges)?;
        apart(&capture.include_outbound_ports, &capture.exclude_outbound_ports)?;
        apart(&capture.include_inbound_ports, &capture.exclude_inbound_ports)?;
        Ok(capture)
    }

    /// As arguments of `heddle init`, where they differ from what it does without.
    pub(super) fn arguments(&self) -> Vec<String> {
        let flags = [
            ("include-outbound-ranges", &self.include_outbound_ranges, "*"),
            ("exclude-outbound-ranges", &self.exclude_outbound_ranges, ""),
            ("include-outbound-ports", &self.include_outbound_ports, ""),
            ("exclude-outbound-ports", &self.exclude_outbound_ports, ""),
            ("include-inbound-ports", &self.include_inbound_ports, "*"),
            ("exclude-inbound-ports", &self.exclude_inbound_ports, ""),
            ("exclude-interfaces", &self.exclude_interfaces, ""),
        ];
        let said = flags.into_iter().filter_map(|(flag, list, usual)| {
            let text = list.entries.join(",");
            (text != usual).then(|| format!("--{flag}={text}"))
        });
        said.collect()
    }
}

impl List {
    fn read(from: String, text: &str, kind: Kind, may_be_all: bool) -> Result<Self, Rejected> {
        let wrong = |reason: String| Rejected::new(format!("{from}: {reason}"));
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let entries: Vec<String> = words.map(str::to_owned).collect();
        if entries.len() > ENTRIES_MAX {
            return Err(wrong(format!("{} entries, at most {ENTRIES_MAX}", entries.len())));
        }
        if entries.iter().any(|entry| entry == "*") {
            if !may_be_all {
                return Err(wrong(
                    "`*` stands for everything, which cannot be left out".to_owned(),
                ));
            }
            if entries.len() > 1 {
                return Err(wrong("`*` stands for everything: leave out the rest".to_owned()));
            }
            return Ok(Self { from, entries });
        }
        for entry in &entries {
            kind.check(entry).map_err(wrong)?;
        }
        Ok(Self { from, entries })
    }
}

impl Kind {
    fn check(self, entry: &str) -> Result<(), String> {
        match self {
            Self::Ports => match entry.parse::<u16>() {
                Ok(1..) => Ok(()),
                _ => Err(format!("`{entry}` is no port: a number from 1 to 65535")),
            },
            Self::Ranges => entry.parse::<Network>().map(drop).map_err(|error| error.to_string()),
            Self::Interfaces => {
                let fits = entry.len() <= INTERFACE_BYTES_MAX
                    && entry.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
                fits.then_some(()).ok_or_else(|| format!("`{entry}` is no interface's name"))
            }
        }
    }
}

/// What is in one list may not be in the other.
fn apart(include: &List, exclude: &List) -> Result<(), Rejected> {
    match include.entries.iter().find(|entry| exclude.entries.contains(entry)) {
        Some(both) => Err(Rejected::new(format!(
            "{}: `{both}` is in {} too: keep it in one of them",
            include.from, exclude.from
        ))),
        None => Ok(()),
    }
}
