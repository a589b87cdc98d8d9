//! What etcd and gRPC say, sorted into the three answers a caller can act on.

use std::error::Error as StdError;

use crate::datastore::Error;

/// gRPC status codes (grpc/doc/statuscodes.md) this module tells apart.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const DATA_LOSS: i32 = 15;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

fn status(error: &etcd_client::Error) -> Option<(i32, &str)> {
    match error {
        etcd_client::Error::GRpcStatus(status) => Some((status.code() as i32, status.message())),
        _ => None,
    }
}

/// The asked revision is compacted (of a range request; watches say it in their own way).
pub(super) fn is_compacted(error: &etcd_client::Error) -> bool {
    status(error)
        .is_some_and(|(code, message)| code == code::OUT_OF_RANGE && message.contains("has been compacted"))
}

/// The answer is longer than we are willing to hold at once.
pub(super) fn is_too_large(error: &etcd_client::Error) -> bool {
    status(error).is_some_and(|(code, message)| code == code::OUT_OF_RANGE && message.contains("too large"))
}

/// The cluster runs without users: no reason not to work, as etcd's own client sees it too.
pub(super) fn is_auth_not_enabled(error: &etcd_client::Error) -> bool {
    status(error).is_some_and(|(code, message)| {
        code == code::FAILED_PRECONDITION && message.contains("authentication is not enabled")
    })
}

/// The lease object (or key) is not there.
pub(super) fn is_not_found(error: &etcd_client::Error) -> bool {
    status(error).is_some_and(|(code, _)| code == code::NOT_FOUND)
}

/// Sorts a failed call to `endpoint`.
pub(super) fn classify(endpoint: &str, error: &etcd_client::Error) -> Error {
    let text = format!("{endpoint}: {}", describe(error));
    if about_certificates(&text) {
        return Error::Denied(text);
    }
    let cut = ["connection closed", "broken pipe", "reset by peer"].iter().any(|words| text.contains(words));
    let text = if endpoint.starts_with("https://") && cut {
        // The server's alert is lost when it closes the connection right behind it.
        format!("{text} (it may want a TLS client certificate that it accepts)")
    } else {
        text
    };
    match error {
        etcd_client::Error::GRpcStatus(status) => classify_status(status.code() as i32, text),
        etcd_client::Error::InvalidArgs(_)
        | etcd_client::Error::InvalidUri(_)
        | etcd_client::Error::Utf8Error(_)
        | etcd_client::Error::InvalidMetadataValue(_) => Error::Protocol(text),
        _ => Error::Unavailable(text),
    }
}

fn classify_status(code: i32, text: String) -> Error {
    // After a change of users or roles every token is out of date; the next connection fetches a new one.
    if text.contains("revision of auth store is old") {
        return Error::Unavailable(text);
    }
    match code {
        code::PERMISSION_DENIED | code::UNAUTHENTICATED => Error::Denied(text),
        code::INVALID_ARGUMENT | code::FAILED_PRECONDITION if about_users(&text) => Error::Denied(text),
        code::INVALID_ARGUMENT
        | code::NOT_FOUND
        | code::FAILED_PRECONDITION
        | code::OUT_OF_RANGE
        | code::UNIMPLEMENTED
        | code::DATA_LOSS => Error::Protocol(text),
        _ => Error::Unavailable(text),
    }
}

/// etcd's words for "who are you", which come under several codes.
fn about_users(text: &str) -> bool {
    ["user name is empty", "authentication failed", "user name not found", "invalid auth token"]
        .iter()
        .any(|words| text.contains(words))
}

/// Sorts the reason a watch was cancelled for.
pub(super) fn classify_cancel(endpoint: &str, reason: &str) -> Error {
    let text = format!("{endpoint}: watch cancelled: {reason}");
    if reason.contains("permission denied") || about_users(reason) {
        Error::Denied(text)
    } else {
        Error::Unavailable(text)
    }
}

/// TLS failures come as transport errors, or as a broken connection when the server's alert arrives late (TLS 1.3
/// checks the client's certificate after the client is done); rustls names the certificate in all of them.
fn about_certificates(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("certificate") || text.contains("unknownca")
}

/// The message with everything it was caused by: gRPC's outermost one is often only "transport error".
fn describe(error: &etcd_client::Error) -> String {
    let outermost: &dyn StdError = match error {
        etcd_client::Error::GRpcStatus(status) => status,
        etcd_client::Error::TransportError(error) => error,
        etcd_client::Error::IoError(error) => error,
        other => return other.to_string(),
    };
    let mut text = match error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    };
    let mut cause = outermost.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_a_caller_can_do() {
        let sorted = |code, text: &str| classify_status(code, text.to_owned());
        assert!(matches!(sorted(7, "etcdserver: permission denied"), Error::Denied(_)));
        assert!(matches!(sorted(16, "etcdserver: invalid auth token"), Error::Denied(_)));
        assert!(matches!(sorted(3, "etcdserver: user name is empty"), Error::Denied(_)));
        let wrong = "etcdserver: authentication failed, invalid user ID or password";
        assert!(matches!(sorted(3, wrong), Error::Denied(_)));
        assert!(matches!(sorted(3, "etcdserver: revision of auth store is old"), Error::Unavailable(_)));
        assert!(matches!(sorted(3, "etcdserver: key is not provided"), Error::Protocol(_)));
        assert!(matches!(sorted(14, "etcdserver: no leader"), Error::Unavailable(_)));
        assert!(matches!(sorted(8, "etcdserver: mvcc: database space exceeded"), Error::Unavailable(_)));
        assert!(matches!(sorted(4, "deadline"), Error::Unavailable(_)));
        assert!(matches!(sorted(5, "etcdserver: requested lease not found"), Error::Protocol(_)));
    }

    #[test]
    fn a_cancelled_watch_is_denied_or_tried_again() {
        assert!(matches!(classify_cancel("e", "rpc error: permission denied"), Error::Denied(_)));
        assert!(matches!(classify_cancel("e", "etcdserver: user name is empty"), Error::Denied(_)));
        assert!(matches!(classify_cancel("e", "etcdserver: no leader"), Error::Unavailable(_)));
    }
}
