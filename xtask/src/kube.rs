//! A real Kubernetes of one node on this machine, for tests and to work against: `cargo xtask kube`.
//!
//! Its components are built from their Go modules (`tests/kube/cluster`), containerd, runc and CNI plugins are
//! Debian's. A cluster lives in network, mount and process namespaces of its own: several may exist, nothing on
//! the host is changed, and the end of the first process of its namespaces ends all of it.

mod ahead;
mod certificates;
mod cluster;
mod components;
mod conformance;
mod end_to_end;
mod folder;
mod go;
mod images;
mod kubectl;
mod module;
mod names;
mod namespaces;
mod needs;
mod node;
mod program;

pub(crate) use ahead::Ahead;
pub(crate) use conformance::run_suite;
use end_to_end::Build;
use folder::Folder;
pub(crate) use folder::cache;
use module::Manner;
use node::Families;

/// What `cargo xtask kube --help` prints.
pub(crate) const USAGE: &str = "\
cargo xtask kube WHAT [--name CLUSTER]

  up [--dual-stack]      start a cluster of one node, and print how to reach it; with both address families
                         or IPv4 alone
  down                   end it, and remove all of it
  status                 its processes, nodes and pods
  load [--binary FILE]   put a built `heddle` into it as the image heddle.dev/heddle:dev
                         [default: target/release/heddle]
  restart COMPONENT      end a component (kube-apiserver, kubelet, …) and start it again
  build                  only build its components, once per tests/kube/cluster/go.sum
  test [--dev] [FILTER]  run the end-to-end tests of Kubernetes mode in it; it is started, and ended after
                         them, unless it runs. With `--dev`, of the build that is made quickly. The tests of both
                         address families (`dual_stack`) are run in a cluster of their own
  -- CMD ARGS            run a program in the cluster's network, with `kubectl` and KUBECONFIG

  --name CLUSTER         which of several clusters [default: heddle]";

/// `cargo xtask kube`.
///
/// # Errors
/// What is missing on this machine and how to get it; what did not become ready, with the end of its log.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let (words, name) = name(words)?;
    let folder = Folder::of(name)?;
    match words.as_slice() {
        ["up", flags @ ..] => {
            let families = match flags {
                [] => Families::Ipv4,
                ["--dual-stack"] => Families::Both,
                other => {
                    return Err(format!("`kube up {}` is no task\n\n{USAGE}", other.join(" ")));
                }
            };
            cluster::up(&folder, families)?;
            println!("{}", cluster::how_to_reach(&folder));
            Ok(())
        }
        ["down"] => cluster::down(&folder),
        ["status"] => cluster::status(&folder),
        ["load"] => images::load_heddle(&folder, "target/release/heddle"),
        ["load", "--binary", binary] => images::load_heddle(&folder, binary),
        ["restart", component] => components::restart(&folder, component),
        ["build"] => {
            println!("{}", program::build(&Manner::Awaited)?.display());
            Ok(())
        }
        ["test", "--dev", filters @ ..] => end_to_end::run(&folder, Build::Dev, filters),
        ["test", filters @ ..] => end_to_end::run(&folder, Build::Release, filters),
        ["--", command, arguments @ ..] => cluster::inside(&folder, command, arguments),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        other => Err(format!("`kube {}` is no task\n\n{USAGE}", other.join(" "))),
    }
}

/// The words without `--name CLUSTER`, and the cluster's name; after `--` all words are the program's.
fn name<'a>(words: &[&'a str]) -> Result<(Vec<&'a str>, &'a str), String> {
    let ours = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let Some(at) = words[..ours].iter().position(|word| *word == "--name") else {
        return Ok((words.to_vec(), "heddle"));
    };
    let name = words[..ours].get(at + 1).ok_or("`--name` needs the name of a cluster")?;
    Ok(([&words[..at], &words[at + 2..]].concat(), name))
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn a_name_is_read_before_the_program_and_left_to_it_behind() {
        assert_eq!(name(&["up"]), Ok((vec!["up"], "heddle")));
        assert_eq!(name(&["up", "--name", "two"]), Ok((vec!["up"], "two")));
        assert_eq!(name(&["--name", "two", "--", "ls"]), Ok((vec!["--", "ls"], "two")));
        let after = ["--", "docker", "--name", "x"];
        assert_eq!(name(&after), Ok((after.to_vec(), "heddle")));
        assert!(name(&["up", "--name"]).is_err());
    }
}
