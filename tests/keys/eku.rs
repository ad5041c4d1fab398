//! Extended key usage: a certificate that is for something else is refused by name, in a bundle that is perfect otherwise.
//! What is perfect is made in the same way, and verifies.

use std::{fs, path::Path};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cms::signed_data::{SignedData, SignerInfos};
use const_oid::{
    AssociatedOid as _, ObjectIdentifier,
    db::{
        rfc5911::ID_AA_SIGNING_CERTIFICATE_V_2,
        rfc5912::{ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING, ID_KP_SERVER_AUTH, ID_KP_TIME_STAMPING},
    },
};
use countersign::{
    keys::Keyring,
    model::{Digest, Rejection, Signer, TrustedRoot, verify::verify},
};
use der::{
    Any, Decode as _, Encode as _,
    asn1::{BitString, OctetString, SetOfVec},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use x509_cert::{Certificate, TbsCertificate, ext::pkix::ExtendedKeyUsage};

use super::{Content, builder, bundle, bundle_under, keyring, now, samples, statement};
use crate::{holder::Holder, key_service::search::unseal};

const SCT_LIST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11129.2.4.2");

/// The private key of a role, out of its sealed file.
fn key(dir: &Path, role: &str) -> EcdsaKeyPair {
    let sealed = fs::read(dir.join(format!("keys/{role}.key"))).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &unseal(&[7; 32], role, &sealed)).unwrap()
}

/// The signed part of the certificate of a role.
fn certificate(dir: &Path, role: &str) -> TbsCertificate {
    let pem = fs::read(dir.join(format!("keys/{role}.pem"))).unwrap();
    Certificate::from_der(&der::pem::decode_vec(&pem).unwrap().1).unwrap().tbs_certificate
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

fn certify(tbs: TbsCertificate, key: &EcdsaKeyPair) -> Vec<u8> {
    let signature = BitString::from_bytes(&sign(key, &tbs.to_der().unwrap())).unwrap();
    Certificate { signature_algorithm: tbs.signature.clone(), tbs_certificate: tbs, signature }.to_der().unwrap()
}

/// Changes what a certificate is for; for nothing in particular, if `usage` is empty.
fn set_usage(tbs: &mut TbsCertificate, usage: &[ObjectIdentifier]) {
    let extensions = tbs.extensions.as_mut().unwrap();
    let at = extensions.iter().position(|extension| extension.extn_id == ExtendedKeyUsage::OID).unwrap();
    if usage.is_empty() {
        extensions.remove(at);
    } else {
        let value = ExtendedKeyUsage(usage.to_vec()).to_der().unwrap();
        extensions[at].extn_value = OctetString::new(value).unwrap();
    }
}

/// A signing certificate as the instance issues it, but for its usage: its own authority signs it, and its own key for
/// certificate timestamps promises it.
fn issued(dir: &Path, keys: &Keyring, spki: &[u8], usage: &[ObjectIdentifier]) -> Vec<u8> {
    let mut tbs = Certificate::from_der(&keys.issue(&builder(), spki, now()).unwrap()).unwrap().tbs_certificate;
    let mut promise = tbs.extensions.as_mut().unwrap().pop().unwrap();
    assert_eq!(promise.extn_id, SCT_LIST);
    set_usage(&mut tbs, usage);
    // Two lengths, version, the key's id, the time, no extensions, SHA-256 with ECDSA; then the signature.
    let list = OctetString::from_der(promise.extn_value.as_bytes()).unwrap();
    let (head, time) = (&list.as_bytes()[4..49], &list.as_bytes()[37..45]);
    let authority = certificate(dir, "ca").subject_public_key_info.to_der().unwrap();
    let body = tbs.to_der().unwrap();
    let length = &(body.len() as u32).to_be_bytes()[1..];
    let signed = [&[0, 0], time, &[0, 1], &Sha256::digest(authority), length, &body, &[0, 0]].concat();
    let signature = sign(&key(dir, "sct"), &signed);
    let sct = [head, &(signature.len() as u16).to_be_bytes(), &signature].concat();
    let lengths = [sct.len() + 2, sct.len()].map(|length| (length as u16).to_be_bytes());
    let list = OctetString::new([lengths.as_flattened(), &sct].concat()).unwrap();
    promise.extn_value = OctetString::new(list.to_der().unwrap()).unwrap();
    tbs.extensions.as_mut().unwrap().push(promise);
    certify(tbs, &key(dir, "ca"))
}

#[test]
fn a_signing_certificate_is_for_code_signing() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let root = TrustedRoot::parse(&keys.trusted_root()).unwrap();
    let digest = Digest::of(b"artifact");
    for (scheme, content) in samples(&statement(digest)) {
        let holder = Holder::new(scheme);
        let verified = |usage: &[ObjectIdentifier]| {
            let certificate = issued(dir.path(), &keys, &holder.spki, usage);
            let bundle = bundle_under(&certificate, &holder, &keys, &content, now()).to_string();
            verify(bundle.as_bytes(), &digest, &root)
        };
        for usage in [&[ID_KP_CODE_SIGNING][..], &[ID_KP_SERVER_AUTH, ID_KP_CODE_SIGNING]] {
            assert_eq!(*verified(usage).unwrap().signer(), Signer::Identity(builder()), "{scheme:?} {usage:?}");
        }
        for usage in [&[ID_KP_SERVER_AUTH][..], &[ID_KP_CLIENT_AUTH, ID_KP_TIME_STAMPING], &[]] {
            let refused = verified(usage).unwrap_err();
            let named = matches!(&refused, Rejection::Certificate(why) if why.contains("RequiredEkuNotFound"));
            assert!(named, "{scheme:?} {usage:?}: {refused:?}");
        }
    }
}

