//! Who else might have connected: programs that speak another protocol get one clear line in the log.

/// What corelog's own protocol is called.
pub(crate) const NATIVE: &str = "corelog's native protocol";
/// What Kafka's is called.
pub(crate) const KAFKA: &str = "Kafka's protocol";

/// What a connection speaks that begins so, if it is something else than `spoken`.
pub(crate) fn protocol(first: &[u8], spoken: &str) -> Option<&'static str> {
    known(first).filter(|known| *known != spoken)
}

fn known(first: &[u8]) -> Option<&'static str> {
    const HTTP: [&[u8]; 9] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI "];
    if HTTP.iter().any(|method| first.starts_with(method)) {
        return Some("HTTP");
    }
    match first {
        // A TLS record: handshake, version 3.x.
        [0x16, 0x03, 0..=4, ..] => Some("TLS"),
        // Kafka: a big-endian length below 64 KiB, then ApiVersions.
        [0, 0, _, _, 0, 18, ..] => Some(KAFKA),
        // A little-endian length below 64 KiB, then a hello.
        [_, _, 0, 0, _, _, _, _, 1, 0, ..] => Some(NATIVE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::{Header, Operation};

    #[test]
    fn others_are_known_by_their_first_bytes() {
        assert_eq!(protocol(b"GET / HTTP/1.1\r\n", NATIVE), Some("HTTP"));
        assert_eq!(protocol(&[0x16, 0x03, 0x01, 0x02, 0x00], KAFKA), Some("TLS"));
        let versions = [0, 0, 0, 0x35, 0, 18, 0, 3, 0, 0, 0, 1];
        assert_eq!((protocol(&versions, NATIVE), protocol(&versions, KAFKA)), (Some(KAFKA), None));
        assert_eq!(protocol(b"", NATIVE), None);
    }

    #[test]
    fn a_hello_is_none_but_ours() {
        for length in [0, 43, 5000] {
            let hello = Header { length, ..Header::request(Operation::Hello, u32::MAX, 0) }.to_bytes();
            assert_eq!((protocol(&hello, NATIVE), protocol(&hello, KAFKA)), (None, Some(NATIVE)));
        }
    }
}
