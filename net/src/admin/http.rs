//! As much of HTTP/1.1 (RFC 9112) as one GET takes: the head of a request in, an answer out, and the connection ends.

/// Longest head of a request; what tools send is a tenth of it.
const HEAD_BYTES_MAX: usize = 8192;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// A document, or only the head of the answer.
    Get { path: String, with_body: bool },
    /// Something that is not served.
    Refused(Answer),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    status: &'static str,
    content_type: &'static str,
    header: &'static str,
    body: String,
}

const PLAIN: &str = "text/plain; charset=utf-8";

impl Answer {
    fn plain(status: &'static str, body: &str) -> Answer {
        Answer { status, content_type: PLAIN, header: "", body: body.to_owned() }
    }

    /// Prometheus' text.
    pub(super) fn metrics(body: String) -> Answer {
        Answer { status: "200 OK", content_type: "text/plain; version=0.0.4; charset=utf-8", header: "", body }
    }

    pub(super) fn not_found() -> Answer {
        Answer::plain("404 Not Found", "corelog serves /metrics here\n")
    }

    /// Try again.
    pub(super) fn busy() -> Answer {
        let header = "Retry-After: 1\r\n";
        Answer { header, ..Answer::plain("503 Service Unavailable", "a shard has too much to do to answer\n") }
    }

    fn malformed() -> Answer {
        Answer::plain("400 Bad Request", "this is no HTTP/1.1 request; try GET /metrics\n")
    }

    fn too_large() -> Answer {
        Answer::plain("431 Request Header Fields Too Large", "the request is too long\n")
    }

    fn not_allowed() -> Answer {
        let header = "Allow: GET, HEAD\r\n";
        Answer { header, ..Answer::plain("405 Method Not Allowed", "only GET and HEAD are served\n") }
    }

    /// The bytes to send.
    pub(super) fn encode(&self, with_body: bool) -> Vec<u8> {
        let Answer { status, content_type, header, body } = self;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{header}Connection: close\r\n\r\n"
        );
        let mut bytes = head.into_bytes();
        if with_body {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

/// The request that begins so; `None` while its head is not all there.
pub(super) fn parse(bytes: &[u8]) -> Option<Request> {
    // A line may end without CR: RFC 9112, 2.2.
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let is_whole = lines.any(|line| matches!(line, b"\n" | b"\r\n"));
    if !is_whole {
        return (bytes.len() > HEAD_BYTES_MAX).then(|| Request::Refused(Answer::too_large()));
    }
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);
    let mut words = line.split(' ');
    let request = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(version), None) if version.starts_with("HTTP/1.") => asked(method, target),
        _ => Request::Refused(Answer::malformed()),
    };
    Some(request)
}

fn asked(method: &str, target: &str) -> Request {
    // Absolute, as for a proxy, is to be accepted as well: RFC 9112, 3.2.2.
    let target = target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let path = target.split('?').next().unwrap_or_default().to_owned();
    match method {
        "GET" | "HEAD" => Request::Get { path, with_body: method == "GET" },
        _ => Request::Refused(Answer::not_allowed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, with_body: bool) -> Option<Request> {
        Some(Request::Get { path: path.into(), with_body })
    }

    #[test]
    fn a_request_is_known_once_its_head_is_whole() {
        let whole = b"GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(parse(whole), get("/metrics", true));
        assert_eq!(parse(b"HEAD / HTTP/1.0\r\n\r\n"), get("/", false));
        assert_eq!(parse(b"GET /metrics HTTP/1.1\nHost: localhost\n\n"), get("/metrics", true));
        assert_eq!(parse(b"GET http://localhost:9000/metrics HTTP/1.1\r\n\r\n"), get("/metrics", true));
        assert_eq!(parse(b"GET http://localhost HTTP/1.1\r\n\r\n"), get("/", true));
    }

    #[test]
    fn what_is_not_served_is_told_apart() {
        let refused = |bytes: &[u8]| match parse(bytes) {
            Some(Request::Refused(answer)) => answer.status.split(' ').next().unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(b"POST /metrics HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(refused(b"GET /metrics\r\n\r\n"), "400");
        assert_eq!(refused(b"GET /a b HTTP/1.1\r\n\r\n"), "400");
        assert_eq!(refused(b"\xff\xfe / HTTP/1.1\r\n\r\n"), "400");
        assert_eq!(refused(b"\r\n\r\n"), "400");
        assert_eq!(refused(&[b'x'; HEAD_BYTES_MAX + 1]), "431");
    }

    #[test]
    fn an_answer_says_how_long_it_is_also_without_its_body() {
        let (whole, head) = (Answer::not_found().encode(true), Answer::not_found().encode(false));
        let text = String::from_utf8(whole).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 404 Not Found\r\n") && text.ends_with("\r\n\r\ncorelog serves /metrics here\n")
        );
        assert!(text.contains("\r\nContent-Length: 29\r\n"), "{text}");
        assert_eq!(String::from_utf8(head).unwrap(), text.strip_suffix("corelog serves /metrics here\n").unwrap());
    }
}
