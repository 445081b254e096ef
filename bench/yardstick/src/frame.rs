//! What the yardsticks speak: frames of one fixed size with the native protocol's 16-byte header, so that one load
//! driver serves them and the server alike. Little-endian length of what follows and correlation, of which the answer
//! repeats the latter. There is no hello.

use std::io;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 16;

/// Calls `take` with correlation and body of each whole frame of `arrived`, the first perhaps begun in `partial`, which
/// keeps what is left over.
///
/// # Errors
/// `InvalidData` for a frame of another size than `frame_bytes`, header included, and what `take` answers.
pub fn take_frames(
    mut arrived: &[u8],
    partial: &mut Vec<u8>,
    frame_bytes: usize,
    mut take: impl FnMut(u32, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut take = |frame: &[u8]| whole(frame).and_then(|(correlation, body)| take(correlation, body));
    if !partial.is_empty() {
        let (more, rest) = arrived.split_at(arrived.len().min(frame_bytes - partial.len()));
        partial.extend_from_slice(more);
        arrived = rest;
        if partial.len() == frame_bytes {
            take(partial)?;
            partial.clear();
        }
    }
    let mut frames = arrived.chunks_exact(frame_bytes);
    for frame in &mut frames {
        take(frame)?;
    }
    partial.extend_from_slice(frames.remainder());
    Ok(())
}

/// Adds the acknowledgement of a frame to `out`: a header and `body_bytes` zeros.
pub fn push_ack(out: &mut Vec<u8>, correlation: u32, body_bytes: usize) {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    header[4..8].copy_from_slice(&correlation.to_le_bytes());
    header[9] = 1; // a response
    out.extend_from_slice(&header);
    out.resize(out.len() + body_bytes, 0);
}

/// Puts a frame's body behind the `filled` bytes of one gathered write.
pub(crate) fn gather(memory: &mut [u8], filled: &mut usize, body: &[u8]) -> io::Result<()> {
    let room = memory.get_mut(*filled..*filled + body.len());
    let room = room.ok_or_else(|| io::Error::other("more requests are outstanding than one write may gather"))?;
    room.copy_from_slice(body);
    *filled += body.len();
    Ok(())
}

fn whole(frame: &[u8]) -> io::Result<(u32, &[u8])> {
    match frame.split_at_checked(HEADER_BYTES) {
        Some((header, body)) if u32_at(header, 0) as usize == body.len() => Ok((u32_at(header, 4), body)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is not of the agreed size")),
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request of so many bytes in all.
    pub(crate) fn frame(correlation: u32, bytes: usize) -> Vec<u8> {
        let mut frame = vec![correlation as u8; bytes];
        frame[..HEADER_BYTES].fill(0);
        frame[..4].copy_from_slice(&((bytes - HEADER_BYTES) as u32).to_le_bytes());
        frame[4..8].copy_from_slice(&correlation.to_le_bytes());
        frame
    }

    #[test]
    fn frames_are_whole_however_they_are_cut() {
        let sent: Vec<u8> = (0..9).flat_map(|correlation| frame(correlation, 100)).collect();
        for piece in [1, 99, 100, 101, 900] {
            let (mut partial, mut taken) = (Vec::new(), Vec::new());
            for arrived in sent.chunks(piece) {
                let take = |correlation, body: &[u8]| {
                    assert!(body.len() == 84 && body.iter().all(|byte| *byte == correlation as u8));
                    taken.push(correlation);
                    Ok(())
                };
                take_frames(arrived, &mut partial, 100, take).expect("frames of the agreed size");
            }
            assert_eq!((taken, partial), ((0..9).collect(), vec![]));
        }
    }

    #[test]
    fn a_frame_of_another_size_is_an_error() {
        let taken = take_frames(&frame(1, 200), &mut Vec::new(), 100, |_, _| Ok(()));
        assert_eq!(taken.map_err(|error| error.kind()), Err(io::ErrorKind::InvalidData));
    }

    #[test]
    fn a_write_gathers_no_more_than_its_memory_holds() {
        let (mut memory, mut filled) = ([0; 10], 0);
        gather(&mut memory, &mut filled, &[7; 6]).expect("room for six");
        assert!(gather(&mut memory, &mut filled, &[8; 5]).is_err());
        assert_eq!((filled, memory), (6, [7, 7, 7, 7, 7, 7, 0, 0, 0, 0]));
    }
}
