//! Why a user's code failed: any error, so that `?` works on all of them.
//!
//! Dispatcher methods, callbacks and `main` return [`Result`]. It keeps the chain of causes, which
//! is printed where the failure ends up: in a `main` that returns it, and in the
//! [`DispatcherFailed`](crate::DispatcherFailed) of a dispatcher.

use std::error::Error as StdError;
use std::fmt;

use crate::ErrorKind;

type Boxed = Box<dyn StdError + Send + Sync + 'static>;

/// The result of a dispatcher's methods, of callbacks and of `main`: any error can be its error.
///
/// ```
/// fn first_number(text: &str) -> eventpy::Result<u32> {
///     let word = text.split(' ').next().ok_or(eventpy::Failure::new("the text is empty"))?;
///     Ok(word.parse()?)
/// }
/// assert_eq!(first_number("17 apples").unwrap(), 17);
/// assert!(first_number("no apples").is_err());
/// ```
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a user's code failed: any error, with the errors beneath it.
///
/// Its `Debug` form is made for people too, because that is what a `main` prints that returns it:
/// one line for each cause.
///
/// ```
/// use eventpy::Failure;
///
/// let failure = Failure::from(std::io::Error::other("the disk is full"));
/// assert_eq!(failure.to_string(), "the disk is full");
/// ```
pub struct Failure(Boxed);

impl Failure {
    /// A failure that is a sentence.
    ///
    /// ```
    /// let failure = eventpy::Failure::new(format_args!("core {} has no sensor", 3));
    /// assert_eq!(failure.to_string(), "core 3 has no sensor");
    /// ```
    pub fn new(sentence: impl fmt::Display) -> Failure {
        Failure(sentence.to_string().into())
    }

    /// A failure from an error that is in a box already, which `?` can't convert. Errors of the
    /// `anyhow` and `eyre` crates are such ones.
    ///
    /// ```
    /// fn read() -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    ///     Ok("17".parse()?)
    /// }
    /// fn update() -> eventpy::Result<()> {
    ///     let number = read().map_err(eventpy::Failure::from_boxed)?;
    ///     assert_eq!(number, 17);
    ///     Ok(())
    /// }
    /// # update().unwrap();
    /// ```
    pub fn from_boxed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Failure {
        Failure(error.into())
    }

    /// The error itself, to look at its type or its source.
    ///
    /// ```
    /// use std::io;
    ///
    /// let failure = eventpy::Failure::from(io::Error::from(io::ErrorKind::NotFound));
    /// let error: &io::Error = failure.error().downcast_ref().unwrap();
    /// assert_eq!(error.kind(), io::ErrorKind::NotFound);
    /// ```
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.0
    }

    /// Whether it only says that the dispatcher is told to end, or that nobody listens any more.
    pub(crate) fn is_ending(&self) -> bool {
        let ends = |error: &crate::Error| {
            matches!(error.kind(), ErrorKind::Ended | ErrorKind::ManagerGone)
        };
        self.chain().any(|error| error.downcast_ref().is_some_and(ends))
    }

    /// The error and its causes in one sentence.
    pub(crate) fn sentence(&self) -> String {
        self.causes().collect::<Vec<_>>().join(": ")
    }

    /// The text of the error and of each cause, without those that the one before says already.
    fn causes(&self) -> impl Iterator<Item = String> {
        let mut said = String::new();
        self.chain().map(ToString::to_string).filter(move |text| {
            let news = !said.contains(text.as_str());
            if news {
                said.clone_from(text);
            }
            news
        })
    }

    fn chain(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        let error: &(dyn StdError + 'static) = &*self.0;
        std::iter::successors(Some(error), |error| (*error).source())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.causes().collect::<Vec<_>>().join("\n  because: "))
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(Box::new(error))
    }
}

impl From<Failure> for Box<dyn StdError + Send + Sync> {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

impl From<Failure> for Box<dyn StdError> {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// What a callback may return: nothing, or a `Result` whose error becomes a [`Failure`].
///
/// ```
/// use eventpy::{Event, EventDispatchManager};
/// # use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// struct Line(String);
///
/// let mut manager = EventDispatchManager::new();
/// manager
///     .on(|line: &Line| println!("{}", line.0))
///     .on(|line: &Line| std::fs::write("last-line", &line.0))
///     .on(|line: &Line| match line.0.is_empty() {
///         true => Err(eventpy::Failure::new("an empty line")),
///         false => Ok(()),
///     });
/// ```
#[diagnostic::on_unimplemented(
    message = "a callback can't return `{Self}`",
    note = "it returns nothing, or a `Result<(), _>` with any error"
)]
pub trait Outcome {
    #[doc(hidden)]
    fn into_result(self) -> Result<()>;
}

impl Outcome for () {
    #[inline]
    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl<E: Into<Failure>> Outcome for Result<(), E> {
    #[inline]
    fn into_result(self) -> Result<()> {
        self.map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Layer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    fn layered(texts: &[&'static str]) -> Failure {
        let error = texts.iter().rev().fold(None, |cause, text| Some(Box::new(Layer(text, cause))));
        Failure::from(*error.unwrap())
    }

    #[test]
    fn debug_tells_every_cause_in_plain_words() {
        let failure = layered(&["cannot start", "no camera", "permission denied"]);
        assert_eq!(
            format!("{failure:?}"),
            "cannot start\n  because: no camera\n  because: permission denied"
        );
        assert_eq!(failure.sentence(), "cannot start: no camera: permission denied");
        assert_eq!(failure.to_string(), "cannot start");
    }

    #[test]
    fn a_cause_that_was_said_already_is_not_said_again() {
        let failure = layered(&["cannot start: no camera", "no camera", "permission denied"]);
        assert_eq!(failure.sentence(), "cannot start: no camera: permission denied");
    }

    #[test]
    fn it_becomes_a_boxed_error_and_comes_back() {
        let boxed: Box<dyn StdError + Send + Sync> = Failure::new("no camera").into();
        assert_eq!(Failure::from_boxed(boxed).to_string(), "no camera");
        let boxed: Box<dyn StdError> = Failure::new("no camera").into();
        assert_eq!(boxed.to_string(), "no camera");
    }

    #[test]
    fn an_end_is_recognised_also_beneath_another_error() {
        let ended = || crate::Error::new(ErrorKind::Ended, "told to end");
        assert!(Failure::from(ended()).is_ending());
        let wrapped = crate::Error::with_source(ErrorKind::Event, "cannot send", ended());
        assert!(Failure::from(wrapped).is_ending());
        assert!(!Failure::from(crate::Error::new(ErrorKind::Event, "too large")).is_ending());
        assert!(!Failure::new("told to end").is_ending());
    }

    #[test]
    fn an_error_in_a_callback_keeps_its_type() {
        let result: Result<(), std::num::ParseIntError> = "x".parse::<u8>().map(|_| ());
        let failure = result.into_result().unwrap_err();
        assert!(failure.error().is::<std::num::ParseIntError>());
    }
}
