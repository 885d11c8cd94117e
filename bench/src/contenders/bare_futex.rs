//! The limit of waking: the bare ring, a FUTEX_WAIT on its tail by a consumer that finds
//! it empty, and a FUTEX_WAKE after every record, without looking whether anyone sleeps.

use rustix::io::Errno;
use rustix::thread::futex;

use crate::Result;
use crate::contenders::bare_ring::{self, BareRing};
use crate::record::Record;
use crate::transport::{self, Transport};

/// A ring that publishes every record, and wakes.
pub struct BareFutex;

type Ring = BareRing<1>;

impl Transport for BareFutex {
    type Listener = <Ring as Transport>::Listener;
    type Receiver = Receiver;
    type Sender = Sender;

    fn listen() -> Result<(Self::Listener, String)> {
        Ring::listen()
    }

    fn accept(listener: Self::Listener) -> Result<Receiver> {
        Ok(Receiver(Ring::accept(listener)?))
    }

    fn connect(link: &str) -> Result<Sender> {
        Ok(Sender(Ring::connect(link)?))
    }
}

/// The producer's end.
pub struct Sender(bare_ring::Sender<1>);

impl transport::Sender for Sender {
    #[inline]
    fn send(&mut self, record: Record) -> Result<()> {
        self.0.send(record)?;
        futex::wake(self.0.tail(), futex::Flags::empty(), 1)?;
        Ok(())
    }
}

/// The consumer's end.
pub struct Receiver(bare_ring::Receiver);

impl transport::Receiver for Receiver {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&Record)) -> Result<()> {
        while let Err(empty_at) = self.0.find_records() {
            match futex::wait(self.0.tail(), futex::Flags::empty(), empty_at, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.0.take_ready(take);
        Ok(())
    }
}
