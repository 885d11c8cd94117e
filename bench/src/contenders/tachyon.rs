//! `tachyon-ipc`: a ring of framed messages in shared memory.
//!
//! Both sides batch: the producer leaves its commits unflushed, and the ring flushes every
//! 32; the consumer drains many messages by one call. In polling mode the producer skips
//! the fence and the look whether the consumer sleeps.

use std::hint::spin_loop;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tachyon_ipc::{Bus, TachyonError};
use zerocopy::{FromBytes, IntoBytes};

use crate::Result;
use crate::record::Record;
use crate::transport::{self, Transport};

/// As many records as the bare ring holds: a message of 64 bytes takes 128.
const RING_BYTES: usize = 2 << 20;

/// Messages drained by one call. Each call allocates a view for each of them.
const BATCH: usize = 64;

/// Any type id will do.
const TYPE_ID: u32 = 1;

/// Polls this often, that is always, before it would sleep.
const SPINS: u32 = u32::MAX;

/// A bus in polling mode.
pub struct Tachyon;

impl Transport for Tachyon {
    type Listener = String;
    type Receiver = Receiver;
    type Sender = Sender;

    fn listen() -> Result<(String, String)> {
        let path = std::env::temp_dir().join(format!("tachyon-{}.sock", std::process::id()));
        let path = path.to_str().ok_or("the temporary directory's name is not UTF-8")?;
        Ok((path.to_owned(), path.to_owned()))
    }

    fn accept(path: String) -> Result<Receiver> {
        let bus = Bus::listen(&path, RING_BYTES)?;
        bus.set_polling_mode(1);
        Ok(Receiver(bus))
    }

    fn connect(link: &str) -> Result<Sender> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !Path::new(link).exists() && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
        Ok(Sender(Bus::connect(link)?))
    }
}

/// The producer's end.
pub struct Sender(Bus);

impl transport::Sender for Sender {
    #[inline]
    fn send(&mut self, record: Record) -> Result<()> {
        loop {
            match self.0.acquire_tx(size_of::<Record>()) {
                Ok(slot) => {
                    slot.write(record.as_bytes());
                    return Ok(slot.commit_unflushed(size_of::<Record>(), TYPE_ID)?);
                }
                Err(TachyonError::BufferFull) => {
                    self.0.flush();
                    spin_loop();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush();
        Ok(())
    }
}

/// The consumer's end.
pub struct Receiver(Bus);

impl transport::Receiver for Receiver {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&Record)) -> Result<()> {
        let batch = self.0.drain_batch(BATCH, SPINS)?;
        for message in &batch {
            let record = Record::ref_from_bytes(message.data());
            take(record.map_err(|error| error.to_string())?);
        }
        Ok(batch.commit()?)
    }
}
