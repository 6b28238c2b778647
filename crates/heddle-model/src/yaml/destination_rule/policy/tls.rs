//! `tls` of a traffic policy: Istio's `ClientTLSSettings`, checked as Istio checks it, and more closely where a
//! slip would go unseen (`docs/differences-from-istio.md`).

use crate::{
    discovery::ClientTls,
    resource::TlsSettings,
    yaml::{
        node::Node,
        report::Report,
        schema::{
            Kind, NAME, Object, SUBJECT_ALT_NAMES_MAX, TEXT, at_most, join, not_yet, optional,
            present,
        },
        value,
    },
};

/// The value of `caCertificates` that means what the system believes.
const SYSTEM: &str = "system";

pub(in crate::yaml) static TLS: Object = Object {
    fields: &[
        optional("mode", Kind::Choice(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"])),
        optional("clientCertificate", Kind::Text(value::file_path)),
        optional("privateKey", Kind::Text(value::file_path)),
        optional("caCertificates", Kind::Text(authorities)),
        not_yet("credentialName", TEXT),
        optional("subjectAltNames", Kind::List { of: &NAME, least: 0 }),
        optional("sni", Kind::Text(value::single_host)),
        optional("insecureSkipVerify", Kind::Bool),
        not_yet("caCrl", TEXT),
    ],
    rules: &[own_certificates_are_noted, fields_fit_the_mode, names_are_bounded],
};

/// A file, or what the system believes.
fn authorities(text: &str) -> Result<(), String> {
    if text == SYSTEM { Ok(()) } else { value::file_path(text) }
}

/// `ISTIO_MUTUAL` is the mesh's own TLS, which there is not yet.
fn own_certificates_are_noted(node: &Node, path: &str, report: &mut Report<'_>) {
    if let Some(mode) = node.get("mode").filter(|mode| mode.text() == "ISTIO_MUTUAL") {
        report.not_enforced(mode.line, &join(path, "mode"));
    }
}

const FILES: &[&str] = &["clientCertificate", "privateKey", "caCertificates", "caCrl"];

fn fields_fit_the_mode(node: &Node, path: &str, report: &mut Report<'_>) {
    let mode = node.text_of("mode");
    let originates = matches!(mode, "SIMPLE" | "MUTUAL");
    config_map_is_at_home(node, path, report);
    let mut wrong = |field: &str, reason: String| {
        let line = node.get(field).map_or(node.line, |field| field.line);
        report.error(line, &join(path, field), reason);
    };
    let unverified = flag(node, "insecureSkipVerify") && originates;
    for part in present(node, &["caCertificates", "subjectAltNames", "credentialName"]) {
        if unverified && (part != "credentialName" || mode == "SIMPLE") {
            let reason = format!("`{part}` and `insecureSkipVerify` exclude each other: keep one");
            wrong(part, reason);
        }
    }
    if node.has("credentialName") && originates {
        for file in present(node, FILES) {
            let reason = format!("`credentialName` and `{file}` exclude each other: keep one");
            wrong(file, reason);
        }
        return;
    }
    match mode {
        "MUTUAL" => {
            let files = ["clientCertificate", "privateKey"];
            for file in files.into_iter().filter(|file| !node.has(file)) {
                wrong(file, "MUTUAL needs this, or `credentialName`".to_owned());
            }
        }
        // A certificate that is not shown is the slip of somebody who wants to show one.
        "SIMPLE" => {
            if let [file, ..] = present(node, &["clientCertificate", "privateKey"])[..] {
                let reason = "SIMPLE shows no certificate: use `mode: MUTUAL`, or remove this";
                wrong(file, reason.to_owned());
            }
        }
        // Istio's own examples leave files behind, and they mean nothing there.
        _ if mode != "ISTIO_MUTUAL" => nothing_without_a_mode(node, path, report),
        _ => {}
    }
}

/// Without a mode, as with `DISABLE`, there is no TLS.
fn nothing_without_a_mode(node: &Node, path: &str, report: &mut Report<'_>) {
    let fields = ["clientCertificate", "privateKey", "caCertificates", "subjectAltNames", "sni"];
    if let Some(field) = present(node, &fields).first() {
        let line = node.get(field).map_or(node.line, |field| field.line);
        let reason = "no TLS is begun: set `mode` to SIMPLE or MUTUAL";
        report.no_effect(line, &join(path, field), reason);
    }
}

fn names_are_bounded(node: &Node, path: &str, report: &mut Report<'_>) {
    at_most(node, "subjectAltNames", SUBJECT_ALT_NAMES_MAX, path, report);
}

/// `configmap://NAME` or `configmap://NAMESPACE/NAME`, of the rule's own namespace.
fn config_map_is_at_home(node: &Node, path: &str, report: &mut Report<'_>) {
    let Some(credential) = node.get("credentialName") else { return };
    let Some(name) = credential.text().strip_prefix("configmap://") else { return };
    let (namespace, name) = name.split_once('/').unwrap_or_else(|| (report.namespace(), name));
    if namespace != report.namespace() || name.is_empty() || name.contains('/') {
        let home = report.namespace();
        let reason =
            format!("use a ConfigMap of the rule's own namespace: `configmap://{home}/NAME`");
        report.at(credential, &join(path, "credentialName"), reason);
    }
}

/// Checked settings into their noun.
pub(in crate::yaml) fn read(node: &Node) -> TlsSettings {
    let mutual = match node.text_of("mode") {
        "SIMPLE" => false,
        "MUTUAL" => true,
        _ => return TlsSettings::Plain,
    };
    let file = |key| node.get(key).map(|path| path.text().to_owned());
    TlsSettings::Originate(Box::new(ClientTls {
        mutual,
        certificate: file("clientCertificate"),
        private_key: file("privateKey"),
        authorities: file("caCertificates").filter(|path| path != SYSTEM),
        server_name: node.text_of("sni").trim_end_matches('.').to_ascii_lowercase(),
        subject_alt_names: node.texts_of("subjectAltNames"),
        unverified: flag(node, "insecureSkipVerify"),
    }))
}

fn flag(node: &Node, key: &str) -> bool {
    node.text_of(key).eq_ignore_ascii_case("true")
}
