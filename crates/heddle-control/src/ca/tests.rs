//! What an authority signs, what it believes, and what of a user's own is refused with which words.

use std::{io::Write as _, process::Command};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyUsagePurpose};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// 2026-11-29T13:46:31Z.
const NOW: Duration = Duration::from_secs(1_795_959_991);
const DOMAIN: &str = "cluster.local";

/// How people make keys: SEC 1 and PKCS #1.
const TOOLS: [&[&str]; 2] =
    [&["ecparam", "-genkey", "-name", "prime256v1", "-noout"], &["genrsa", "-traditional", "2048"]];

fn web() -> PodIdentity {
    PodIdentity {
        namespace: "shop".to_owned(),
        service_account: "web".to_owned(),
        pod_name: "web-7f3a".to_owned(),
        pod_uid: "0c5e".to_owned(),
    }
}

fn request() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
}

fn authority() -> Authority {
    Authority::generate(DOMAIN, NOW).unwrap()
}

/// Somebody's own authority, as people make one with openssl.
struct Own {
    params: CertificateParams,
    key: KeyPair,
}

impl Own {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    fn but(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.params);
        self
    }

    fn root_pem(&self) -> String {
        self.params.self_signed(&self.key).unwrap().pem()
    }

    fn under(&self, other: &Self) -> String {
        let issuer = Issuer::from_params(&other.params, &other.key);
        self.params.signed_by(&self.key, &issuer).unwrap().pem()
    }

    fn pem(&self, ca_crt: String, root_crt: String) -> AuthorityPem {
        AuthorityPem { ca_crt, ca_key: self.key.serialize_pem(), root_crt }
    }
}

fn refused(pem: AuthorityPem) -> CaError {
    Authority::from_pem(DOMAIN, pem, NOW).unwrap_err()
}

