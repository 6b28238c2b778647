//! The redirection by a machine's own `iptables-restore`, where the kernel has no nf_tables: the same rules in
//! another language, in chains of our own, put in force per address family in one step.

use std::{
    env,
    ffi::OsStr,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::redirect::{Chain, ChainKind, Condition, RedirectRules, Rule, Verdict};

/// Ports that one match takes.
const MULTIPORT_MAX: usize = 15;
/// Kernels with IPv6 list its addresses there.
const IPV6_ADDRESSES: &str = "/proc/net/if_inet6";
/// Output shown of a program that failed, bytes.
const SHOWN_MAX: usize = 400;

/// Why iptables did not help.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// There is none.
    #[error("no {0} is in the PATH")]
    Missing(String),
    /// It cannot be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Which.
        program: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It refused.
    #[error("{program} refused the rules: {said}")]
    Refused {
        /// Which.
        program: PathBuf,
        /// What it said.
        said: String,
    },
}

/// The two address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// The legacy programs first: the others speak to nf_tables, which has refused already.
    fn programs(self) -> [&'static str; 2] {
        match self {
            Self::V4 => ["iptables-legacy-restore", "iptables-restore"],
            Self::V6 => ["ip6tables-legacy-restore", "ip6tables-restore"],
        }
    }
}

/// Puts the rules in force in the current network namespace, in place of those of an earlier call. Returns the
/// programs that did it.
///
/// # Errors
/// [`IptablesError`]; IPv4 may be in force already when IPv6 is refused.
pub fn install_redirect(rules: &RedirectRules) -> Result<Vec<PathBuf>, IptablesError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut used = vec![install(rules, Family::V4, &path)?];
    if std::fs::read(IPV6_ADDRESSES).is_ok_and(|addresses| !addresses.is_empty()) {
        used.push(install(rules, Family::V6, &path)?);
    }
    Ok(used)
}

/// By the first program that takes them.
fn install(rules: &RedirectRules, family: Family, path: &OsStr) -> Result<PathBuf, IptablesError> {
    let names = family.programs();
    let mut last = IptablesError::Missing(names.join(" or "));
    for program in names.iter().filter_map(|name| find(name, path)) {
        let done = is_linked(&program, family)
            .and_then(|linked| run(&program, &["--noflush"], &script(rules, family, &linked)));
        match done {
            Ok(_) => return Ok(program),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    let programs = env::split_paths(path).map(|folder| folder.join(name));
    programs.into_iter().find(|program| is_executable(program))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// One of our chains, and the kernel's that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    table: &'static str,
    chain: &'static str,
    own: &'static str,
}

/// All there may be.
const LINKS: [Link; 3] = [
    Link { table: "nat", chain: "OUTPUT", own: "HEDDLE_OUTPUT" },
    Link { table: "nat", chain: "PREROUTING", own: "HEDDLE_PREROUTING" },
    Link { table: "mangle", chain: "OUTPUT", own: "HEDDLE_CALLERS" },
];

impl Link {
    /// Which one stands for that chain.
    fn is_for(&self, chain: &Chain) -> bool {
        let table = match chain.kind {
            ChainKind::Nat => "nat",
            ChainKind::Route => "mangle",
        };
        self.table == table
            && self
                .own
                .strip_prefix("HEDDLE_")
                .is_some_and(|own| own.eq_ignore_ascii_case(chain.name))
    }
}

/// Chains of the kernel's that lead to ours already, of all tables that it has.
fn is_linked(restore: &Path, family: Family) -> Result<Vec<Link>, IptablesError> {
    let name = restore.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let save = restore.with_file_name(name.replace("-restore", "-save"));
    let linked = links_in(&run(&save, &[], "")?);
    tracing::debug!(?family, ?linked, "iptables was looked at");
    Ok(linked)
}

/// The links in what `iptables-save` prints.
fn links_in(saved: &str) -> Vec<Link> {
    let mut table = "";
    let mut found = Vec::new();
    for line in saved.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        let link = |link: &&Link| {
            link.table == table && line == format!("-A {} -j {}", link.chain, link.own)
        };
        found.extend(LINKS.iter().find(link));
    }
    found
}

/// What `iptables-restore --noflush` reads: naming a chain empties it. A table that holds nothing of ours, and is to
/// hold nothing, is not touched: not every kernel has it.
fn script(rules: &RedirectRules, family: Family, linked: &[Link]) -> String {
    let chains = rules.chains();
    let wanted = |link: &Link| chains.iter().find(|chain| link.is_for(chain));
    let mut script = String::new();
    for table in ["nat", "mangle"] {
        let links: Vec<&Link> = LINKS
            .iter()
            .filter(|link| link.table == table)
            .filter(|link| wanted(link).is_some() || linked.contains(link))
            .collect();
        if links.is_empty() {
            continue;
        }
        script.push_str(&format!("*{table}\n"));
        for Link { own, .. } in &links {
            script.push_str(&format!(":{own} - [0:0]\n"));
        }
        for link @ Link { chain, own, .. } in links {
            let rules = wanted(link).map(|chain| chain.rules.as_slice()).unwrap_or_default();
            for rule in rules.iter().filter(|rule| is_of(rule, family)) {
                script.push_str(&format!("-A {own} {}\n", arguments(rule)));
            }
            if !linked.contains(link) {
                script.push_str(&format!("-A {chain} -j {own}\n"));
            }
        }
        script.push_str("COMMIT\n");
    }
    script
}

/// A rule about an address of the other family means nothing.
fn is_of(rule: &Rule, family: Family) -> bool {
    rule.conditions.iter().all(|condition| match condition {
        Condition::To(network) | Condition::NotBy(network) => {
            network.address.is_ipv4() == (family == Family::V4)
        }
        _ => true,
    })
}

fn arguments(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.conditions.iter().map(condition).collect();
    words.push(match rule.verdict {
        Verdict::LetThrough => "-j RETURN".to_owned(),
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Verdict::SendTo(address) => format!("-j DNAT --to-destination {address}"),
        Verdict::MarkConnection(mark) => format!("-j CONNMARK --set-mark {mark:#x}"),
        Verdict::Mark(mark) => format!("-j MARK --set-mark {mark:#x}"),
    });
    words.join(" ")
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Mark(mark) => format!("-m mark --mark {mark:#x}"),
        Condition::Uid(uid) => format!("-m owner --uid-owner {uid}"),
        Condition::Gid(gid) => format!("-m owner --gid-owner {gid}"),
        Condition::Protocol(protocol) => format!("-p {protocol}"),
        Condition::Port(port) => format!("--dport {port}"),
        Condition::OtherPorts(ports) => {
            let groups = ports.chunks(MULTIPORT_MAX).map(|ports| {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                format!("-m multiport ! --dports {}", ports.join(","))
            });
            groups.collect::<Vec<_>>().join(" ")
        }
        Condition::To(network) => format!("-d {network}"),
        Condition::NotBy(network) => format!("! -s {network}"),
        Condition::ConnectionMark(mark) => format!("-m connmark --mark {mark:#x}"),
        Condition::From(interface) => format!("-i {interface}"),
        Condition::NotFrom(interface) => format!("! -i {interface}"),
        Condition::Out(interface) => format!("-o {interface}"),
    }
}

