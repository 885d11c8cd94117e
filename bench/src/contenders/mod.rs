//! One file for each contender, with the same verbs in each: see
//! [`Transport`](crate::transport::Transport), and `eventpy` for why it has its own.

pub mod bare_futex;
pub mod bare_ring;
pub mod eventpy;
pub mod eventpy_ring;
pub mod iceoryx2;
pub mod ipc_channel;
#[cfg(feature = "tachyon")]
pub mod tachyon;
