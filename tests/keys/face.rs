//! `TrustService`, through its face.

use std::sync::Arc;

use countersign::{
    grpc::{
        auth::Authenticated,
        trust::Trust,
        v1::{
            GetClientTrustConfigRequest, GetStatusRequest, GetTrustedRootRequest,
            trust_service_server::TrustService as _,
        },
    },
    model::{Caller, Extensions, Role},
};
use tonic::{Code, Request};

use super::{builder, keyring, now};

fn from<T>(roles: &[Role], message: T) -> Request<T> {
    let mut request = Request::new(message);
    let roles = roles.iter().copied().collect();
    let caller = Caller { identity: builder(), roles, extensions: Extensions::default(), keys: [].into() };
    request.extensions_mut().insert(Authenticated(Ok(caller)));
    request
}

#[tokio::test]
async fn trust_material_is_for_every_role_and_for_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Arc::new(keyring(dir.path(), now()));
    let repository = Arc::new(crate::trust::repository(dir.path(), &keys));
    let rotate = Arc::new(|_| panic!("nobody asked for it"));
    let face = Trust::new(keys.clone(), repository, rotate, "https://sign.example.org:8443".to_owned(), now);
    for role in Role::ALL {
        let reply = face.get_trusted_root(from(&[role], GetTrustedRootRequest {})).await.unwrap().into_inner();
        assert_eq!(reply.trusted_root, *keys.trusted_root());
    }
    let status = face.get_status(from(&[Role::Auditor], GetStatusRequest {})).await.unwrap().into_inner();
    assert_eq!(status.expiries.len(), 5);
    assert_eq!(status.log_public_key, keys.log_key().public_key().to_vec());
    let ask = |base_url: &str| {
        let base_url = base_url.to_owned();
        face.get_client_trust_config(from(&[Role::Verifier], GetClientTrustConfigRequest { base_url }))
    };
    for (given, used) in [("", "https://sign.example.org:8443"), ("https://other:1", "https://other:1")] {
        let reply = ask(given).await.unwrap().into_inner().client_trust_config;
        let document: serde_json::Value = serde_json::from_slice(&reply).unwrap();
        assert_eq!(document["signingConfig"]["tsaUrls"][0]["url"], format!("{used}/api/v1/timestamp"));
    }
    for refused in ["nonsense", "ftp://x", "/path", &format!("https://{}", "a".repeat(1_100))] {
        assert_eq!(ask(refused).await.unwrap_err().code(), Code::InvalidArgument, "{refused}");
    }
    let nobody = face.get_status(from(&[], GetStatusRequest {})).await.unwrap_err();
    assert_eq!(nobody.code(), Code::PermissionDenied);
    let stranger = face.get_trusted_root(Request::new(GetTrustedRootRequest {})).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
}
