//! Who else might have connected: programs that speak another protocol get one clear line in the log.

/// What the first bytes of a connection look like, if it is none of ours.
pub(super) fn protocol(first: &[u8]) -> Option<&'static str> {
    const HTTP: [&[u8]; 9] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI "];
    if HTTP.iter().any(|method| first.starts_with(method)) {
        return Some("HTTP");
    }
    match first {
        // A TLS record: handshake, version 3.x.
        [0x16, 0x03, 0..=4, ..] => Some("TLS"),
        // Kafka: a big-endian length below 64 KiB, then ApiVersions.
        [0, 0, _, _, 0, 18, ..] => Some("Kafka's protocol"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::{Header, Operation};

    #[test]
    fn others_are_known_by_their_first_bytes() {
        assert_eq!(protocol(b"GET / HTTP/1.1\r\n"), Some("HTTP"));
        assert_eq!(protocol(&[0x16, 0x03, 0x01, 0x02, 0x00]), Some("TLS"));
        assert_eq!(protocol(&[0, 0, 0, 0x35, 0, 18, 0, 3, 0, 0, 0, 1]), Some("Kafka's protocol"));
    }

    #[test]
    fn a_hello_is_none_of_them() {
        for length in [0, 43, 5000] {
            let hello = Header { length, ..Header::request(Operation::Hello, u32::MAX, 0) };
            assert_eq!(protocol(&hello.to_bytes()), None);
        }
        assert_eq!(protocol(b""), None);
    }
}
