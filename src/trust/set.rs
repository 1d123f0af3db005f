//! One reading of all that is trusted, and verification by it.

use std::{collections::HashMap, time::Duration};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::{
    anchors::{Anchor, Anchors},
    builder::{Kind, Options, Parts},
    certificate,
    crl::{self, Crl},
    path::{ALGORITHMS, Untrusted, VerifiedPath},
};
use crate::BuildError;

/// Authorities and revocation lists, as they were at one time.
#[derive(Debug)]
pub(super) struct Set {
    domains: HashMap<String, Anchors>,
    general: Anchors,
    crls: Vec<Crl>,
    options: Options,
    /// Of all that was read: the same again is no change.
    pub(super) digest: [u8; 32],
    pub(super) generation: u64,
}

impl Set {
    /// Reads the parts, files included.
    pub(super) fn read(parts: &Parts, generation: u64) -> Result<Self, BuildError> {
        let mut set = Self {
            domains: HashMap::new(),
            general: Anchors::default(),
            crls: Vec::new(),
            options: parts.options,
            digest: [0; 32],
            generation,
        };
        let mut digest = Sha256::new();
        digest.update(format!("{:?}", parts.options));
        for part in &parts.parts {
            let text = part.source.read()?;
            digest.update(format!("{:?} {} ", part.kind, text.len()));
            digest.update(&text);
            let added = match &part.kind {
                Kind::General => set.general.add(&text),
                Kind::TrustDomain(name) => set.domains.entry(name.clone()).or_default().add(&text),
                Kind::Crl => crl::read(&text).map(|crls| set.crls.extend(crls)),
            };
            added.map_err(|reason| part.invalid(reason))?;
        }
        if set.anchors().next().is_none() {
            return Err(BuildError::Empty("the list of trust anchors"));
        }
        crl::newest_first(&mut set.crls);
        set.digest = digest.finalize().into();
        Ok(set)
    }

    /// The anchors of all trust domains, and the general ones.
    pub(super) fn anchors(&self) -> impl Iterator<Item = &TrustAnchor<'static>> {
        let all = self.domains.values().chain([&self.general]);
        all.flat_map(|anchors| &anchors.trusted)
    }

    pub(super) fn crl_count(&self) -> usize {
        self.crls.len()
    }

    pub(super) fn verify(
        &self,
        trust_domain: Option<&str>,
        leaf: &[u8],
        intermediates: &[CertificateDer<'_>],
        now: Duration,
    ) -> Result<VerifiedPath, Untrusted> {
        certificate::check_size(leaf, intermediates)?;
        let der = CertificateDer::from(leaf);
        let leaf = EndEntityCert::try_from(&der)?;
        check_names_differ(intermediates)?;
        if !self.options.allow_missing_usage && !certificate::lists_usages(&der)? {
            return Err(Untrusted::NotForClients);
        }
        let by = |anchors| self.verify_by(&Attempt { leaf: &leaf, anchors, intermediates, now });
        let Some(domain) = trust_domain else { return by(&self.general) };
        let path = by(self.domains.get(domain).ok_or(Untrusted::NoPath)?)?;
        Ok(match by(&self.general) {
            Ok(general) => path.while_holds(&general),
            Err(_) => VerifiedPath { vouches_for_names: false, ..path },
        })
    }

    fn verify_by(&self, attempt: &Attempt<'_>) -> Result<VerifiedPath, Untrusted> {
        let anchors = attempt.anchors;
        let mut path = attempt.path(&anchors.trusted, None)?;
        let mut crls = Vec::new();
        if !self.crls.is_empty() {
            crls = self.crls_for(&path, anchors);
            let lists: Vec<&CertRevocationList<'_>> = crls.iter().map(|crl| &crl.list).collect();
            if let Some(revocation) = self.revocation(&lists)? {
                path = attempt.path(std::slice::from_ref(path.anchor()), Some(revocation))?;
            }
        }
        self.verified(&path, anchors, &crls)
    }

    /// The lists that the issuers on a path signed.
    fn crls_for(&self, path: &webpki::VerifiedPath<'_>, anchors: &Anchors) -> Vec<&Crl> {
        let anchor = anchors.certificate_of(path.anchor()).map(|anchor| anchor.der.clone());
        let issuers = path.intermediate_certificates().map(|issuer| issuer.der()).chain(anchor);
        let depth = if self.options.leaf_revocation_only { 1 } else { usize::MAX };
        let mut crls = Vec::new();
        for issuer in issuers.take(depth) {
            if let Ok(issuer) = EndEntityCert::try_from(&issuer) {
                crls.extend(crl::of_issuer(&self.crls, &issuer));
            }
        }
        crls
    }

    /// How to ask these lists; `None` where there is none and that is allowed.
    fn revocation<'a>(
        &self,
        crls: &'a [&'a CertRevocationList<'a>],
    ) -> Result<Option<RevocationOptions<'a>>, Untrusted> {
        let Ok(builder) = RevocationOptionsBuilder::new(crls) else {
            let allowed = self.options.allow_unknown_revocation;
            return if allowed { Ok(None) } else { Err(Untrusted::RevocationUnknown) };
        };
        let depth = if self.options.leaf_revocation_only {
            RevocationCheckDepth::EndEntity
        } else {
            RevocationCheckDepth::Chain
        };
        let (status, expiration) = if self.options.allow_unknown_revocation {
            (UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore)
        } else {
            (UnknownStatusPolicy::Deny, ExpirationPolicy::Enforce)
        };
        let builder = builder.with_depth(depth).with_status_policy(status);
        Ok(Some(builder.with_expiration_policy(expiration).build()))
    }

    fn verified(
        &self,
        path: &webpki::VerifiedPath<'_>,
        anchors: &Anchors,
        crls: &[&Crl],
    ) -> Result<VerifiedPath, Untrusted> {
        let anchor = anchors.certificate_of(path.anchor()).ok_or(Untrusted::NoPath)?;
        let (mut begins, mut ends) = anchor.valid.clone().into_inner();
        let mut issuer_keys_sha256 = Vec::new();
        let intermediates = path.intermediate_certificates();
        for intermediate in intermediates {
            let key = intermediate.subject_public_key_info();
            issuer_keys_sha256.push(Sha256::digest(&key).into());
        }
        let key = webpki::spki_for_anchor(path.anchor());
        issuer_keys_sha256.push(Sha256::digest(&key).into());
        let issued = path.intermediate_certificates().map(|cert| cert.der());
        for certificate in issued.chain([path.end_entity().der()]) {
            let (from, to) = certificate::validity(&certificate)?.into_inner();
            begins = begins.max(from);
            ends = ends.min(to);
        }
        let mut spoken_for = ends;
        if !self.options.allow_unknown_revocation {
            spoken_for = crls.iter().map(|crl| crl.ends()).fold(ends, u64::min);
        }
        Ok(VerifiedPath {
            issuer_keys_sha256,
            vouches_for_names: true,
            expires_at: ends,
            generation: self.generation,
            holds: begins..=spoken_for,
        })
    }
}

