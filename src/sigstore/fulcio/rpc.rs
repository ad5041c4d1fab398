//! `dev.sigstore.fulcio.v2.CA` over gRPC.

use tonic::{Request, Response, Status};

use super::{super::Refusal, Fulcio, bearer, v2};
use crate::{
    identity::{Issuer, SubjectForm},
    issuing::Issuing,
    model::possession::{Possession, PossessionError},
};

#[tonic::async_trait]
impl v2::ca_server::Ca for Fulcio {
    async fn create_signing_certificate(
        &self,
        request: Request<v2::CreateSigningCertificateRequest>,
    ) -> Result<Response<v2::SigningCertificate>, Status> {
        let header = bearer(request.metadata().as_ref());
        let request = request.into_inner();
        let token = request.credentials.and_then(|credentials| credentials.credentials);
        let token = token.map(|v2::credentials::Credentials::OidcIdentityToken(token)| token);
        let token = token.filter(|token| !token.is_empty()).or(header);
        let possession = possession(request.key).map_err(Refusal::from)?;
        let issued = self.certify(token, possession).await?;
        let chain = Some(v2::CertificateChain { certificates: issued.chain });
        let certificate = v2::SigningCertificateEmbeddedSct { chain };
        Ok(Response::new(v2::SigningCertificate {
            certificate: Some(v2::signing_certificate::Certificate::SignedCertificateEmbeddedSct(certificate)),
        }))
    }

    async fn get_trust_bundle(
        &self,
        _request: Request<v2::GetTrustBundleRequest>,
    ) -> Result<Response<v2::TrustBundle>, Status> {
        let chains =
            self.issuing.trust_bundle().into_iter().map(|certificates| v2::CertificateChain { certificates }).collect();
        Ok(Response::new(v2::TrustBundle { chains }))
    }

    async fn get_configuration(
        &self,
        _request: Request<v2::GetConfigurationRequest>,
    ) -> Result<Response<v2::Configuration>, Status> {
        Ok(Response::new(configuration(&self.issuing)))
    }
}

fn possession(key: Option<v2::create_signing_certificate_request::Key>) -> Result<Possession, PossessionError> {
    use v2::create_signing_certificate_request::Key;
    match key {
        Some(Key::PublicKeyRequest(request)) => {
            let key = request.public_key.map(|key| key.content).unwrap_or_default();
            Possession::of(Some((key, request.proof_of_possession.to_vec())), None)
        }
        Some(Key::CertificateSigningRequest(csr)) => Possession::of(None, Some(csr.to_vec())),
        None => Possession::of(None, None),
    }
}

/// The issuers, as the API tells them.
pub(super) fn configuration(issuing: &Issuing) -> v2::Configuration {
    v2::Configuration { issuers: issuing.issuers().map(issuer).collect() }
}

fn issuer(issuer: &Issuer) -> v2::OidcIssuer {
    let audiences = &issuer.audience;
    let audience = audiences.iter().find(|audience| *audience == "sigstore").or(audiences.first());
    let domain = issuer.subject_domain.clone().unwrap_or_default();
    let (spiffe_trust_domain, subject_domain) =
        if issuer.subject == SubjectForm::Spiffe { (domain, String::new()) } else { (String::new(), domain) };
    v2::OidcIssuer {
        issuer: Some(v2::oidc_issuer::Issuer::IssuerUrl(issuer.url.clone())),
        audience: audience.cloned().unwrap_or_default(),
        challenge_claim: if issuer.subject == SubjectForm::Email { "email" } else { "sub" }.to_owned(),
        spiffe_trust_domain,
        issuer_type: kind(issuer.subject).to_owned(),
        subject_domain,
    }
}

/// The form's name in Fulcio's configuration.
const fn kind(form: SubjectForm) -> &'static str {
    match form {
        SubjectForm::Email => "email",
        SubjectForm::Uri => "uri",
        SubjectForm::Spiffe => "spiffe",
        SubjectForm::Github => "github-workflow",
        SubjectForm::Gitlab => "gitlab-pipeline",
        SubjectForm::Kubernetes => "kubernetes",
        SubjectForm::Buildkite => "buildkite-job",
        SubjectForm::Username => "username",
    }
}