#[test]
fn a_pods_certificate_says_who_it_is_for_a_day_and_two_minutes_back() {
    let authority = authority();
    let issued = authority.sign(&request(), &web(), NOW).unwrap();
    assert_eq!(issued.not_before, NOW.as_secs() - 120);
    assert_eq!(issued.not_after, NOW.as_secs() + 24 * 3600);
    assert_eq!(issued.chain.len(), 1, "the root is not sent: others have it");
    let behind = NOW - Duration::from_secs(110);
    let certified = authority.verify(&issued.chain, behind).unwrap();
    assert_eq!(certified.workload.0, "shop.web-7f3a");
    assert_eq!(certified.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(certified.pod_uid, "0c5e");
    assert_eq!(certified.not_after, issued.not_after);
}

#[test]
fn an_authority_comes_back_from_its_text_and_believes_what_it_signed_before() {
    let before = authority();
    let issued = before.sign(&request(), &web(), NOW).unwrap();
    let after = Authority::from_pem(DOMAIN, before.to_pem().clone(), NOW + DAY / 2).unwrap();
    assert!(after.verify(&issued.chain, NOW + DAY / 2).is_ok());
    assert_eq!(after.roots_pem(), before.roots_pem());
}

#[test]
fn a_certificate_past_its_time_or_before_it_is_refused_with_the_moment() {
    let authority = authority();
    let issued = authority.sign(&request(), &web(), NOW).unwrap();
    let second = Duration::from_secs(1);
    let late = authority.verify(&issued.chain, NOW + DAY + second).unwrap_err().to_string();
    assert!(late.contains("it expired at 2026-11-30T13:46:31Z"), "{late}");
    let early = authority.verify(&issued.chain, NOW - DAY).unwrap_err().to_string();
    assert!(early.contains("is the clock right"), "{early}");
}

#[test]
fn what_another_authority_signed_is_not_believed_and_neither_is_a_servers_certificate() {
    let (authority, other) = (authority(), authority());
    let foreign = other.sign(&request(), &web(), NOW).unwrap();
    let error = authority.verify(&foreign.chain, NOW).unwrap_err().to_string();
    assert!(error.contains("no root of this mesh leads to its issuer"), "{error}");
    let names = ["heddle-control.heddle-system.svc".to_owned()];
    let (server, _) = authority.serve_as(&names, NOW).unwrap();
    assert!(authority.verify(&server.chain, NOW).is_err());
    assert!(authority.verify(&[], NOW).is_err());
}

#[test]
fn a_users_own_root_and_intermediate_are_used_and_the_intermediate_is_sent_along() {
    let (root, middle) = (Own::new("Acme root"), Own::new("Acme mesh"));
    let (chain, root) = (middle.under(&root), root.root_pem());
    let authority =
        Authority::from_pem(DOMAIN, middle.pem(chain.clone(), root.clone()), NOW).unwrap();
    let issued = authority.sign(&request(), &web(), NOW).unwrap();
    assert_eq!(issued.chain.len(), 2);
    assert!(authority.verify(&issued.chain, NOW).is_ok());
    // As people put them together: the root at the end of the chain too.
    let whole = format!("{chain}{root}");
    let authority = Authority::from_pem(DOMAIN, middle.pem(whole, root), NOW).unwrap();
    assert_eq!(authority.sign(&request(), &web(), NOW).unwrap().chain.len(), 2);
}

/// What the tool prints; `None` where it is not here.
fn by_openssl(words: &[&str]) -> Option<String> {
    let output = Command::new("openssl").args(words).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn keys_are_taken_in_every_form_that_tools_write() {
    for tool in TOOLS {
        let Some(text) = by_openssl(tool) else {
            let line = b"SKIPPED keys_are_taken_in_every_form_that_tools_write: no openssl\n";
            return std::io::stderr().write_all(line).unwrap();
        };
        let key = IssuingKey::from_pem(&text).unwrap();
        let own = Own::new("Acme root");
        let root = own.params.self_signed(&key).unwrap().pem();
        let pem = AuthorityPem { ca_crt: root.clone(), ca_key: text, root_crt: root };
        let authority = Authority::from_pem(DOMAIN, pem, NOW).unwrap();
        let issued = authority.sign(&request(), &web(), NOW).unwrap();
        assert!(authority.verify(&issued.chain, NOW).is_ok());
    }
}

#[test]
fn both_roots_are_believed_while_one_follows_the_other() {
    let (old, new) = (authority(), authority());
    let both = AuthorityPem {
        root_crt: format!("{}{}", old.roots_pem(), new.roots_pem()),
        ..new.to_pem().clone()
    };
    let between = Authority::from_pem(DOMAIN, both, NOW).unwrap();
    for signer in [&old, &new, &between] {
        let issued = signer.sign(&request(), &web(), NOW).unwrap();
        assert!(between.verify(&issued.chain, NOW).is_ok());
    }
}

#[test]
fn what_of_a_users_authority_cannot_be_used_is_named() {
    let (root, middle, other) = (Own::new("Acme root"), Own::new("Acme mesh"), Own::new("Other"));
    let chain = || middle.under(&root);
    let cases = [
        (other.pem(chain(), root.root_pem()), "`ca.key` is not the key of the first certificate"),
        (middle.pem(chain(), other.root_pem()), "which is not in `root.crt`"),
        (middle.pem("nothing".to_owned(), root.root_pem()), "`ca.crt`: it holds no certificate"),
        (middle.pem(chain(), String::new()), "`root.crt`: it holds no certificate in PEM"),
        (
            AuthorityPem { ca_key: String::new(), ..middle.pem(chain(), root.root_pem()) },
            "`ca.key`",
        ),
    ];
    for (pem, said) in cases {
        let error = refused(pem).to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn an_authority_that_may_not_sign_is_refused_before_it_has_signed() {
    let root = Own::new("Acme root");
    let leaf = Own::new("Leaf").but(|params| params.is_ca = IsCa::ExplicitNoCa);
    let error = refused(leaf.pem(leaf.under(&root), root.root_pem()));
    assert!(matches!(error, CaError::NoAuthority { .. }), "{error}");
    let idle = Own::new("Idle").but(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let error = refused(idle.pem(idle.under(&root), root.root_pem()));
    assert!(error.to_string().contains("keyCertSign"), "{error}");
    let short = Own::new("Acme root")
        .but(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let (middle, last) = (Own::new("Middle"), Own::new("Last"));
    let chain = format!("{}{}", last.under(&middle), middle.under(&short));
    let error = refused(last.pem(chain, short.root_pem()));
    assert!(matches!(error, CaError::Chain(_)), "{error}");
}

#[test]
fn an_authority_past_its_time_is_refused_and_signs_nothing_that_outlives_it() {
    let at =
        |days: u64| rcgen::date_time_ymd(1970, 1, 1) + NOW + Duration::from_secs(days * 24 * 3600);
    let old = Own::new("Old").but(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let error = refused(old.pem(old.root_pem(), old.root_pem())).to_string();
    assert!(error.contains("expired at 2020-01-01T00:00:00Z"), "{error}");
    let coming = Own::new("Coming").but(|params| params.not_before = at(2));
    let error = refused(coming.pem(coming.root_pem(), coming.root_pem()));
    assert!(matches!(error, CaError::NotYetValid { .. }), "{error}");
    let short = Own::new("Short").but(|params| params.not_after = at(1));
    let pem = short.pem(short.root_pem(), short.root_pem());
    let authority = Authority::from_pem(DOMAIN, pem, NOW).unwrap();
    let half = NOW + DAY / 2;
    let issued = authority.sign(&request(), &web(), half).unwrap();
    assert_eq!(issued.not_after, (NOW + DAY).as_secs());
    let error = authority.sign(&request(), &web(), NOW + DAY).unwrap_err();
    assert!(matches!(error, CaError::Expired { .. }), "{error}");
}

#[test]
fn a_request_without_the_private_key_and_garbage_are_refused() {
    let authority = authority();
    let mut forged = request();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for bytes in [forged, Vec::new(), vec![0x30; 64]] {
        let error = authority.sign(&bytes, &web(), NOW).unwrap_err();
        assert!(matches!(error, CaError::Request(_)), "{error}");
    }
}

#[test]
fn what_a_request_says_of_its_sender_counts_for_nothing() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["heddle-control".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "root");
    let request = params.serialize_request(&key).unwrap();
    let issued = authority.sign(request.der(), &web(), NOW).unwrap();
    let certified = authority.verify(&issued.chain, NOW).unwrap();
    assert_eq!(certified.workload.0, "shop.web-7f3a");
    let parsed = read::parse("certificate", &issued.chain[0]).unwrap();
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
}

#[test]
fn names_that_kubernetes_cannot_give_get_no_certificate() {
    let authority = authority();
    let cases = [
        PodIdentity { namespace: "shop/sa/admin".to_owned(), ..web() },
        PodIdentity { service_account: "web/../admin".to_owned(), ..web() },
        PodIdentity { pod_name: String::new(), ..web() },
        PodIdentity { pod_uid: "x".repeat(65), ..web() },
    ];
    for pod in cases {
        let error = authority.sign(&request(), &pod, NOW).unwrap_err();
        assert!(matches!(error, CaError::Name(_)), "{error}");
    }
    for domain in ["", "Cluster.local", "a/b", "a b"] {
        assert!(Authority::generate(domain, NOW).is_err(), "{domain}");
    }
}

#[test]
fn no_debug_output_shows_a_key() {
    let authority = authority();
    let shown = format!("{authority:?} {:?}", authority.to_pem());
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}
