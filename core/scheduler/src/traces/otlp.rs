//! Spans as OTLP 1 has them in protobuf: `ExportTraceServiceRequest` and its answer
//! (opentelemetry-proto, `collector/trace/v1` and `trace/v1`, stable since 2021). Only the fields that
//! are used are here; a field's number never changes there.

use gantry_model::At;
use prost::Message;

use super::spans::{self, Status as Ended, Value};

/// The form in which a request says it is written.
pub(super) const FORM: &str = "application/x-protobuf";

/// Internal to a service.
const KIND_INTERNAL: i32 = 1;
/// Sampled, and whether its parent is of another service is known: it is not.
const FLAGS: u32 = 0x101;
const STATUS_OK: i32 = 1;
const STATUS_ERROR: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_ns: u64,
    #[prost(fixed64, tag = "8")]
    end_ns: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(fixed64, tag = "1")]
    at_ns: u64,
    #[prost(string, tag = "2")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Truth(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    partial: Option<Partial>,
}

#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    rejected: i64,
}

/// The bytes of a request with these spans of a cluster.
pub(super) fn request(cluster: &str, spans: Vec<spans::Span>) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let text = |key, text: &str| attribute((key, Value::Text(text.to_owned())));
    let resource = Resource {
        attributes: vec![
            text("service.name", "gantry"),
            text("service.version", version),
            text("gantry.cluster", cluster),
        ],
    };
    let scope = Scope { name: "gantry.scheduler".into(), version: version.into() };
    let spans = spans.into_iter().map(span).collect();
    let scopes = vec![ScopeSpans { scope: Some(scope), spans }];
    let resources = vec![ResourceSpans { resource: Some(resource), scopes }];
    Request { resources }.encode_to_vec()
}

/// How many spans of a request that was taken were not.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    // A collector that answers in another form has taken them all the same.
    let partial = Answer::decode(answer).ok().and_then(|answer| answer.partial);
    partial.and_then(|partial| u64::try_from(partial.rejected).ok()).unwrap_or(0)
}

fn span(span: spans::Span) -> Span {
    let status = match span.status {
        Ended::Unset => None,
        Ended::Well => Some(Status { message: String::new(), code: STATUS_OK }),
        Ended::Ill(message) => Some(Status { message, code: STATUS_ERROR }),
    };
    let event = |(at, name): (At, &str)| Event { at_ns: nanoseconds(at), name: name.to_owned() };
    Span {
        trace: span.trace.to_vec(),
        id: span.id.to_vec(),
        parent: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        name: span.name,
        kind: KIND_INTERNAL,
        start_ns: nanoseconds(span.start),
        end_ns: nanoseconds(span.end),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        events: span.events.into_iter().map(event).collect(),
        status,
        flags: FLAGS,
    }
}

fn attribute((key, value): (&str, Value)) -> KeyValue {
    let value = match value {
        Value::Text(text) => Any::Text(text),
        Value::Number(number) => Any::Number(number),
        Value::Truth(truth) => Any::Truth(truth),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

const fn nanoseconds(at: At) -> u64 {
    at.0.saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_collector_has_not_taken_is_read_from_its_answer() {
        let partly = Answer { partial: Some(Partial { rejected: 7 }) }.encode_to_vec();
        let wrong = Answer { partial: Some(Partial { rejected: -7 }) }.encode_to_vec();
        for (answer, expected) in
            [(partly, 7), (wrong, 0), (Vec::new(), 0), (b"{\"partialSuccess\":{}}".to_vec(), 0)]
        {
            assert_eq!(rejected(&answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn times_are_nanoseconds_and_do_not_wrap() {
        assert_eq!(nanoseconds(At(1_790_000_000_123)), 1_790_000_000_123_000_000);
        assert_eq!(nanoseconds(At(u64::MAX)), u64::MAX);
    }
}
