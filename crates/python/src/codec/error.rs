//! What can go wrong between an event and its bytes.

use pyo3::PyErr;

/// Why an event could not be encoded, or a record not decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither the typed path nor pickle can write this event.
    #[error("{message}")]
    Unsendable {
        /// Names the event's class and, when one attribute is to blame, that and its type.
        message: String,
        /// What pickle said.
        cause: PyErr,
    },
    /// The bytes are no record that an encoder wrote.
    #[error("broken event record: {0}")]
    Broken(#[from] Broken),
    /// Python code failed on the way: a hook of the event's class, an import, memory.
    #[error(transparent)]
    Raised(#[from] PyErr),
}

/// What is wrong with the bytes of a record or a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// A length or a count says more than there is.
    #[error("it ends within a value")]
    Truncated,
    /// Bytes are left over after the last value.
    #[error("{0} bytes follow its last value")]
    Trailing(usize),
    /// The first byte is no known kind of record, or not one that belongs here.
    #[error("kind {0} is unknown here")]
    Kind(u8),
    /// A value begins with a byte that no encoder writes.
    #[error("value tag {0:#04x} is unknown")]
    Tag(u8),
    /// A length is written in more bytes than a length can have.
    #[error("a length is out of range")]
    Length,
    /// A text is not UTF-8 (with surrogates let through).
    #[error("a text is not UTF-8")]
    Text,
    /// A value refers to a part that was not written before.
    #[error("part {0} is referred to before it was written")]
    Reference(u32),
    /// Containers stand deeper within each other than an encoder writes them.
    #[error("values are nested too deep")]
    Depth,
    /// A shape is used that no definition announced.
    #[error("shape {0} was never defined")]
    UnknownShape(u16),
    /// Definitions are numbered from zero without a gap.
    #[error("shape {found} was defined where shape {expected} was due")]
    ShapeOrder {
        /// The number in the definition.
        found: u16,
        /// The next free number.
        expected: usize,
    },
    /// What a definition names is no class.
    #[error("shape {0} is not the shape of a class")]
    NotAClass(u16),
    /// A definition names an attribute that no encoder sends.
    #[error("an attribute has a reserved name")]
    Name,
    /// An out-of-band buffer lies outside the record or off its alignment.
    #[error("out-of-band buffer {0} lies outside the record")]
    Buffer(usize),
}
