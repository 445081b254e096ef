//! The yardsticks' broker on glommio: what `corelog bench reactors` compares the engine's reactor with.

mod runtime;

use clap::{Parser, ValueEnum};
use corelog_yardstick::bare::Durable;
use corelog_yardstick::broker;
use corelog_yardstick::disk::zero_filled;
use glommio::{LocalExecutorBuilder, Placement};
use runtime::Glommio;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Serves the yardsticks' protocol on a free loopback port, which it says on standard output, until its standard input
/// ends.
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  corelog-glommio --file ./scratch --cpu 1      serves frames of 1120 bytes; Ctrl-D ends it

Exit status: 0 ended by the end of its input, 1 failed, 2 usage.")]
struct Args {
    /// File to write round and round. It is made, and filled with zeros, in the place of what is there; it stays.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Bytes of it, a multiple of 2 MiB.
    #[arg(long, value_name = "BYTES", default_value_t = 128 << 20)]
    file_bytes: u64,
    /// Bytes of every request frame, its header of 16 bytes included.
    #[arg(long, value_name = "BYTES", default_value_t = 1120, value_parser = frame_bytes)]
    frame_bytes: usize,
    /// Bytes of every acknowledgement after its header.
    #[arg(long, value_name = "BYTES", default_value_t = 24)]
    ack_bytes: usize,
    /// Bytes that one write may gather: requests that may be outstanding at once.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    gather_bytes: usize,
    /// Core to run on; without it the scheduler chooses.
    #[arg(long, value_name = "CORE")]
    cpu: Option<usize>,
    /// How a write is made durable: by the file's O_DSYNC, or by an fdatasync after it.
    #[arg(long, value_name = "HOW", value_enum, default_value = "flush")]
    durable: How,
    /// How long the executor looks for work before it sleeps, microseconds. glommio does not yield the core meanwhile.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    spin_us: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum How {
    Dsync,
    Flush,
}

fn frame_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| (17..=1 << 20).contains(bytes));
    bytes.ok_or_else(|| "it must be a number of bytes from 17 to 1048576".to_owned())
}

fn main() -> ExitCode {
    let args = Args::parse();
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corelog-glommio: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> io::Result<()> {
    zero_filled(&args.file, args.file_bytes)?;
    end_with_input();
    let placement = args.cpu.map_or(Placement::Unbound, Placement::Fixed);
    let gather_bytes = args.gather_bytes.next_multiple_of(4096);
    let executor = LocalExecutorBuilder::new(placement)
        .spin_before_park(Duration::from_micros(args.spin_us))
        // Registered memory for the write under way, the one that is gathered, and what the allocator keeps of it.
        .io_memory((8 * gather_bytes).next_power_of_two())
        .ring_depth(1024)
        .make()?;
    executor.run(async {
        let durable = match args.durable {
            How::Dsync => Durable::Dsync,
            How::Flush => Durable::Flush,
        };
        let runtime = Glommio::start(&args.file, gather_bytes, durable).await?;
        let mut out = io::stdout();
        writeln!(out, "{}", runtime.address()?)?;
        out.flush()?;
        let Args { file_bytes, frame_bytes, ack_bytes, .. } = *args;
        broker::serve(runtime, broker::Options { file_bytes, frame_bytes, ack_bytes }).await
    })
}

/// Ends the process when who started it is gone or wants no more of it.
fn end_with_input() {
    std::thread::spawn(|| {
        let mut input = io::stdin().lock();
        while matches!(input.read(&mut [0; 64]), Ok(bytes) if bytes > 0) {}
        std::process::exit(0);
    });
}
