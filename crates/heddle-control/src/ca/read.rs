//! An authority from text: every part is looked at, so that what is wrong is said where it is wrong, and not by a
//! sidecar that believes nobody.

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{error::CaError, identity::seconds, key::IssuingKey};

/// Certificates in one text.
const CERTIFICATES_MAX: usize = 64;

/// From and until when, seconds of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl Span {
    /// The time that both have.
    fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }

    /// Is `now` in it?
    pub(super) fn check(self, what: &str, now: u64) -> Result<(), CaError> {
        let what = what.to_owned();
        match () {
            () if now >= self.not_after => Err(CaError::Expired { what, at: self.not_after }),
            () if now < self.not_before => Err(CaError::NotYetValid { what, at: self.not_before }),
            () => Ok(()),
        }
    }
}

/// Reads the certificates in PEM of one part.
pub(super) fn certificates(
    part: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let wrong = |reason: String| CaError::Unreadable { part, reason };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| wrong(format!("it is no PEM: {error}")))?;
    match all.len() {
        0 => Err(wrong("it holds no certificate in PEM".to_owned())),
        count if count > CERTIFICATES_MAX => {
            Err(wrong(format!("it holds {count} certificates: at most {CERTIFICATES_MAX}")))
        }
        _ => Ok(all),
    }
}

pub(super) fn parse<'a>(
    part: &'static str,
    der: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, CaError> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|error| {
        CaError::Unreadable { part, reason: format!("a certificate cannot be read: {error}") }
    })
}

/// Until when the last of the certificates in `pem` holds, seconds of Unix time.
pub(crate) fn end_of(pem: &str) -> Result<u64, CaError> {
    const PART: &str = "root-cert.pem";
    let all = certificates(PART, pem)?;
    let ends = all.iter().map(|der| parse(PART, der).map(|one| span_of(&one).not_after));
    ends.collect::<Result<Vec<_>, _>>().map(|ends| ends.into_iter().max().unwrap_or_default())
}

/// Looks at the issuing certificate, those behind it and the root they lead to; the time that all of them have.
pub(super) fn check(
    key: &IssuingKey,
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: u64,
) -> Result<Span, CaError> {
    const PART: &str = "ca.crt";
    let Some(first) = chain.first() else {
        return Err(CaError::Unreadable { part: PART, reason: "it is empty".to_owned() });
    };
    may_sign(key, &parse(PART, first)?)?;
    let mut span = Span { not_before: 0, not_after: u64::MAX };
    for (below, der) in chain.iter().enumerate() {
        let certificate = parse(PART, der)?;
        let own = span_of(&certificate);
        is_short(&certificate, below)?;
        own.check(&format!("the certificate {} in `ca.crt`", certificate.subject()), now)?;
        span = span.and(own);
    }
    let Some(last) = chain.last() else { return Ok(span) };
    let last = parse(PART, last)?;
    // Those who believe a root do not look at its time, but openssl and others do.
    let mut latest: Option<(Span, String)> = None;
    for der in roots {
        let root = parse("root.crt", der)?;
        let own = span_of(&root);
        if chain.iter().all(|one| one != der) && signed(&root, &last) {
            is_short(&root, chain.len())?;
        }
        if signed(&root, &last)
            && latest.as_ref().is_none_or(|(other, _)| own.not_after > other.not_after)
        {
            latest = Some((own, root.subject().to_string()));
        }
    }
    let Some((root, subject)) = latest else {
        return Err(CaError::Chain(format!(
            "the last certificate in `ca.crt` was signed by {}, which is not in `root.crt`",
            last.issuer()
        )));
    };
    root.check(&format!("the root {subject} in `root.crt`"), now)?;
    Ok(span.and(root))
}

/// By its name: whether the signature is right is proven by the first certificate that is signed.
fn signed(issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
    issuer.subject().as_raw() == certificate.issuer().as_raw()
}

/// May so many certificates of authorities stand below this one? Sidecars do not look at what a root says of that,
/// but openssl and others do.
fn is_short(certificate: &X509Certificate<'_>, below: usize) -> Result<(), CaError> {
    let constraints = certificate.basic_constraints().ok().flatten();
    let Some(max) = constraints.and_then(|one| one.value.path_len_constraint) else {
        return Ok(());
    };
    match usize::try_from(max).is_ok_and(|max| below > max) {
        true => Err(CaError::Chain(format!(
            "{} lets {max} certificates of authorities be below it, and there are {below} (pathlen)",
            certificate.subject()
        ))),
        false => Ok(()),
    }
}

fn may_sign(key: &IssuingKey, first: &X509Certificate<'_>) -> Result<(), CaError> {
    let subject = first.subject().to_string();
    if first.public_key().subject_public_key.data.as_ref() != key.public() {
        return Err(CaError::ForeignKey { subject });
    }
    let usage = first.key_usage().ok().flatten();
    let reason = match () {
        () if !first.is_ca() => "its basic constraints do not say CA:TRUE",
        () if usage.is_some_and(|usage| !usage.value.key_cert_sign()) => {
            "its key usage lacks keyCertSign"
        }
        () => return Ok(()),
    };
    Err(CaError::NoAuthority { subject, reason: reason.to_owned() })
}

fn span_of(certificate: &X509Certificate<'_>) -> Span {
    let validity = certificate.validity();
    Span {
        not_before: seconds(validity.not_before.timestamp()),
        not_after: seconds(validity.not_after.timestamp()),
    }
}
