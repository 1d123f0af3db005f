use std::{fs, path::PathBuf, sync::atomic::AtomicU32};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use sha2::{Digest as _, Sha256};

use super::*;

const GATEWAY: &str = "spiffe://prod.example/ns/edge/sa/gateway";
/// In 2027, while all is valid.
const NOW: Duration = Duration::from_secs(1_800_000_000);
const IN_2040: Duration = Duration::from_secs(2_208_988_800);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2050, 1, 1);
        params.serial_number = Some(SerialNumber::from_slice(&[42]));
        params
    }

    fn new(name: &str) -> Self {
        Self::with(Self::params(name))
    }

    fn with(params: CertificateParams) -> Self {
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(Self::params(name))
    }

    fn intermediate_with(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(params, key, &self.0).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn key_sha256(&self) -> [u8; 32] {
        use rcgen::PublicKeyData as _;
        Sha256::digest(self.0.key().subject_public_key_info()).into()
    }

    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        self.issue(change).der().clone()
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(GATEWAY.try_into().unwrap())];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2045, 1, 1);
        params.serial_number = Some(SerialNumber::from_slice(&[7]));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.0).unwrap()
    }

    fn gateway(&self) -> CertificateDer<'static> {
        self.leaf(|_| {})
    }

    /// A list that revokes these serials, of `year`, good until 2030.
    fn crl_of(&self, year: i32, serials: &[u8]) -> rcgen::CertificateRevocationList {
        let revoked = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 1),
            next_update: date_time_ymd(2030, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap()
    }

    fn crl(&self, serials: &[u8]) -> String {
        self.crl_of(2026, serials).pem().unwrap()
    }
}

fn prod(ca: &Authority) -> TrustStoreBuilder {
    TrustStore::builder().trust_domain("prod.example", ca.pem())
}

