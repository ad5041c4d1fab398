//! From the message of a filter to the filter: every field bounded, and refused by name.

use jiff::Timestamp;
use tonic::Status;

use crate::{
    grpc::{convert, status, v1},
    log::{
        View, facts,
        search::{Filter, TimeRange},
    },
    model::{Identity, ImageName, limits},
};

/// A time as RFC 3339 has at most so many bytes that matter.
const TIME: usize = 64;

/// The filter; none is every entry.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn parse(filter: Option<v1::EntryFilter>) -> Result<Filter, Status> {
    let Some(given) = filter else { return Ok(Filter::default()) };
    let mut views = Vec::new();
    if let Some(digest) = given.digest {
        views.push(View::Digest(convert::digest("filter.digest", &digest)?));
    }
    if let Some(name) = given.name {
        views.push(View::Name(text("filter.name", name, limits::NAME)?));
    }
    if let Some(identity) = given.identity {
        views.push(View::Identity(Identity {
            subject: text("filter.identity.subject", identity.subject, limits::URI)?,
            issuer: text("filter.identity.issuer", identity.issuer, limits::URI)?,
        }));
    }
    if let Some(issuer) = given.issuer {
        views.push(View::Issuer(text("filter.issuer", issuer, limits::URI)?));
    }
    if let Some(uri) = given.predicate_type {
        views.push(View::PredicateType(text("filter.predicate_type", uri, limits::URI)?));
    }
    if let Some(name) = given.repository {
        views.push(View::Repository(repository(&name)?));
    }
    if let Some(place) = given.service {
        views.push(View::Service {
            service: text("filter.service.service", place.service, limits::NAME)?,
            environment: text("filter.service.environment", place.environment, limits::NAME)?,
        });
    }
    Ok(Filter { views, times: times(given.since.as_deref(), given.until.as_deref())? })
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn text(field: &str, value: String, most: usize) -> Result<String, Status> {
    match value.len() {
        0 => Err(status::invalid(field, &"must not be empty")),
        length if length > most => Err(status::invalid(field, &format!("has {length} bytes; the limit is {most}"))),
        _ => Ok(value),
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn repository(name: &str) -> Result<ImageName, Status> {
    let field = "filter.repository";
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        return Err(status::invalid(field, &"has a tag or digest; leave it out, or look for the whole as `name`"));
    }
    let wanted = "write registry/repository with the registry spelled out, as in docker.io/library/nginx";
    facts::repository(name).ok_or_else(|| status::invalid(field, &wanted))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn times(since: Option<&str>, until: Option<&str>) -> Result<Option<TimeRange>, Status> {
    if since.is_none() && until.is_none() {
        return Ok(None);
    }
    let range = TimeRange {
        since: since.map_or(Ok(0), |text| seconds("filter.since", text))?,
        until: until.map_or(Ok(u64::MAX), |text| seconds("filter.until", text))?,
    };
    if range.since >= range.until {
        return Err(status::invalid("filter.until", &"must be later than since"));
    }
    Ok(Some(range))
}

/// The first whole second at or after a time: entries have whole seconds.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn seconds(field: &str, text: &str) -> Result<u64, Status> {
    if text.len() > TIME {
        return Err(status::invalid(field, &format!("has {} bytes; the limit is {TIME}", text.len())));
    }
    let time: Timestamp = text
        .parse()
        .map_err(|source| status::invalid(field, &format!("not a time as in 2026-01-31T12:00:00Z: {source}")))?;
    let whole = time.as_second().saturating_add(i64::from(time.subsec_nanosecond() > 0));
    Ok(u64::try_from(whole).unwrap_or(0))
}