/// The same response, signed by `key` under another certificate over it.
fn stamped(response: &[u8], certificate: &[u8], key: &EcdsaKeyPair) -> Vec<u8> {
    let mut response = x509_tsp::TimeStampResp::from_der(response).unwrap();
    let token = response.time_stamp_token.as_mut().unwrap();
    let mut signed: SignedData = token.content.decode_as().unwrap();
    let mut signer = signed.signer_infos.0.as_slice()[0].clone();
    let mut attributes = signer.signed_attrs.unwrap().into_vec();
    // SigningCertificateV2 with one ESSCertIDv2 of which there is but the hash.
    let named = [&[0x30, 38, 0x30, 36, 0x30, 34, 4, 32], &Sha256::digest(certificate)[..]].concat();
    let attribute = attributes.iter_mut().find(|attribute| attribute.oid == ID_AA_SIGNING_CERTIFICATE_V_2).unwrap();
    attribute.values = SetOfVec::try_from(vec![Any::from_der(&named).unwrap()]).unwrap();
    let attributes = SetOfVec::try_from(attributes).unwrap();
    signer.signature = OctetString::new(sign(key, &attributes.to_der().unwrap())).unwrap();
    signer.signed_attrs = Some(attributes);
    signed.signer_infos = SignerInfos(SetOfVec::try_from(vec![signer]).unwrap());
    token.content = Any::encode_from(&signed).unwrap();
    response.to_der().unwrap()
}

#[test]
fn a_time_stamp_is_by_a_certificate_for_time_stamping() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let digest = Digest::of(b"artifact");
    let whole = bundle(&keys, &builder(), &Content::File(b"artifact"), now());
    let at = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp";
    let response = STANDARD.decode(whole.pointer(at).unwrap().as_str().unwrap()).unwrap();
    let verified = |usage: &[ObjectIdentifier]| {
        let mut leaf = certificate(dir.path(), "tsa");
        set_usage(&mut leaf, usage);
        let leaf = certify(leaf, &key(dir.path(), "tsa-root"));
        let mut root: Value = serde_json::from_str(&keys.trusted_root()).unwrap();
        let known = root.pointer_mut("/timestampAuthorities/0/certChain/certificates/0/rawBytes").unwrap();
        *known = STANDARD.encode(&leaf).into();
        let root = TrustedRoot::parse(&root.to_string()).unwrap();
        let mut bundle = whole.clone();
        let response = stamped(&response, &leaf, &key(dir.path(), "tsa"));
        *bundle.pointer_mut(at).unwrap() = STANDARD.encode(response).into();
        verify(bundle.to_string().as_bytes(), &digest, &root)
    };
    let good = verified(&[ID_KP_TIME_STAMPING]).unwrap();
    assert_eq!(good.signed_at(), Some("2026-01-02T12:00:00Z".parse().unwrap()));
    for usage in [&[ID_KP_CODE_SIGNING][..], &[ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH], &[]] {
        let refused = verified(usage).unwrap_err();
        let named = matches!(&refused, Rejection::Timestamp(why) if why.contains("RequiredEkuNotFound"));
        assert!(named, "{usage:?}: {refused:?}");
    }
}
