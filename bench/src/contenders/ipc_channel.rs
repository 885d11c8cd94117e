//! `ipc-channel`: typed messages, serialized and sent through a Unix socket.
//!
//! It has one setting only. `recv` both waits and reads, in every work.

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};

use crate::Result;
use crate::record::Record;
use crate::transport::{self, Transport};

/// A typed channel, made by the producer.
pub struct IpcChannel;

impl Transport for IpcChannel {
    type Listener = IpcOneShotServer<IpcReceiver<Record>>;
    type Receiver = Receiver;
    type Sender = Sender;

    fn listen() -> Result<(Self::Listener, String)> {
        Ok(IpcOneShotServer::new()?)
    }

    fn accept(server: Self::Listener) -> Result<Receiver> {
        let (_, records) = server.accept()?;
        Ok(Receiver(records))
    }

    fn connect(link: &str) -> Result<Sender> {
        let (sender, receiver) = ipc::channel()?;
        IpcSender::connect(link.to_owned())?.send(receiver)?;
        Ok(Sender(sender))
    }
}

/// The producer's end.
pub struct Sender(IpcSender<Record>);

impl transport::Sender for Sender {
    fn send(&mut self, record: Record) -> Result<()> {
        Ok(self.0.send(record)?)
    }
}

/// The consumer's end.
pub struct Receiver(IpcReceiver<Record>);

impl transport::Receiver for Receiver {
    fn receive(&mut self, take: &mut impl FnMut(&Record)) -> Result<()> {
        take(&self.0.recv()?);
        Ok(())
    }
}