/// What is said of a leaf of `prod.example`.
fn said(
    trust: &TrustStore,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<VerifiedPath, Untrusted> {
    trust.verify(Some("prod.example"), leaf, intermediates, NOW)
}

fn refused(
    builder: TrustStoreBuilder,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Option<Untrusted> {
    said(&builder.build().unwrap(), leaf, intermediates).err()
}

/// A folder of this test's own.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("palisade-trust-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn attack_17_each_trust_domain_has_its_own_authorities() {
    let (prod, test, general) = (Authority::new("ca"), Authority::new("ca"), Authority::new("ca"));
    let trust = TrustStore::builder()
        .trust_domain("prod.example", prod.pem())
        .trust_domain("test.example", test.pem())
        .anchors(general.pem())
        .build()
        .unwrap();
    let domains = [Some("prod.example"), Some("test.example"), None];
    for (issuer, own) in [&prod, &test, &general].into_iter().zip(domains) {
        let leaf = issuer.gateway();
        for domain in domains {
            let said = trust.verify(domain, &leaf, &[], NOW);
            assert_eq!(said.is_ok(), domain == own, "{own:?} in {domain:?}: {said:?}");
            assert!(said.is_ok() || said == Err(Untrusted::NoPath));
        }
        for unknown in ["", "prod.example.evil", "prod", "PROD.EXAMPLE"] {
            let said = trust.verify(Some(unknown), &leaf, &[], NOW);
            assert_eq!(said, Err(Untrusted::NoPath), "{unknown}");
        }
        // Not even with the other domain's authority along.
        let chain = [prod.der(), test.der(), general.der()];
        for domain in domains.into_iter().filter(|domain| *domain != own) {
            assert_eq!(trust.verify(domain, &leaf, &chain, NOW), Err(Untrusted::NoPath));
        }
    }
}

#[test]
fn the_trust_domain_is_the_leafs_own() {
    let ca = Authority::new("ca");
    let domain = |uris: &[&str]| {
        let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        trust_domain(&ca.leaf(|params| params.subject_alt_names = names))
    };
    assert_eq!(domain(&[GATEWAY]), Ok(Some("prod.example".into())));
    assert_eq!(domain(&["spiffe://prod.example"]), Ok(Some("prod.example".into())));
    assert_eq!(domain(&[]), Ok(None));
    assert_eq!(domain(&["https://prod.example/a"]), Ok(None));
    assert_eq!(domain(&["https://a.example", "https://b.example"]), Ok(None));
    for bad in [
        &["SPIFFE://prod.example/a"][..],
        &["Spiffe:prod.example"],
        &[GATEWAY, "https://a.example"],
        &["https://a.example", GATEWAY],
        &[GATEWAY, GATEWAY],
    ] {
        assert_eq!(domain(bad), Err(Untrusted::Malformed), "{bad:?}");
    }
    assert_eq!(trust_domain(b"no certificate"), Err(Untrusted::Malformed));
    assert_eq!(trust_domain(&vec![0; 65 * 1024]), Err(Untrusted::Malformed));
}

#[test]
fn a_path_needs_an_anchor_and_every_intermediate() {
    let root = Authority::new("root");
    let (upper, lower) = (root.intermediate("upper"), Authority::new("stranger"));
    let lower_of_upper = upper.intermediate("lower");
    let leaf = lower_of_upper.gateway();
    let trust = prod(&root).build().unwrap();
    let path = said(&trust, &leaf, &[lower_of_upper.der(), upper.der()]).unwrap();
    let keys = [lower_of_upper.key_sha256(), upper.key_sha256(), root.key_sha256()];
    assert_eq!(path.issuer_keys_sha256, keys);
    assert_eq!(path.generation, 1);
    // The leaf's, the first to end: 2045-01-01.
    assert_eq!(path.expires_at, 2_366_841_600);
    for missing in [vec![], vec![lower_of_upper.der()], vec![upper.der()], vec![lower.der()]] {
        assert_eq!(said(&trust, &leaf, &missing), Err(Untrusted::NoPath));
    }
    assert_eq!(said(&trust, &lower.gateway(), &[]), Err(Untrusted::NoPath));
    // One of the same name and another key.
    let namesake = Authority::new("root").gateway();
    assert_eq!(said(&trust, &namesake, &[]), Err(Untrusted::NoPath));
}

/// The second verification does not count as a refusal, and what it said is remembered with the first.
#[test]
fn a_trust_domains_authority_vouches_for_no_other_names() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let issuing = ca.intermediate_with({
        let mut params = Authority::params("issuing");
        params.not_after = date_time_ymd(2035, 1, 1);
        params
    });
    let named = |ca: &Authority| {
        ca.leaf(|params| {
            params.subject_alt_names.push(SanType::DnsName("a.example".try_into().unwrap()));
        })
    };
    let vouches = |builder: TrustStoreBuilder, leaf| {
        said(&builder.build().unwrap(), &leaf, &[]).unwrap().vouches_for_names
    };
    assert!(!vouches(prod(&ca), named(&ca)));
    assert!(!vouches(prod(&ca).anchors(other.pem()), named(&ca)));
    assert!(vouches(prod(&ca).anchors(ca.pem()), named(&ca)));
    // By two paths: it holds as long as both do.
    let both = prod(&ca).anchors(issuing.pem()).build().unwrap();
    let path = said(&both, &named(&issuing), &[issuing.der()]).unwrap();
    assert!(path.vouches_for_names);
    assert_eq!(path.issuer_keys_sha256, [issuing.key_sha256(), ca.key_sha256()]);
    let mut params = Authority::params("issuing");
    params.not_after = date_time_ymd(2030, 1, 1);
    let (key, wide) = (KeyPair::generate().unwrap(), Authority::params("issuing"));
    let short = params.self_signed(&key).unwrap();
    let issuing = Authority(CertifiedIssuer::self_signed(wide, key).unwrap());
    let both = prod(&issuing).anchors(short.pem()).build().unwrap();
    let path = said(&both, &named(&issuing), &[]).unwrap();
    let in_2030 = 1_893_456_000;
    assert!(path.vouches_for_names);
    assert_eq!((path.expires_at, *path.holds.end()), (in_2030, in_2030));
    let later = Duration::from_secs(in_2030 + 1);
    let path = both.verify(Some("prod.example"), &named(&issuing), &[], later).unwrap();
    assert!(!path.vouches_for_names);
    assert!(path.expires_at > in_2030);
}

