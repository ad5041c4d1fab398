//! Debian's registry, and pushing to it.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use countersign::model::Digest;
use http::StatusCode;

use super::{IMAGE_TYPE, INDEX_TYPE, image};

/// Debian's registry (distribution 2.8), in a temporary directory. Killed when dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    host: String,
    _dir: tempfile::TempDir,
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

impl DockerRegistry {
    const PROGRAM: &str = "/usr/bin/docker-registry";

    /// Starts it and waits until it answers. `None` where the package is not installed; there the test is to return
    /// early, unless `CI_REQUIRE_REGISTRY=1` says that it must be there.
    pub async fn start() -> Option<Self> {
        if !Path::new(Self::PROGRAM).exists() {
            let required = std::env::var("CI_REQUIRE_REGISTRY").is_ok_and(|value| value == "1");
            assert!(!required, "{} is missing: apt-get install docker-registry", Self::PROGRAM);
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = dir.path().join("config.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"{host}\"}}\n",
                dir.path().join("data").display()
            ),
        )
        .unwrap();
        let child = Command::new(Self::PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, host, _dir: dir };
        let client = plain_client();
        let until = Instant::now() + Duration::from_secs(20);
        while client.get(format!("http://{}/v2/", registry.host)).send().await.is_err() {
            assert!(registry.child.try_wait().unwrap().is_none(), "docker-registry ended at once");
            assert!(Instant::now() < until, "docker-registry does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(registry)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.host.clone()
    }

    /// Kills it; connections are refused from now on.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Pushes an image for `linux/amd64` with these layers.
    pub async fn push_image(&self, repo: &str, tag: &str, layers: &[&[u8]]) -> Digest {
        push_image(&self.host, repo, tag, layers).await
    }

    /// Pushes any bytes as a manifest, at a tag or its digest.
    pub async fn put_manifest(&self, repo: &str, reference: &str, media_type: &str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        let url = format!("http://{}/v2/{repo}/manifests/{reference}", self.host);
        let put = plain_client().put(url).header("content-type", media_type).body(bytes).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED, "{}", put.text().await.unwrap());
        digest
    }

    /// The bytes of a manifest, by tag or digest.
    pub async fn manifest(&self, repo: &str, reference: &str) -> Option<Vec<u8>> {
        let url = format!("http://{}/v2/{repo}/manifests/{reference}", self.host);
        let accept = format!("{IMAGE_TYPE}, {INDEX_TYPE}");
        let answer = plain_client().get(url).header("accept", accept).send().await.unwrap();
        (answer.status() == StatusCode::OK).then_some(answer.bytes().await.unwrap().to_vec())
    }

    /// Deletes a blob through the registry's own API.
    pub async fn delete_blob(&self, repo: &str, digest: &Digest) {
        let url = format!("http://{}/v2/{repo}/blobs/{digest}", self.host);
        let status = plain_client().delete(url).send().await.unwrap().status();
        assert_eq!(status, StatusCode::ACCEPTED);
    }
}

/// A client for plain HTTP, which needs no certificate authorities on this machine.
fn plain_client() -> reqwest::Client {
    reqwest::Client::builder().tls_certs_only([]).build().unwrap()
}

/// Pushes an image to any registry on loopback that asks for no credentials.
async fn push_image(host: &str, repo: &str, tag: &str, layers: &[&[u8]]) -> Digest {
    let client = plain_client();
    let (manifest, blobs) = image(layers);
    for blob in blobs {
        let start = client.post(format!("http://{host}/v2/{repo}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(start.status(), StatusCode::ACCEPTED);
        let location = start.headers()["location"].to_str().unwrap();
        let location = if location.starts_with('/') { format!("http://{host}{location}") } else { location.to_owned() };
        let digest = Digest::of(&blob).to_string();
        let put = client.put(location).query(&[("digest", digest)]).body(blob).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let digest = Digest::of(&bytes);
    let put = client
        .put(format!("http://{host}/v2/{repo}/manifests/{tag}"))
        .header("content-type", IMAGE_TYPE)
        .body(bytes)
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    digest
}
