//! QEMU's storage daemon: an image as a file through FUSE, with a log of all that is asked of it.

use super::{IMAGE_BYTES, LOG_BYTES, Result, log, run};
use corelog_bench::interrupt::spawn;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Name of its monitor's socket in the directory.
pub(super) const MONITOR: &str = "monitor";

/// A running daemon. Dropping it kills it; so does the end of the thread that started it, should nobody drop it.
pub(super) struct Daemon {
    child: Child,
    export: PathBuf,
}

impl Daemon {
    pub(super) fn start(directory: &Path, image: &Path) -> Result<Daemon> {
        let log = directory.join(log::FILE);
        let export = directory.join("export");
        let monitor = directory.join(MONITOR);
        File::create(&log)?.set_len(LOG_BYTES)?;
        File::create(&export)?;
        let output = File::create(directory.join("daemon.out"))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-storage-daemon"])
            .args(["--blockdev", &format!("driver=file,node-name=image,filename={}", image.display())])
            // What a fault is put under.
            .args(["--blockdev", "driver=raw,node-name=top,file=image"])
            .args(["--blockdev", &format!("driver=file,node-name=log,filename={}", log.display())])
            .args(["--blockdev", "driver=blklogwrites,node-name=logged,file=top,log=log,log-sector-size=512"])
            .args([
                "--export",
                &format!(
                    "type=fuse,id=export,node-name=logged,mountpoint={},writable=on,growable=off",
                    export.display()
                ),
            ])
            .args(["--chardev", &format!("socket,id=monitor,path={},server=on,wait=off", monitor.display())])
            .args(["--monitor", "chardev=monitor"])
            // Ctrl-C in a terminal goes to a group: the disk must outlive what is mounted on it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child =
            spawn(&mut command).map_err(|error| format!("cannot run setpriv and qemu-storage-daemon: {error}"))?;
        let mut daemon = Daemon { child, export };
        daemon.wait_ready(directory)?;
        Ok(daemon)
    }

    fn wait_ready(&mut self, directory: &Path) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&self.export)?.len() != IMAGE_BYTES {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(directory.join("daemon.out"))?;
                return Err(format!("the storage daemon does not export the image ({ended:?}): {said}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Its process.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The file that stands for the disk.
    pub(super) fn export(&self) -> &Path {
        &self.export
    }

    /// Ends it in order: its log is complete, and its export unmounted.
    pub(super) fn end(mut self) -> Result<()> {
        self.terminate()
    }

    fn terminate(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(self.pid(), Signal::SIGTERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("the storage daemon does not end".into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.terminate().is_ok() {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Nobody else lets go of the export then, and its directory could not be removed.
        let _ = run("umount", ["--lazy".as_ref(), self.export.as_os_str()]);
    }
}