/// Runs a program with `input`; returns what it printed.
fn run(program: &Path, arguments: &[&str], input: &str) -> Result<String, IptablesError> {
    let failed = |source| IptablesError::Run { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(arguments)
        // Its own would be below /run, which may be read-only; nobody else writes rules here.
        .env("XTABLES_LOCKFILE", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read says why when it ends.
        let _unread = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().chars().take(SHOWN_MAX).collect();
    Err(IptablesError::Refused { program: program.to_owned(), said })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::Escape;

    #[test]
    fn the_script_says_what_the_rules_say() {
        let escape = Escape::Owner { uid: 1337, gid: 1337 };
        let mut rules = RedirectRules::all(escape, [15001, 15006, 15053]);
        rules.inbound_excluded = vec![15020, 15021];
        rules.outbound_excluded = vec!["fd00::/8".parse().expect("a network")];
        let expected = "\
*nat
:HEDDLE_OUTPUT - [0:0]
:HEDDLE_PREROUTING - [0:0]
-A HEDDLE_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A HEDDLE_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A HEDDLE_OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 15053
-A HEDDLE_OUTPUT -p tcp --dport 53 -j REDIRECT --to-ports 15053
-A HEDDLE_OUTPUT -d ::1/128 -j RETURN
-A HEDDLE_OUTPUT -d fd00::/8 -j RETURN
-A HEDDLE_OUTPUT -p tcp -j REDIRECT --to-ports 15001
-A HEDDLE_PREROUTING ! -i lo -p tcp -m multiport ! --dports 15020,15021 -j REDIRECT --to-ports 15006
-A PREROUTING -j HEDDLE_PREROUTING
COMMIT
";
        assert_eq!(script(&rules, Family::V6, &LINKS[..1]), expected);
        let v4 = script(&rules, Family::V4, &[]);
        assert!(v4.contains("-d 127.0.0.0/8") && !v4.contains("::"), "{v4}");
        assert!(v4.contains("-A OUTPUT -j HEDDLE_OUTPUT\n"), "{v4}");
    }

    #[test]
    fn marks_of_callers_come_and_go_with_their_table() {
        let mut rules = RedirectRules::all(Escape::Mark(1), [15001, 15006, 15053]);
        rules.callers_kept_at = vec!["10.1.2.3".parse().expect("an address")];
        let mangle = "\
*mangle
:HEDDLE_CALLERS - [0:0]
-A HEDDLE_CALLERS ! -s 127.0.0.0/8 -d 127.0.0.7/32 -p tcp -j CONNMARK --set-mark 0x539
-A HEDDLE_CALLERS -m connmark --mark 0x539 -j MARK --set-mark 0x539
-A OUTPUT -j HEDDLE_CALLERS
COMMIT
";
        let kept = script(&rules, Family::V4, &[]);
        assert!(kept.ends_with(mangle), "{kept}");
        let first = kept.lines().find(|line| line.starts_with("-A HEDDLE_OUTPUT"));
        let to_own = "-A HEDDLE_OUTPUT ! -s 127.0.0.0/8 -d 127.0.0.7/32 -p tcp -j DNAT --to-destination 10.1.2.3";
        assert_eq!(first, Some(to_own));
        rules.callers_kept_at.clear();
        let saved =
            "*mangle\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j HEDDLE_CALLERS\nCOMMIT\n*nat\nCOMMIT\n";
        let again = script(&rules, Family::V4, &links_in(saved));
        assert!(again.ends_with("*mangle\n:HEDDLE_CALLERS - [0:0]\nCOMMIT\n"), "{again}");
        assert!(!script(&rules, Family::V4, &[]).contains("mangle"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let rules = RedirectRules::all(Escape::Mark(1), [1, 2, 3]);
        let error = install(&rules, Family::V4, OsStr::new("/nowhere")).expect_err("there is none");
        assert_eq!(
            error.to_string(),
            "no iptables-legacy-restore or iptables-restore is in the PATH"
        );
    }
}
