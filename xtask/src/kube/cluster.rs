//! A cluster from nothing to ready, and to nothing again.

use std::{fs, os::unix::fs::symlink, process::Stdio, time::Duration};

use super::{
    certificates,
    components::{self, API_SERVER, FIRST, OTHERS},
    folder::{Folder, make},
    images,
    kubectl::{apply, kubectl, wait_for},
    module::Manner,
    names,
    namespaces::{Namespaces, remove_control_groups},
    needs,
    node::{self, Families, NODE_NAME},
    program,
};
use crate::{command::run, time::now};

/// How long node and accounts may take after the components work.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a cluster, unless it runs.
///
/// # Errors
/// What is missing, or which component does not work; whatever was started is ended again. One that runs has other
/// families.
pub(super) fn up(folder: &Folder, families: Families) -> Result<(), String> {
    if Namespaces::of(folder).is_some() {
        let name = folder.name();
        return match Families::of(folder) == families {
            true => Ok(()),
            false => Err(format!(
                "`{name}` runs with other address families: `kube down --name {name}` first"
            )),
        };
    }
    needs::check()?;
    let program = program::build(&Manner::Awaited)?;
    // Left by one whose processes are gone.
    remove(folder)?;
    let start = now();
    make(folder.path())?;
    families.record(folder)?;
    let namespaces = Namespaces::make(folder)?;
    let made = link_all(folder, &program).and_then(|()| start_all(folder, &namespaces));
    if let Err(error) = made {
        namespaces.end()?;
        // Its logs stay until the next `up` or `down`.
        return Err(error);
    }
    println!("cluster `{}` is ready after {:.1} s", folder.name(), (now() - start).as_secs_f64());
    Ok(())
}

/// The program under the name of each component, so that each is called what it is.
fn link_all(folder: &Folder, program: &std::path::Path) -> Result<(), String> {
    make(&folder.at("bin"))?;
    let own = folder.at("bin/kube");
    // A second name of the file, since the cache need not be seen inside.
    if fs::hard_link(program, &own).is_err() {
        fs::copy(program, &own).map_err(|e| format!("{}: {e}", own.display()))?;
    }
    for name in components::all().map(|component| component.name).chain(["kubectl"]) {
        if name != "containerd" {
            symlink("kube", folder.at("bin").join(name)).map_err(|e| format!("bin/{name}: {e}"))?;
        }
    }
    Ok(())
}

fn start_all(folder: &Folder, namespaces: &Namespaces) -> Result<(), String> {
    certificates::make_all(folder)?;
    node::write_all(folder)?;
    for component in &FIRST {
        component.start(folder, namespaces)?;
    }
    for component in &FIRST {
        component.wait(folder, namespaces)?;
    }
    API_SERVER.start(folder, namespaces)?;
    images::load_own(folder, namespaces)?;
    API_SERVER.wait(folder, namespaces)?;
    for component in &OTHERS {
        component.start(folder, namespaces)?;
    }
    for component in &OTHERS {
        component.wait(folder, namespaces)?;
    }
    apply(folder, namespaces, &names::manifest())?;
    let ready = ["wait", "--for=condition=Ready", &format!("node/{NODE_NAME}"), "--timeout=1s"];
    wait_for("the node is ready", PATIENCE, || kubectl(folder, namespaces, &ready))?;
    // Without it no pod of the namespace is accepted.
    let account = ["get", "serviceaccount", "default", "--namespace=default"];
    wait_for("there are accounts", PATIENCE, || kubectl(folder, namespaces, &account))
}

/// Ends a cluster and removes what is left of it; one that does not run is no error.
///
/// # Errors
/// What could not be ended or removed.
pub(super) fn down(folder: &Folder) -> Result<(), String> {
    if let Some(namespaces) = Namespaces::of(folder) {
        namespaces.end()?;
    }
    remove(folder)
}

fn remove(folder: &Folder) -> Result<(), String> {
    remove_control_groups(folder)?;
    match fs::remove_dir_all(folder.path()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", folder.path().display()))
        }
        _ => Ok(()),
    }
}

/// Which of its processes run, its nodes and pods.
///
/// # Errors
/// It does not run, or does not answer.
pub(super) fn status(folder: &Folder) -> Result<(), String> {
    let namespaces = Namespaces::running(folder)?;
    for component in components::all() {
        let state = if component.runs(folder, &namespaces) { "runs" } else { "has ended" };
        println!("{:<24} {state}", component.name);
    }
    run(&mut kubectl(
        folder,
        &namespaces,
        &["get", "nodes,pods", "--all-namespaces", "--output=wide"],
    ))?;
    println!("{}", how_to_reach(folder));
    Ok(())
}

/// Runs a program in the cluster's network, with its `kubectl` and configuration.
///
/// # Errors
/// The cluster does not run, or the program failed.
pub(super) fn inside(folder: &Folder, command: &str, arguments: &[&str]) -> Result<(), String> {
    let namespaces = Namespaces::running(folder)?;
    run(with_tools(folder, &mut namespaces.in_network(command, arguments)).stdin(Stdio::inherit()))
}

/// What a program in the cluster's network needs to find the cluster.
pub(super) fn with_tools<'a>(
    folder: &Folder,
    command: &'a mut std::process::Command,
) -> &'a mut std::process::Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [folder.at("bin")].into_iter().chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    // Tests restart components with this same program.
    if let Ok(own) = std::env::current_exe() {
        command.env("HEDDLE_XTASK", own);
    }
    if Families::of(folder) == Families::Both {
        command.env("HEDDLE_KUBE_DUAL_STACK", "true");
    }
    command.env("KUBECONFIG", folder.kubeconfig()).env("HEDDLE_KUBE", folder.name())
}

/// For people: where the cluster is.
pub(super) fn how_to_reach(folder: &Folder) -> String {
    let pid = Namespaces::of(folder).map_or(0, |namespaces| namespaces.pid());
    let (name, kubeconfig) = (folder.name(), folder.kubeconfig());
    format!(
        "kubeconfig   {}
network      nsenter --target {pid} --net
kubectl      cargo xtask kube --name {name} -- kubectl get pods -A
images       nsenter --target {pid} --mount --net --pid ctr -n k8s.io images ls
logs         {}",
        kubeconfig.display(),
        folder.at("logs").display()
    )
}