#[test]
fn attack_21_what_a_peer_appends_names_no_issuer() {
    let (root, gateway) = (Authority::new("root"), Authority::new("gateway"));
    let issuing = root.intermediate("issuing");
    let rogue = root.intermediate("rogue");
    let trust = prod(&root).build().unwrap();
    // Before and behind what belongs there: a stranger, and an authority that issued something else.
    for chain in [
        vec![issuing.der(), gateway.der(), rogue.der()],
        vec![gateway.der(), rogue.der(), issuing.der()],
        vec![rogue.der(), issuing.der(), root.der()],
    ] {
        let path = said(&trust, &issuing.gateway(), &chain).unwrap();
        assert_eq!(path.issuer_keys_sha256, [issuing.key_sha256(), root.key_sha256()]);
    }
    let path = said(&trust, &root.gateway(), &[gateway.der(), rogue.der()]).unwrap();
    assert_eq!(path.issuer_keys_sha256, [root.key_sha256()]);
}

#[test]
fn every_certificate_on_the_path_must_be_valid() {
    let root = Authority::new("root");
    let years = |from, to| {
        move |params: &mut CertificateParams| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        }
    };
    let expired = Some(Untrusted::Expired);
    for (from, to) in [(2020, 2021), (2040, 2045)] {
        assert_eq!(refused(prod(&root), &root.leaf(years(from, to)), &[]), expired);
        let mut params = Authority::params("authority");
        years(from, to)(&mut params);
        let issuing = root.intermediate_with(params.clone());
        assert_eq!(refused(prod(&root), &issuing.gateway(), &[issuing.der()]), expired);
        let anchor = Authority::with(params);
        assert_eq!(refused(prod(&anchor), &anchor.gateway(), &[]), expired);
    }
    // The same authority with an old certificate and a renewed one.
    let (mut old, key) = (Authority::params("authority"), KeyPair::generate().unwrap());
    years(2020, 2021)(&mut old);
    let old = old.self_signed(&key).unwrap().pem();
    let renewed = CertifiedIssuer::self_signed(Authority::params("authority"), key).unwrap();
    let renewed = Authority(renewed);
    let both = TrustStore::builder().trust_domain("prod.example", old + &renewed.pem());
    assert_eq!(refused(both, &renewed.gateway(), &[]), None);
    let mut params = Authority::params("authority");
    years(2020, 2035)(&mut params);
    let anchor = Authority::with(params);
    let path = said(&prod(&anchor).build().unwrap(), &anchor.gateway(), &[]).unwrap();
    assert_eq!(path.expires_at, 2_051_222_400, "the anchor is the first to end");
}

#[test]
fn a_leaf_must_be_for_clients() {
    let ca = Authority::new("ca");
    let usages = |usages: &[ExtendedKeyUsagePurpose]| {
        let usages = usages.to_vec();
        ca.leaf(|params| params.extended_key_usages = usages)
    };
    let server = usages(&[ExtendedKeyUsagePurpose::ServerAuth]);
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let unsaid = usages(&[]);
    let not_for_clients = Some(Untrusted::NotForClients);
    assert_eq!(refused(prod(&ca), &usages(&both), &[]), None);
    assert_eq!(refused(prod(&ca), &server, &[]), not_for_clients);
    assert_eq!(refused(prod(&ca), &unsaid, &[]), not_for_clients);
    assert_eq!(refused(prod(&ca), &ca.intermediate("a").der(), &[]), not_for_clients);
    let lenient = || prod(&ca).insecure_allow_missing_usage();
    assert_eq!(refused(lenient(), &unsaid, &[]), None);
    assert_eq!(refused(lenient(), &server, &[]), not_for_clients);
}

#[test]
fn what_is_no_chain_or_too_large_is_malformed() {
    let root = Authority::new("root");
    let malformed = Some(Untrusted::Malformed);
    let leaf = root.gateway();
    for bad in [&b""[..], b"no certificate", &leaf[..leaf.len() - 1]] {
        assert_eq!(refused(prod(&root), &CertificateDer::from(bad), &[]), malformed);
    }
    let others: Vec<_> = (0..8).map(|n| Authority::new(&n.to_string()).der()).collect();
    assert_eq!(refused(prod(&root), &leaf, &others[..7]), None);
    assert_eq!(refused(prod(&root), &leaf, &others), malformed);
    let large = CertificateDer::from(vec![0; 64 * 1024 + 1]);
    assert_eq!(refused(prod(&root), &large, &[]), malformed);
    assert_eq!(refused(prod(&root), &leaf, &[large]), malformed);
}

