//! What a refusal says beyond its code and message over gRPC: `google.rpc.Status` in `grpc-status-details-bin`, with
//! `RetryInfo` and `QuotaFailure` (google/rpc/error_details.proto), which clients of many languages read.
//!
//! Four small messages, written by hand: a protocol buffers library would be most of the crate's weight.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use http::HeaderValue;

use super::{Rejection, RejectionKind};

/// `None` where there is nothing to add.
pub(super) fn details(rejection: &Rejection) -> Option<HeaderValue> {
    let retry = rejection.retry_after.map(retry_info);
    let quota = rejection.violated_limit.as_deref().map(|name| quota_failure(name, rejection));
    let details: Vec<_> = retry.into_iter().chain(quota).collect();
    if details.is_empty() {
        return None;
    }
    let mut status = Message::default();
    status.integer(1, u64::from(rejection.kind.grpc_code()));
    status.bytes(2, rejection.message().as_bytes());
    for detail in details {
        status.bytes(3, &detail.0);
    }
    HeaderValue::try_from(BASE64_STANDARD_NO_PAD.encode(status.0)).ok()
}

fn retry_info(after: Duration) -> Message {
    let mut delay = Message::default();
    delay.integer(1, after.as_secs());
    delay.integer(2, u64::from(after.subsec_nanos()));
    let mut info = Message::default();
    info.bytes(1, &delay.0);
    any("type.googleapis.com/google.rpc.RetryInfo", &info)
}

fn quota_failure(name: &str, rejection: &Rejection) -> Message {
    let subject = match rejection.kind {
        RejectionKind::AtCapacity => "server",
        _ => "caller",
    };
    let mut violation = Message::default();
    violation.bytes(1, subject.as_bytes());
    violation.bytes(2, name.as_bytes());
    let mut failure = Message::default();
    failure.bytes(1, &violation.0);
    any("type.googleapis.com/google.rpc.QuotaFailure", &failure)
}

/// `google.protobuf.Any`.
fn any(type_url: &str, message: &Message) -> Message {
    let mut any = Message::default();
    any.bytes(1, type_url.as_bytes());
    any.bytes(2, &message.0);
    any
}

/// A message in the wire format of protocol buffers.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// A field of a whole number. Zero is the default, and left out.
    fn integer(&mut self, field: u8, value: u64) {
        if value > 0 {
            self.0.push(field << 3);
            self.varint(value);
        }
    }

    /// A field of a string, bytes or another message.
    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.0.push(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// Seven bits a byte, the lowest first; all but the last have the eighth.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.0.push(low_byte(value));
    }
}

fn low_byte(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low
}
