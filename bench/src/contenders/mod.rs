//! One file for each contender, with the same verbs in each: see
//! [`Transport`](crate::transport::Transport).

pub mod bare_futex;
pub mod bare_ring;
pub mod iceoryx2;
pub mod ipc_channel;
#[cfg(feature = "tachyon")]
pub mod tachyon;