#[test]
fn a_crowd_of_namesakes_is_not_tried_in_every_order() {
    let root = Authority::new("root");
    let issuing = root.intermediate("authority");
    let leaf = issuing.gateway();
    let namesakes: Vec<_> = (0..6).map(|_| Authority::new("authority").der()).collect();
    let mut chain = vec![issuing.der(), namesakes[0].clone()];
    assert_eq!(refused(prod(&root), &leaf, &chain), None);
    chain.extend_from_slice(&namesakes[1..]);
    assert_eq!(refused(prod(&root), &leaf, &chain), Some(Untrusted::NoPath));
}

#[test]
fn what_is_revoked_is_refused_wherever_it_is_on_the_path() {
    let root = Authority::new("root");
    let issuing = root.intermediate("issuing");
    let (leaf, chain) = (issuing.gateway(), [issuing.der()]);
    let lists = |of_root: &[u8], of_issuing: &[u8]| {
        prod(&root).crl(root.crl(of_root)).crl(issuing.crl(of_issuing))
    };
    assert_eq!(refused(lists(&[], &[]), &leaf, &chain), None);
    assert_eq!(refused(lists(&[7], &[42]), &leaf, &chain), None, "others' serials");
    assert_eq!(refused(lists(&[], &[1, 7]), &leaf, &chain), Some(Untrusted::Revoked));
    assert_eq!(refused(lists(&[42], &[]), &leaf, &chain), Some(Untrusted::Revoked));
    let leaf_only = lists(&[42], &[]).insecure_check_leaf_revocation_only();
    assert_eq!(refused(leaf_only, &leaf, &chain), None);
    let leaf_only = lists(&[], &[7]).insecure_check_leaf_revocation_only();
    assert_eq!(refused(leaf_only, &leaf, &chain), Some(Untrusted::Revoked));
    // Both lists in one PEM, and one in DER.
    let both = prod(&root).crl(root.crl(&[]) + &issuing.crl(&[7]));
    assert_eq!(refused(both, &leaf, &chain), Some(Untrusted::Revoked));
    let der = prod(&root).crl(root.crl_of(2026, &[7]).der());
    assert_eq!(refused(der, &root.gateway(), &[]), Some(Untrusted::Revoked));
    assert_eq!(refused(prod(&root), &leaf, &chain), None, "no list, no check");
}

#[test]
fn attack_24_a_missing_or_outdated_list_fails_closed() {
    let root = Authority::new("root");
    let issuing = root.intermediate("issuing");
    let (leaf, chain) = (issuing.gateway(), [issuing.der()]);
    let unknown = Some(Untrusted::RevocationUnknown);
    let (of_root, of_issuing) = (root.crl(&[]), issuing.crl(&[]));
    assert_eq!(refused(prod(&root).crl(&of_root), &leaf, &chain), unknown);
    assert_eq!(refused(prod(&root).crl(&of_issuing), &leaf, &chain), unknown);
    let leaf_only = || prod(&root).insecure_check_leaf_revocation_only();
    assert_eq!(refused(leaf_only().crl(&of_issuing), &leaf, &chain), None);
    assert_eq!(refused(leaf_only().crl(&of_root), &leaf, &chain), unknown);
    // By a namesake, which may not speak for the issuer.
    let namesake = Authority::new("issuing").crl(&[7]);
    assert_eq!(refused(prod(&root).crl(&of_root).crl(namesake), &leaf, &chain), unknown);
    // By an authority that may not sign lists.
    let mut params = Authority::params("issuing");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let no_signer = params.signed_by(&key, &root.0).unwrap();
    params.key_usages.push(KeyUsagePurpose::CrlSign);
    let pretender = Authority(CertifiedIssuer::self_signed(params, key).unwrap());
    let lists = prod(&root).crl(&of_root).crl(pretender.crl(&[]));
    assert_eq!(refused(lists, &pretender.gateway(), &[no_signer.der().clone()]), unknown);

    let outdated = |builder: TrustStoreBuilder| {
        let trust = builder.crl(&of_root).crl(issuing.crl(&[9])).build().unwrap();
        let leaf = |serial| {
            issuing.leaf(|params| params.serial_number = Some(SerialNumber::from_slice(&[serial])))
        };
        [7, 9]
            .map(|serial| trust.verify(Some("prod.example"), &leaf(serial), &chain, IN_2040).err())
    };
    assert_eq!(outdated(prod(&root)), [unknown, unknown]);
    let lenient = prod(&root).insecure_allow_unknown_revocation();
    assert_eq!(outdated(lenient), [None, Some(Untrusted::Revoked)]);
    let lenient = prod(&root).insecure_allow_unknown_revocation();
    assert_eq!(refused(lenient.crl(&of_root), &leaf, &chain), None);
}

