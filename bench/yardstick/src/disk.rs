//! The disk's own limits, on a scratch file beside the data that is measured.

use crate::SPIN;
use crate::memory::Memory;
use crate::ring::Ring;
use io_uring::{opcode, types};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one piece of a sequential write.
const PIECE: usize = 1 << 20;
/// Pieces in flight in a sequential write or read.
const DEPTH: usize = 8;
/// How much later than asked a sleep may end.
const OVERSLEPT: Duration = Duration::from_micros(150);

/// A zero-filled scratch file without a name, opened for direct I/O, written from warm memory.
pub struct Disk {
    file: File,
    length: u64,
    position: u64,
    ring: Ring,
    memory: Memory,
}

impl Disk {
    /// A scratch file of `length` bytes (a multiple of 1 MiB) in the file system of `directory`. It is zero-filled and
    /// synced here, because a first write to a block costs the file system's journal as well, and that is not the disk.
    ///
    /// # Errors
    /// What the file system answers; tmpfs and others refuse direct I/O.
    pub fn new(directory: &Path, length: u64) -> io::Result<Disk> {
        assert!(length >= PIECE as u64 && length.is_multiple_of(PIECE as u64), "a scratch file is whole pieces");
        let file = scratch_file(directory)?;
        file.set_len(length)?;
        let memory = Memory::new(DEPTH * PIECE)?;
        let mut disk = Disk { file, length, position: 0, ring: Ring::new(32, SPIN)?, memory };
        disk.sequential_write(length)?;
        disk.file.sync_all()?;
        Ok(disk)
    }

    /// Writes `bytes` (a multiple of 4096, at most 1 MiB) durably, one write after the other for `duration`, and calls
    /// `sample` with the nanoseconds each took.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn flush(&mut self, bytes: usize, duration: Duration, mut sample: impl FnMut(u64)) -> io::Result<()> {
        assert!(bytes.is_multiple_of(4096) && bytes <= PIECE, "direct writes are whole blocks of the warm piece");
        let began = Instant::now();
        while began.elapsed() < duration {
            let start = Instant::now();
            self.start_write(bytes, libc::RWF_DSYNC)?;
            self.finish(bytes)?;
            sample(start.elapsed().as_nanos() as u64);
        }
        Ok(())
    }

    /// As [`Disk::flush`], in an open loop: a request is due `every` so often, and one write covers all that were due when it
    /// began. Calls `sample` for each request with the nanoseconds from when it was due until it was durable.
    ///
    /// A core or a disk that had nothing to do answers later than a busy one; a load with pauses is to be compared with this.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn flush_paced(
        &mut self,
        bytes: usize,
        every: Duration,
        duration: Duration,
        mut sample: impl FnMut(u64),
    ) -> io::Result<()> {
        assert!(bytes.is_multiple_of(4096) && bytes <= PIECE, "direct writes are whole blocks of the warm piece");
        assert!(!every.is_zero(), "requests come one after the other");
        let mut due = Instant::now();
        let end = due + duration;
        while due < end {
            wait_until(due)?;
            let start = Instant::now();
            self.start_write(bytes, libc::RWF_DSYNC)?;
            self.finish(bytes)?;
            let durable = Instant::now();
            while due <= start {
                sample((durable - due).as_nanos() as u64);
                due += every;
            }
        }
        Ok(())
    }

    /// Writes `bytes` (a multiple of 1 MiB) in pieces of 1 MiB, eight in flight, and flushes; answers bytes a second.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn sequential_write(&mut self, bytes: u64) -> io::Result<f64> {
        let began = Instant::now();
        self.sequential(bytes, |disk, _| disk.start_write(PIECE, 0))?;
        self.file.sync_data()?;
        Ok(bytes as f64 / began.elapsed().as_secs_f64())
    }

    /// Reads `bytes` (a multiple of 1 MiB) in pieces of 1 MiB, eight in flight; answers bytes a second.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn sequential_read(&mut self, bytes: u64) -> io::Result<f64> {
        let began = Instant::now();
        self.sequential(bytes, Disk::start_read)?;
        Ok(bytes as f64 / began.elapsed().as_secs_f64())
    }

    /// Starts an operation for each piece of so many bytes, some at a time.
    fn sequential(&mut self, bytes: u64, start: impl Fn(&mut Disk, usize) -> io::Result<()>) -> io::Result<()> {
        let pieces = usize::try_from(bytes / PIECE as u64).map_err(|_| io::ErrorKind::InvalidInput)?;
        for piece in 0..pieces {
            start(self, piece % DEPTH)?;
            if piece >= DEPTH {
                self.finish(PIECE)?;
            }
        }
        (0..pieces.min(DEPTH)).try_for_each(|_| self.finish(PIECE))
    }

    /// Where the next `bytes` begin.
    fn advance(&mut self, bytes: usize) -> u64 {
        let at = if self.position + bytes as u64 > self.length { 0 } else { self.position };
        self.position = at + bytes as u64;
        at
    }

    fn start_write(&mut self, bytes: usize, flags: libc::c_int) -> io::Result<()> {
        let at = self.advance(bytes);
        let write = opcode::Write::new(types::Fd(self.file.as_raw_fd()), self.memory.as_ptr(), bytes as u32)
            .offset(at)
            .rw_flags(flags)
            .build();
        // SAFETY: the memory and the file live until `drop`, which drains the ring first; nobody writes to the memory.
        unsafe { self.ring.push(&write) }
    }

    /// Into the piece of memory of this number: what several reads bring is not looked at, but must not be one cache line.
    fn start_read(&mut self, slot: usize) -> io::Result<()> {
        let at = self.advance(PIECE);
        let into = self.memory[slot * PIECE..].as_mut_ptr();
        let read = opcode::Read::new(types::Fd(self.file.as_raw_fd()), into, PIECE as u32).offset(at).build();
        // SAFETY: as for a write; what the kernel reads into the memory nobody looks at.
        unsafe { self.ring.push(&read) }
    }

    fn finish(&mut self, bytes: usize) -> io::Result<()> {
        loop {
            if let Some(done) = self.ring.next() {
                return written(done.result(), bytes);
            }
            self.ring.wait(Duration::from_secs(1))?;
        }
    }
}