/// What is to be verified, when, and by whom.
struct Attempt<'a> {
    leaf: &'a EndEntityCert<'a>,
    anchors: &'a Anchors,
    intermediates: &'a [CertificateDer<'a>],
    now: Duration,
}

impl<'a> Attempt<'a> {
    fn path(
        &self,
        trusted: &'a [TrustAnchor<'a>],
        revocation: Option<RevocationOptions<'_>>,
    ) -> Result<webpki::VerifiedPath<'a>, Error> {
        let time = UnixTime::since_unix_epoch(self.now);
        // An anchor's own end binds nobody in RFC 5280. But an authority that put one in its certificate meant it.
        let anchor_is_valid = |path: &webpki::VerifiedPath<'_>| {
            let anchor = self.anchors.certificate_of(path.anchor());
            let Anchor { valid, .. } = anchor.ok_or(Error::UnknownIssuer)?;
            if valid.contains(&self.now.as_secs()) {
                return Ok(());
            }
            let not_after = UnixTime::since_unix_epoch(Duration::from_secs(*valid.end()));
            Err(Error::CertExpired { time, not_after })
        };
        self.leaf.verify_for_usage(
            ALGORITHMS,
            trusted,
            self.intermediates,
            time,
            KeyUsage::client_auth(),
            revocation,
            Some(&anchor_is_valid),
        )
    }
}

/// Any order of certificates with the same name may be a path, and all would be tried: seven make thousands, before a
/// signature is looked at. Two have a use, as an old and a new certificate of the same authority.
fn check_names_differ(intermediates: &[CertificateDer<'_>]) -> Result<(), Untrusted> {
    let certificates = intermediates.iter().filter_map(|der| EndEntityCert::try_from(der).ok());
    let certificates: Vec<_> = certificates.collect();
    let crowded = certificates.iter().any(|one| {
        certificates.iter().filter(|other| other.subject() == one.subject()).count() > 2
    });
    if crowded { Err(Untrusted::NoPath) } else { Ok(()) }
}
