//! The cluster's own authority, the API server's certificate, and the key that signs tokens.

use std::process::Stdio;

use super::{
    folder::{Folder, make},
    node::{API_SERVICE, NODE_ADDRESS},
};
use crate::command::{program, run};

/// How long they hold, days: longer than anybody works with one cluster.
const DAYS: &str = "365";

/// Makes all of them in the folder `pki`.
pub(super) fn make_all(folder: &Folder) -> Result<(), String> {
    make(&folder.at("pki"))?;
    let names = format!(
        "subjectAltName=IP:{NODE_ADDRESS},IP:127.0.0.1,IP:{API_SERVICE},DNS:kubernetes,DNS:kubernetes.default,\
         DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost"
    );
    let new = [
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
        [[&new[..], &authority].concat(), [&new[..], &server].concat(), tokens.to_vec()]
    {
        // It draws dots while it makes a key, and says what it wants only there.
        run(program("openssl", &arguments).current_dir(folder.at("pki")).stderr(Stdio::null()))?;
    }
    Ok(())
}
