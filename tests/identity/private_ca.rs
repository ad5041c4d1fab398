//! An issuer whose TLS certificate comes from a private authority.

use std::{io::Write as _, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use der::{
    Encode as _, EncodePem as _,
    asn1::{Any, BitString, Ia5String, OctetString},
    oid::AssociatedOid,
    pem::LineEnding,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;
use x509_cert::{
    Certificate, TbsCertificate, Version,
    ext::{
        Extension,
        pkix::{BasicConstraints, SubjectAltName, name::GeneralName},
    },
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, ObjectIdentifier, SubjectPublicKeyInfoOwned},
    time::Validity,
};

use super::{Authenticator, Issuer, IssuerSettings, Refusal, SUBJECT, Settings, Timestamp, ask, json, trusting};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

struct Authority {
    key: EcdsaKeyPair,
    certificate: Certificate,
}

fn key() -> (EcdsaKeyPair, Vec<u8>) {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    (key, pkcs8.as_ref().to_vec())
}

fn extension<T: AssociatedOid + der::Encode>(value: &T) -> Extension {
    Extension { extn_id: T::OID, critical: true, extn_value: OctetString::new(value.to_der().unwrap()).unwrap() }
}

fn certificate(subject: &str, of: &EcdsaKeyPair, by: &EcdsaKeyPair, extension: Extension) -> Certificate {
    let signature_algorithm = AlgorithmIdentifierOwned { oid: ECDSA_SHA256, parameters: None };
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::from(7_u8),
        signature: signature_algorithm.clone(),
        issuer: "CN=Private CA".parse().unwrap(),
        validity: Validity::from_now(Duration::from_hours(1)).unwrap(),
        subject: subject.parse().unwrap(),
        subject_public_key_info: SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some(Any::from(&P256)) },
            subject_public_key: BitString::from_bytes(of.public_key().as_ref()).unwrap(),
        },
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(vec![extension]),
    };
    let signature = by.sign(&SystemRandom::new(), &tbs_certificate.to_der().unwrap()).unwrap();
    let signature = BitString::from_bytes(signature.as_ref()).unwrap();
    Certificate { tbs_certificate, signature_algorithm, signature }
}

impl Authority {
    fn new() -> Self {
        let (key, _) = key();
        let constraints = BasicConstraints { ca: true, path_len_constraint: None };
        let certificate = certificate("CN=Private CA", &key, &key, extension(&constraints));
        Self { key, certificate }
    }

    fn pem(&self) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(self.certificate.to_pem(LineEnding::LF).unwrap().as_bytes()).unwrap();
        file
    }

    /// The TLS settings of a server called `localhost`.
    fn server(&self) -> rustls::ServerConfig {
        let (key, pkcs8) = key();
        let names = SubjectAltName(vec![GeneralName::DnsName(Ia5String::new("localhost").unwrap())]);
        let leaf = certificate("CN=issuer", &key, &self.key, extension(&names));
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.to_der().unwrap().into()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8)),
            )
            .unwrap()
    }
}

#[tokio::test]
async fn keys_come_over_tls_from_a_private_authority_alone() {
    let (ours, other) = (Authority::new(), Authority::new());
    let issuer = Issuer::start_tls(ours.server()).await;
    let token = issuer.token(json!({ "sub": SUBJECT }));
    let trust = |file: &NamedTempFile| Settings {
        issuers: vec![IssuerSettings { ca_file: Some(file.path().to_owned()), ..IssuerSettings::new(issuer.url()) }],
        ..trusting(&issuer)
    };
    let pem = ours.pem();
    let authenticator = Authenticator::new(&trust(&pem)).unwrap();
    ask(&authenticator, &token, Timestamp::now()).await.unwrap();
    assert_eq!(issuer.key_fetches(), 1);

    let pem = other.pem();
    let authenticator = Authenticator::new(&trust(&pem)).unwrap();
    let answer = ask(&authenticator, &token, Timestamp::now()).await;
    assert_eq!(answer, Err(Refusal::IssuerUnavailable { issuer: issuer.url().to_owned() }));
    assert_eq!(issuer.key_fetches(), 1);
}
