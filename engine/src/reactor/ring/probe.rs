//! What this machine's kernel can do, found by trying.

use io_uring::{IoUring, Probe, opcode};
use std::io;

/// Linux 5.15 has all of these; without one of them nothing runs.
const REQUIRED: [(u8, &str); 15] = [
    (opcode::OpenAt::CODE, "openat"),
    (opcode::MkDirAt::CODE, "mkdirat"),
    (opcode::RenameAt::CODE, "renameat"),
    (opcode::UnlinkAt::CODE, "unlinkat"),
    (opcode::Read::CODE, "read"),
    (opcode::Write::CODE, "write"),
    (opcode::Fsync::CODE, "fsync"),
    (opcode::Fallocate::CODE, "fallocate"),
    (opcode::Accept::CODE, "accept"),
    (opcode::Connect::CODE, "connect"),
    (opcode::Send::CODE, "send"),
    (opcode::SendMsg::CODE, "sendmsg"),
    (opcode::Recv::CODE, "recv"),
    (opcode::PollAdd::CODE, "poll"),
    (opcode::AsyncCancel::CODE, "async_cancel"),
];

/// This machine cannot run a reactor; says in one sentence what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CannotRun(pub String);

/// What was found usable. Each that is absent costs speed, never a promise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// Completions wait until the core asks for them (SINGLE_ISSUER, DEFER_TASKRUN; Linux 6.1). Else they interrupt it.
    pub deferred_completions: bool,
    /// One receive per connection that goes on, into buffers that the kernel picks (Linux 6.0). Else poll, then receive.
    pub multishot_receive: bool,
    /// One accept per listener that goes on (Linux 5.19). Else one by one.
    pub multishot_accept: bool,
    /// Cores wake each other through their rings (Linux 5.18). Else through an event counter.
    pub ring_messages: bool,
    /// Connections are registered with the ring too (Linux 6.7). Else files alone, because earlier kernels close late
    /// what was registered.
    pub registered_sockets: bool,
    /// One line for each feature that is absent and what is done instead.
    pub notes: Vec<String>,
}

/// Features to leave aside even where they are there: to get around a kernel's bug, to measure what each brings, to
/// test what is done instead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Avoid {
    /// See [`Features::deferred_completions`].
    pub deferred_completions: bool,
    /// See [`Features::multishot_receive`].
    pub multishot_receive: bool,
    /// See [`Features::multishot_accept`].
    pub multishot_accept: bool,
    /// See [`Features::ring_messages`].
    pub ring_messages: bool,
    /// The ring's table of open files.
    pub registered_files: bool,
    /// The pool's memory registered with the ring.
    pub registered_buffers: bool,
}

impl Avoid {
    /// Everything that Linux 5.15 lacks, and what is optional besides.
    pub const ALL: Avoid = Avoid {
        deferred_completions: true,
        multishot_receive: true,
        multishot_accept: true,
        ring_messages: true,
        registered_files: true,
        registered_buffers: true,
    };
}

/// Tries out what a reactor needs, on this thread and for a moment.
///
/// # Errors
/// The machine cannot run one.
pub fn probe() -> Result<Features, CannotRun> {
    build(8, Avoid::default()).map(|(_, features)| features)
}

/// A ring with the best that this kernel has, and what that is.
pub(super) fn build(entries: u32, avoid: Avoid) -> Result<(IoUring, Features), CannotRun> {
    let (ring, deferred_completions) = build_ring(entries, avoid).map_err(|error| refusal(&error))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|_| too_old("cannot be probed"))?;
    if let Some((_, name)) = REQUIRED.iter().find(|(code, _)| !probe.is_supported(*code)) {
        return Err(too_old(&format!("lacks {name}")));
    }
    let features = Features {
        deferred_completions,
        // Operations that came in the same release stand for features that have no probe of their own.
        multishot_receive: !avoid.multishot_receive && probe.is_supported(opcode::SendZc::CODE),
        multishot_accept: !avoid.multishot_accept && probe.is_supported(opcode::Socket::CODE),
        ring_messages: !avoid.ring_messages && probe.is_supported(opcode::MsgRingData::CODE),
        registered_sockets: !avoid.registered_files && probe.is_supported(opcode::FutexWait::CODE),
        notes: Vec::new(),
    };
    Ok((ring, features.noted()))
}

