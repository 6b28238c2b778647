//! From the flags of `heddle run` to what the holder is asked: values that only make sense
//! together are checked here, before anything is touched.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::Protocol;
use heddle_wire::local::{
    control_api::{JoinPort, JoinRequest},
    holder_api::JoinSpec,
};

use crate::{
    cli::{RunArgs, values::PortFlag},
    failure::Failure,
};

/// What the holder is asked for.
///
/// # Errors
/// A usage failure naming the flags that contradict each other and what would be right.
pub(crate) fn resolve(args: &RunArgs) -> Result<JoinSpec, Failure> {
    let ports = args
        .port
        .iter()
        .map(|port| join_port(port, args.protocol))
        .collect::<Result<Vec<_>, Failure>>()?;
    if let Some(twice) = first_twice(args.port.iter().map(|port| port.number)) {
        return Err(Failure::usage(format!("--port {twice} is given twice: name each port once")));
    }
    let named = args.port.iter().map(|port| port.name.as_str()).filter(|name| !name.is_empty());
    if let Some(twice) = first_twice(named) {
        return Err(Failure::usage(format!(
            "two --port have the name `{twice}`: use different ones"
        )));
    }
    check_publish(args)?;
    check_host_ports(args)?;
    let mut labels = BTreeMap::new();
    for label in &args.label {
        if labels.insert(label.key.clone(), label.value.clone()).is_some() {
            return Err(Failure::usage(format!(
                "--label {} is given twice: a label has one value",
                label.key
            )));
        }
    }
    let request = JoinRequest {
        service: args.service.clone(),
        namespace: args.namespace.clone(),
        version: args.version.clone(),
        labels,
        locality: args.locality.clone().unwrap_or_default(),
        ports,
    };
    Ok(JoinSpec {
        request,
        publish: args.publish.clone(),
        host_ports: args.host_port.clone(),
        memory_limit: args.memory_limit,
        ready_port: args.ready_port,
        app_metrics: args.app_metrics.clone(),
    })
}

/// `--protocol` holds for every port; a name that says otherwise is a contradiction.
fn join_port(port: &PortFlag, protocol: Option<Protocol>) -> Result<JoinPort, Failure> {
    let by_name = Protocol::from_port_name(&port.name);
    if let (Some(by_name), Some(by_flag)) = (by_name, protocol)
        && by_name != by_flag
    {
        return Err(Failure::usage(format!(
            "--port {0}:{1} says {by_name}, but --protocol says {by_flag}: leave one of them out",
            port.name, port.number
        )));
    }
    let protocol = protocol.or(by_name).unwrap_or_default();
    Ok(JoinPort { number: port.number, name: port.name.clone(), protocol })
}

fn check_publish(args: &RunArgs) -> Result<(), Failure> {
    for publish in &args.publish {
        if !args.port.iter().any(|port| port.number == publish.port) {
            return Err(Failure::usage(format!(
                "--publish {publish} lets the host reach port {0}, which is not declared: add --port {0}",
                publish.port
            )));
        }
    }
    let fixed = args.publish.iter().map(|p| p.host).filter(|host| host.port() != 0);
    match first_twice(fixed) {
        Some(twice) => Err(Failure::usage(format!(
            "--publish {twice} is given twice: one host address leads to one port"
        ))),
        None => Ok(()),
    }
}

fn check_host_ports(args: &RunArgs) -> Result<(), Failure> {
    if let Some(twice) = first_twice(args.host_port.iter().copied()) {
        return Err(Failure::usage(format!("--host-port {twice} is given twice")));
    }
    let both = args.host_port.iter().find(|n| args.port.iter().any(|port| port.number == **n));
    match both {
        Some(number) => Err(Failure::usage(format!(
            "--port {number} and --host-port {number} cannot both be: the program could not listen on a port that shows the host's"
        ))),
        None => Ok(()),
    }
}

fn first_twice<T: Ord + Clone>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().find(|item| !seen.insert(item.clone()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn resolved(flags: &str) -> Result<JoinSpec, Failure> {
        let words = format!("heddle run --service web {flags} -- true");
        match Cli::try_parse_from(words.split_whitespace()).unwrap().command {
            Command::Run(args) => resolve(&args),
            _ => unreachable!("the words say run"),
        }
    }

    #[test]
    fn a_protocol_comes_from_the_flag_or_the_name() {
        let protocols = |flags: &str| {
            let spec = resolved(flags).unwrap();
            spec.request.ports.iter().map(|port| port.protocol).collect::<Vec<_>>()
        };
        assert_eq!(protocols("--port 80"), [Protocol::Undeclared]);
        assert_eq!(
            protocols("--port http-web:80 --port redis:6379"),
            [Protocol::Http, Protocol::Tcp]
        );
        assert_eq!(protocols("--port 80 --port web:81 --protocol http"), [Protocol::Http; 2]);
        assert!(resolved("--port redis:6379 --protocol http").is_err());
    }

    #[test]
    fn flags_that_contradict_each_other_are_named() {
        for (flags, named) in [
            ("--port 80 --port a:80", "--port 80"),
            ("--port a:80 --port a:81", "`a`"),
            ("--publish 8080:80", "add --port 80"),
            ("--port 80 --port 81 --publish 8080:80 --publish 8080:81", "--publish 127.0.0.1:8080"),
            ("--host-port 5432 --host-port 5432", "--host-port 5432"),
            ("--port 5432 --host-port 5432", "--host-port 5432"),
            ("--label a=1 --label a=2", "--label a"),
        ] {
            let failure = resolved(flags).unwrap_err();
            assert!(failure.message.contains(named), "{flags}: {failure}");
            assert_eq!(failure.code, crate::failure::USAGE, "{flags}");
        }
    }
}
