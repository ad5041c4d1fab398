//! Bodies that are sent while they are still being read: one attempt each, as what was streamed cannot be sent again.

use std::{sync::Arc, time::Instant};

use http::{StatusCode, header};
use tokio::time::timeout_at;

use super::{
    super::host::{Admission, Host},
    Answer, Call, RegistryError, Settings, Transport, client, refused,
};

/// The longest time for one body, in milliseconds. Whoever sends it sees to it that it moves.
const LONGEST_UPLOAD_MS: u64 = 6 * 60 * 60 * 1_000;

impl Transport {
    /// Sends `length` bytes as the stream gives them. A failure may be the stream's own: the breaker hears nothing of it.
    pub(in crate::registry) async fn pour(
        &self,
        call: Call<'_>,
        length: u64,
        body: reqwest::Body,
    ) -> Result<Answer, RegistryError> {
        let registry = &call.name.registry;
        let host = self.hosts.get_with_by_ref(registry, async { Arc::new(Host::new(registry, &self.settings)) }).await;
        if let Admission::Wait(wait) = host.admit(Instant::now())? {
            return Err(RegistryError::Throttled { registry: registry.clone(), retry_after: Some(wait) });
        }
        let (url, ours) = self.address(&call)?;
        let scope = call.scope();
        let authorization = match host.challenge().filter(|_| ours) {
            Some(challenge) => self.tokens.authorize(self, &scope, &challenge).await?,
            None => None,
        };
        let mut request = self.uploads()?.request(call.method.clone(), url).body(body);
        request = request.header(header::CONTENT_LENGTH, length);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = &authorization {
            request = request.header(header::AUTHORIZATION, authorization.header());
        }
        let exchange = self.exchange_with(&host, request, call.most, false);
        let Ok(answer) = timeout_at(call.deadline.into(), exchange).await else {
            host.unanswered();
            return Err(RegistryError::Deadline { registry: registry.clone() });
        };
        match answer {
            Ok(answer) if answer.status == StatusCode::UNAUTHORIZED || answer.status == StatusCode::FORBIDDEN => {
                // The next attempt brings a new token.
                self.tokens.forget(&scope).await;
                Err(refused(&host, &answer, authorization.is_some()))
            }
            Err(RegistryError::Throttled { registry, retry_after }) => {
                if let Some(wait) = retry_after {
                    host.throttled(Instant::now(), wait);
                }
                Err(RegistryError::Throttled { registry, retry_after })
            }
            other => other,
        }
    }

    /// A pool of its own: the time in which a registry must answer does not run while it is being sent something.
    fn uploads(&self) -> Result<&reqwest::Client, RegistryError> {
        if let Some(made) = self.uploads.get() {
            return Ok(made);
        }
        let settings = Settings { read_timeout_ms: LONGEST_UPLOAD_MS, ..self.settings.clone() };
        let made =
            client(&settings, &self.plain_http).map_err(|detail| RegistryError::unavailable("(settings)", detail))?;
        Ok(self.uploads.get_or_init(|| made))
    }
}