#[test]
fn the_newest_list_counts_whatever_the_order() {
    let ca = Authority::new("ca");
    let pem = |year, serials: &[u8]| ca.crl_of(year, serials).pem().unwrap();
    let (old, new) = (pem(2025, &[]), pem(2026, &[7]));
    for (one, other) in [(&old, &new), (&new, &old)] {
        let lists = prod(&ca).crl(one).crl(other);
        assert_eq!(refused(lists, &ca.gateway(), &[]), Some(Untrusted::Revoked));
    }
}

#[test]
fn authorities_of_the_same_name_have_lists_of_their_own() {
    let (old, new) = (Authority::new("ca"), Authority::new("ca"));
    for (of_old, of_new) in [(&[7][..], &[][..]), (&[], &[7])] {
        let lists = prod(&old).trust_domain("prod.example", new.pem());
        let lists = lists.crl(old.crl(of_old)).crl(new.crl(of_new));
        let trust = lists.build().unwrap();
        for (ca, revoked) in [(&old, of_old), (&new, of_new)] {
            let expected = if revoked.is_empty() { None } else { Some(Untrusted::Revoked) };
            assert_eq!(said(&trust, &ca.gateway(), &[]).err(), expected);
        }
    }
}

#[test]
fn what_cannot_be_trusted_is_no_store() {
    let ca = Authority::new("ca");
    let empty = TrustStore::builder().crl(ca.crl(&[])).build().unwrap_err();
    assert!(matches!(empty, BuildError::Empty(_)), "{empty}");
    let crl = ca.crl(&[]);
    let leaf = ca.issue(|_| {}).pem();
    for bad in [
        prod(&ca).anchors(""),
        prod(&ca).anchors("no PEM"),
        prod(&ca).anchors(&crl),
        prod(&ca).anchors(ca.pem() + &leaf),
        prod(&ca).anchors(&ca.pem()[..ca.pem().len() - 40]),
        prod(&ca).crl(""),
        prod(&ca).crl(ca.pem()),
        prod(&ca).crl(b"0 no list"),
        prod(&ca).crl(&crl[..crl.len() - 40]),
        prod(&ca).trust_domain("", ca.pem()),
        prod(&ca).trust_domain("Prod.example", ca.pem()),
        prod(&ca).trust_domain("spiffe://prod.example", ca.pem()),
        prod(&ca).trust_domain("a".repeat(256), ca.pem()),
    ] {
        let error = bad.build().unwrap_err();
        assert!(matches!(error, BuildError::Invalid { .. }), "{error}");
    }
    let folder = Folder::new();
    for path in [folder.write("a", "no PEM"), folder.write("empty", ""), folder.0.join("missing")] {
        for bad in [
            prod(&ca).anchors_file(&path),
            prod(&ca).trust_domain_file("a.example", &path),
            prod(&ca).crl_file(&path),
        ] {
            let error = bad.build().unwrap_err();
            assert!(matches!(error, BuildError::File { .. }), "{error}");
        }
    }
    assert!(!format!("{:?}", prod(&ca).build().unwrap()).contains("BEGIN"));
}

#[test]
fn a_reload_takes_all_or_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folder = Folder::new();
    let anchors = folder.write("anchors.pem", old.pem());
    let crl = folder.write("crl.pem", old.crl(&[]));
    let trust = TrustStore::builder().trust_domain_file("prod.example", &anchors).crl_file(&crl);
    let trust = trust.build().unwrap();
    let trusts = |ca: &Authority| said(&trust, &ca.gateway(), &[]).is_ok();
    assert!(trusts(&old) && !trusts(&new));
    trust.reload().unwrap();
    assert_eq!(trust.generation(), 1, "nothing has changed");

    folder.write("anchors.pem", new.pem());
    for half in [0, 1, 30, new.pem().len() / 2, new.pem().len() - 30] {
        folder.write("anchors.pem", &new.pem()[..half]);
        assert!(matches!(trust.reload(), Err(BuildError::File { .. })), "{half}");
        assert!(trusts(&old) && !trusts(&new));
    }
    // One good file does not count while another is bad.
    folder.write("anchors.pem", old.pem() + &new.pem());
    let list = new.crl(&[]);
    for half in [0, 1, 30, list.len() / 2, list.len() - 30] {
        folder.write("crl.pem", &list[..half]);
        assert!(matches!(trust.reload(), Err(BuildError::File { .. })), "{half}");
        assert!(trusts(&old) && !trusts(&new));
    }
    fs::remove_file(&crl).unwrap();
    assert!(trust.reload().is_err());
    assert_eq!(trust.generation(), 1);
    folder.write("crl.pem", old.crl(&[]) + &list);
    trust.reload().unwrap();
    assert_eq!(trust.generation(), 2);
    assert!(trusts(&old) && trusts(&new));
    folder.write("anchors.pem", new.pem());
    trust.clone().reload().unwrap();
    assert_eq!(trust.generation(), 3);
    assert!(!trusts(&old) && trusts(&new));
}