/// Sleeps, and looks at the clock for the end of it: a sleep ends some time after it should.
fn wait_until(due: Instant) -> io::Result<()> {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        match left.checked_sub(OVERSLEPT) {
            _ if left.is_zero() => return Ok(()),
            Some(left) => std::thread::sleep(left),
            None => nix::sched::sched_yield()?,
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A ring that cannot be drained leaves the kernel reading memory that is about to be unmapped: better to end.
        assert!(self.ring.drain().is_ok(), "the ring drains");
    }
}

/// Opens a file without a name, for direct I/O, on the file system of `directory`.
pub(crate) fn scratch_file(directory: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE | libc::O_DIRECT).open(directory)
}

/// Makes a file of `bytes` zeros (a multiple of 2 MiB) at `path`, in the place of what is there.
///
/// # Errors
/// What the file system answers; tmpfs and others refuse direct I/O.
pub fn zero_filled(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT).open(path)?;
    zero_fill(&file, bytes)
}

/// Written once and synced: a write into such blocks needs nothing of the file system but the data itself.
pub(crate) fn zero_fill(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = Memory::new(2 << 20)?;
    let mut position = 0;
    while position < bytes {
        file.write_all_at(&zeros, position)?;
        position += zeros.len() as u64;
    }
    file.sync_all()
}

/// Turns a write's completion into a result: a short write of a direct file is an error here.
pub(crate) fn written(result: i32, bytes: usize) -> io::Result<()> {
    match usize::try_from(result) {
        Ok(written) if written == bytes => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_the_disk_below_the_working_directory() {
        let mut disk = Disk::new(Path::new("."), 8 << 20).expect("a scratch file");
        let mut samples = 0;
        disk.flush(4096, Duration::from_millis(20), |ns| {
            assert!(ns > 0);
            samples += 1;
        })
        .expect("flushes");
        assert!(samples > 0);
        assert!(disk.sequential_write(32 << 20).expect("writes") > 0.0);
        assert!(disk.sequential_read(32 << 20).expect("reads") > 0.0);
    }

    /// Each request that was due has one sample, however long the disk took; and no more than were due.
    #[test]
    fn a_paced_flush_counts_each_request_once() {
        let mut disk = Disk::new(Path::new(env!("CARGO_MANIFEST_DIR")), 1 << 20).expect("a scratch file");
        let (every, duration) = (Duration::from_millis(2), Duration::from_millis(41));
        let (began, mut samples) = (Instant::now(), 0);
        disk.flush_paced(4096, every, duration, |_| samples += 1).expect("it is written");
        let due_at_most = began.elapsed().as_millis() / 2 + 1;
        assert!((21..=due_at_most).contains(&samples), "{samples} of 21 to {due_at_most}");
    }
}
