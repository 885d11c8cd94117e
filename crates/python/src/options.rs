//! What Python tells about a dispatcher, in the engine's words.

use std::time::{Duration, Instant};

use eventpy_engine::{Delivery, DispatcherId, DispatcherOptions, Restart, Selection};
use pyo3::prelude::*;

use crate::error::StateError;

/// The attributes of `eventpy._options.DispatcherOptions`, which has checked them.
#[derive(FromPyObject)]
pub(crate) struct Options {
    delivery: String,
    delivery_of: Vec<(String, String)>,
    restart: RestartRule,
    buffer_bytes: usize,
    large_bytes: usize,
    update_timeout: Option<f64>,
    start_timeout: f64,
    end_timeout: f64,
    pub(crate) copy_large: bool,
    /// Whether any event type has another delivery than `every`.
    pub(crate) may_drop: bool,
}

/// The attributes of `eventpy.Restart`.
#[derive(FromPyObject)]
struct RestartRule {
    when: String,
    backoff: f64,
    backoff_max: f64,
    limit: u32,
    window: f64,
}

impl Options {
    pub(crate) fn to_engine(&self) -> DispatcherOptions {
        let options = DispatcherOptions::default()
            .delivery(delivery(&self.delivery))
            .restart(self.restart.to_engine())
            .buffer_bytes(self.buffer_bytes)
            .large_bytes(self.large_bytes)
            .start_timeout(seconds(self.start_timeout))
            .end_timeout(seconds(self.end_timeout));
        let options = match self.update_timeout {
            Some(timeout) => options.update_timeout(seconds(timeout)),
            None => options,
        };
        self.delivery_of.iter().fold(options, |options, (event_type, of)| {
            options.delivery_of(event_type.as_str(), delivery(of))
        })
    }
}

impl RestartRule {
    fn to_engine(&self) -> Restart {
        let rule = match self.when.as_str() {
            "always" => Restart::always(),
            "on_failure" => Restart::on_failure(),
            _ => Restart::never(),
        };
        rule.backoff(seconds(self.backoff), seconds(self.backoff_max))
            .limit(self.limit, seconds(self.window))
    }
}

fn delivery(name: &str) -> Delivery {
    match name {
        "latest" => Delivery::Latest,
        "drop_newest" => Delivery::DropNewest,
        "drop_oldest" => Delivery::DropOldest,
        _ => Delivery::Every,
    }
}

/// No time is taken for longer than this, in seconds: about thirty years.
const FOREVER_SECONDS: f64 = 1e9;

/// A duration of Python: seconds, of which none below zero are left.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, FOREVER_SECONDS))
}

/// When a time-out is over; `None` for one without an end.
pub(crate) fn until(timeout: Option<f64>) -> Option<Instant> {
    timeout.map(|timeout| Instant::now() + seconds(timeout))
}

/// The dispatchers of these places.
pub(crate) fn selection(which: Option<Vec<usize>>, known: &[DispatcherId]) -> PyResult<Selection> {
    let Some(which) = which else { return Ok(Selection::All) };
    let id = |place: usize| {
        known.get(place).copied().ok_or_else(|| {
            StateError::new_err("a dispatcher of that type is registered, but not deployed yet")
        })
    };
    Ok(Selection::Only(which.into_iter().map(id).collect::<PyResult<_>>()?))
}