/// From the best set of flags to none.
fn build_ring(entries: u32, avoid: Avoid) -> io::Result<(IoUring, bool)> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_cqsize(entries * 4).setup_clamp();
    if !avoid.deferred_completions {
        let mut best = builder.clone();
        best.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
        if let Ok(ring) = best.build(entries) {
            return Ok((ring, true));
        }
    }
    let mut cooperative = builder.clone();
    cooperative.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    cooperative.build(entries).or_else(|_| builder.build(entries)).map(|ring| (ring, false))
}

impl Features {
    fn noted(mut self) -> Features {
        let lines = [
            (self.deferred_completions, "no deferred completions (Linux 6.1): the kernel interrupts the core"),
            (self.multishot_receive, "no multishot receive (Linux 6.0): each receive is polled for and issued"),
            (self.multishot_accept, "no multishot accept (Linux 5.19): connections are accepted one by one"),
            (self.ring_messages, "no ring messages (Linux 5.18): cores wake each other by event counters"),
            (self.registered_sockets, "no registered sockets (Linux 6.7): the kernel looks each one up"),
        ];
        self.notes.extend(lines.iter().filter(|(present, _)| !present).map(|(_, line)| (*line).to_owned()));
        self
    }
}

fn too_old(what: &str) -> CannotRun {
    CannotRun(format!("this kernel's io_uring {what}: use Linux 5.15 or later, better 6.1"))
}

/// Why io_uring_setup was refused, by what the kernel says and what its switches say.
fn refusal(error: &io::Error) -> CannotRun {
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    explain(error, switch.trim())
}

fn explain(error: &io::Error, switch: &str) -> CannotRun {
    CannotRun(match (error.raw_os_error(), switch) {
        (Some(libc::EPERM), "2") => {
            "io_uring is switched off on this machine: run `sysctl -w kernel.io_uring_disabled=0`".to_owned()
        }
        (Some(libc::EPERM), "1") => {
            "io_uring is kept for one group (kernel.io_uring_disabled=1): add this user to the \
                                     group in kernel.io_uring_group, or set kernel.io_uring_disabled=0"
                .to_owned()
        }
        (Some(libc::EPERM | libc::EACCES), _) => "io_uring is forbidden here, most likely by a container's seccomp \
                                                  filter: allow io_uring_setup, io_uring_enter and io_uring_register \
                                                  in its profile"
            .to_owned(),
        (Some(libc::ENOSYS), _) => "this kernel has no io_uring, or a seccomp filter hides it: use Linux 5.15 or \
                                    later, and allow io_uring_setup, io_uring_enter and io_uring_register in the \
                                    container's profile"
            .to_owned(),
        (Some(libc::ENOMEM), _) => {
            "the memory that may be locked is too small for an io_uring: raise it with `ulimit -l` or LimitMEMLOCK="
                .to_owned()
        }
        _ => format!("io_uring cannot be set up ({error}): use Linux 5.15 or later"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_runs() {
        assert!(probe().is_ok());
    }

    #[test]
    fn what_is_avoided_is_noted() {
        let (_, features) = build(8, Avoid::ALL).unwrap();
        assert_eq!(features.notes.len(), 5);
        assert!(!features.deferred_completions && !features.multishot_receive);
    }

    #[test]
    fn each_refusal_says_what_to_change() {
        let said = |code, switch| explain(&io::Error::from_raw_os_error(code), switch).to_string();
        assert!(said(libc::EPERM, "2").contains("sysctl -w kernel.io_uring_disabled=0"));
        assert!(said(libc::EPERM, "1").contains("kernel.io_uring_group"));
        assert!(said(libc::EPERM, "0").contains("seccomp"));
        assert!(said(libc::ENOSYS, "").contains("5.15"));
        assert!(said(libc::ENOMEM, "0").contains("ulimit -l"));
        assert!(said(libc::EINVAL, "0").contains("5.15"));
    }
}