#[test]
fn all_can_be_replaced_through_the_handle() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let trust = prod(&old).build().unwrap();
    let trusts = |ca: &Authority| said(&trust, &ca.gateway(), &[]).is_ok();
    assert!(trust.replace(prod(&new).crl("no list")).is_err());
    assert!(trust.replace(TrustStore::builder()).is_err());
    assert!(trusts(&old) && trust.generation() == 1);
    trust.replace(prod(&new)).unwrap();
    assert!(!trusts(&old) && trusts(&new) && trust.generation() == 2);
    let folder = Folder::new();
    let path = folder.write("anchors.pem", old.pem());
    trust.replace(TrustStore::builder().trust_domain_file("prod.example", path)).unwrap();
    assert!(trusts(&old) && !trusts(&new) && trust.generation() == 3);
    folder.write("anchors.pem", new.pem());
    trust.reload().unwrap();
    assert!(!trusts(&old) && trusts(&new) && trust.generation() == 4);
}

#[tokio::test(start_paused = true)]
async fn files_are_read_again_by_themselves() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folder = Folder::new();
    let path = folder.write("anchors.pem", old.pem());
    let trust = TrustStore::builder().trust_domain_file("prod.example", &path).build().unwrap();
    // Nobody asks anything, and yet it is seen. The clock runs on while all wait.
    let reaches = async |generation| {
        while trust.generation() < generation {
            tokio::time::sleep(watch::LOOK_EVERY).await;
        }
    };
    folder.write("new.pem", new.pem());
    fs::rename(folder.0.join("new.pem"), &path).unwrap();
    reaches(2).await;
    assert!(said(&trust, &new.gateway(), &[]).is_ok());
    folder.write("anchors.pem", "half");
    for _ in 0..5 {
        tokio::time::sleep(watch::LOOK_EVERY).await;
    }
    assert_eq!(trust.generation(), 2);
    assert!(said(&trust, &new.gateway(), &[]).is_ok());
    folder.write("anchors.pem", old.pem());
    reaches(3).await;
    assert!(said(&trust, &old.gateway(), &[]).is_ok());
    assert!(said(&trust, &new.gateway(), &[]).is_err());
}

#[test]
fn attack_23_what_was_verified_is_forgotten_when_anything_changes() {
    let ca = Authority::new("ca");
    let trust = prod(&ca).crl(ca.crl(&[])).build().unwrap();
    let (leaf, domain) = (ca.gateway(), Some("prod.example"));
    let digest = ChainDigest::of(domain, &leaf, &[]);
    let cached = |now| trust.cached(&digest, now).is_some();
    let verify = |now| trust.verify_cached(domain, &leaf, &[], now).map(|path| path.generation);
    assert!(!cached(NOW));
    assert_eq!(verify(NOW), Ok(1));
    assert!(cached(NOW));
    // The list says nothing after 2029-12-31 23:59:59.
    let ends = Duration::from_secs(1_893_455_999);
    assert!(cached(ends) && !cached(ends + Duration::from_secs(1)));
    assert_eq!(verify(ends + Duration::from_secs(1)), Err(Untrusted::RevocationUnknown));
    assert!(!cached(Duration::from_secs(0)), "the clock went back");
    trust.replace(prod(&ca).crl(ca.crl(&[1]))).unwrap();
    assert!(!cached(NOW));
    assert_eq!(verify(NOW), Ok(2));
    trust.replace(prod(&ca).crl(ca.crl(&[7]))).unwrap();
    assert_eq!(verify(NOW), Err(Untrusted::Revoked));
    assert!(!cached(NOW), "failures are not remembered");
}
