//! A small public key infrastructure, made anew for each test.
#![allow(dead_code)] // Each test binary uses a part of it.
#![allow(clippy::unwrap_used)] // Only tests use it.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

pub(crate) const GATEWAY: &str = "spiffe://prod.example/ns/edge/sa/gateway";
pub(crate) const OUTSIDER: &str = "spiffe://prod.example/ns/edge/sa/outsider";

/// The first second of the year 2100, when leaves end.
pub(crate) const NOT_AFTER: u64 = 4_102_444_800;

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its private key.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

impl Leaf {
    /// Both in one PEM.
    pub(crate) fn bundle(&self) -> String {
        format!("{}{}", self.cert, self.key)
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.der.clone()]
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// The server's, for `localhost` and `127.0.0.1`.
    pub(crate) fn server(&self) -> Leaf {
        self.issue(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = vec![
                SanType::DnsName("localhost".try_into().unwrap()),
                SanType::IpAddress("127.0.0.1".parse().unwrap()),
            ];
        })
    }

    /// A workload's.
    pub(crate) fn workload(&self, id: &str) -> Leaf {
        self.workload_until(id, 2100)
    }

    /// A workload's, valid from 2020 to the first second of a year.
    pub(crate) fn workload_until(&self, id: &str, year: i32) -> Leaf {
        self.issue(|params| {
            params.subject_alt_names = vec![
                SanType::URI(id.try_into().unwrap()),
                SanType::DnsName("gateway.edge.svc".try_into().unwrap()),
            ];
            params.not_after = date_time_ymd(year, 1, 1);
        })
    }

    pub(crate) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::default();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Leaf { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
    }

    /// [`workload`](Self::workload), with a serial number to revoke it by.
    pub(crate) fn workload_numbered(&self, id: &str, serial: u8) -> Leaf {
        self.issue(|params| {
            params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
            params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        })
    }

    /// The list, in PEM, that revokes these serial numbers. Good from 2020 to the first second of a year.
    pub(crate) fn crl(&self, serials: &[u8], year: i32) -> String {
        let revoked = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}
