//! The cluster's own authority, the API server's certificate, and the key that signs tokens.

use std::{path::Path, process::Stdio};

use super::{
    folder::{Folder, make},
    node::{API_SERVICE, NODE_ADDRESS},
};
use crate::command::{program, run};

/// How long they hold, days: longer than anybody works with one cluster.
const DAYS: &str = "365";
/// A new key, and a certificate for it.
const NEW: [&str; 9] = [
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-days",
    DAYS,
];

/// Makes all of them in the folder `pki`.
pub(super) fn make_all(folder: &Folder) -> Result<(), String> {
    make(&folder.at("pki"))?;
    let names = format!(
        "subjectAltName=IP:{NODE_ADDRESS},IP:127.0.0.1,IP:{API_SERVICE},DNS:kubernetes,DNS:kubernetes.default,\
         DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost"
    );
    let authority = ["-subj", "/CN=heddle-kube", "-keyout", "ca.key", "-out", "ca.crt"];
    let server = [
        "-subj",
        "/CN=kube-apiserver",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-addext",
        &names,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        "server.key",
        "-out",
        "server.crt",
    ];
    let tokens =
        ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "tokens.key"];
    for arguments in
        [[&NEW[..], &authority].concat(), [&NEW[..], &server].concat(), tokens.to_vec()]
    {
        openssl(&folder.at("pki"), &arguments)?;
    }
    Ok(())
}

/// Makes a certificate that nobody but its own key has signed, for an application called `name`.
pub(super) fn make_for_itself(
    folder: &Path,
    name: &str,
    key: &str,
    certificate: &str,
) -> Result<(), String> {
    let subject = format!("/CN={name}");
    let names = format!("subjectAltName=DNS:{name}");
    let own = ["-subj", &subject, "-addext", &names, "-keyout", key, "-out", certificate];
    openssl(folder, &[&NEW[..], &own].concat())
}

/// It draws dots while it makes a key, and says what it wants only there.
fn openssl(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    run(program("openssl", arguments).current_dir(folder).stderr(Stdio::null()))
}
