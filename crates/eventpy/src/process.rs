//! From the manager's process to a dispatcher's: how a dispatcher is shipped, and found over there.
//!
//! A dispatcher process is this same program, started again. The attributes
//! [`main`](macro@crate::main) and [`test`](macro@crate::test) call into this file before anything
//! else happens; in a dispatcher process that call does not return. It looks the dispatcher's type
//! up in the registry, to which [`dispatcher`](macro@crate::dispatcher) adds each, and reads its
//! settings.

use std::any::type_name;
use std::cell::RefCell;
use std::ffi::OsString;

use eventpy_engine::child::{self, Assignment, Face, Source};
use eventpy_engine::{Error, ErrorKind, Launch};

use crate::dispatcher::{EventDispatcher, Running};
use crate::encoding;

/// What the registry knows of a dispatcher type.
pub struct Registration {
    type_name: fn() -> &'static str,
    load: Load,
}

/// Makes a dispatcher from its settings; the error is a sentence.
type Load = fn(&[u8]) -> Result<Box<dyn Source>, String>;

inventory::collect!(Registration);

impl Registration {
    /// The entry of a type.
    pub const fn of<D: EventDispatcher>() -> Registration {
        Registration { type_name: type_name::<D>, load: load::<D> }
    }
}

fn load<D: EventDispatcher>(settings: &[u8]) -> Result<Box<dyn Source>, String> {
    let dispatcher: D = encoding::decode(settings)?;
    Ok(Box::new(Running::new(dispatcher)))
}

/// The bytes from which a dispatcher's process makes the dispatcher: its type's name, its settings.
pub(crate) fn ship<D: EventDispatcher>(dispatcher: &D) -> Result<Vec<u8>, Error> {
    let settings = encoding::encode(dispatcher, 64).map_err(|reason| {
        let name = short_name::<D>();
        let message = format!(
            "dispatcher `{name}` can't be taken to its process: its settings can't be encoded: \
             {reason}; make what can't be taken along in `init`"
        );
        Error::new(ErrorKind::Load, message)
    })?;
    Ok(encoding::encode(&(type_name::<D>(), settings), 0).expect("a text and bytes are encodable"))
}

fn unpack(assignment: &Assignment) -> Result<Box<dyn Source>, String> {
    let (name, settings): (String, Vec<u8>) = encoding::decode(&assignment.payload)?;
    let registration = inventory::iter::<Registration>
        .into_iter()
        .find(|registration| (registration.type_name)() == name)
        .ok_or_else(|| {
            format!(
                "dispatcher type `{name}` is not known to the program that was started for it; \
                 was the program built anew while it ran?"
            )
        })?;
    (registration.load)(&settings).map_err(|reason| {
        format!("dispatcher type `{name}` can't be loaded: its settings can't be decoded: {reason}")
    })
}

/// In a dispatcher process: runs the dispatcher to its end and exits. Else it does nothing.
pub fn run_if_dispatcher_process() {
    child::run_if_dispatcher(Face::default(), |assignment, _| unpack(assignment));
}

thread_local! {
    /// How the test that runs in this thread is started again.
    static TEST_LAUNCH: RefCell<Option<Launch>> = const { RefCell::new(None) };
}

/// While it lives, managers that are made in this thread start this test again.
pub struct TestLaunch(());

/// The first line of a test, whose name is the full path with the crate's name.
///
/// In a dispatcher process it does not return: the test harness, told to run only this test, got
/// us here, and the dispatcher takes over.
pub fn begin_test(path: &str) -> TestLaunch {
    run_if_dispatcher_process();
    let name = path.split_once("::").map_or(path, |(_crate, name)| name);
    let args = [name, "--exact", "--include-ignored", "--nocapture", "--quiet", "--test-threads=1"];
    TEST_LAUNCH.set(Some(this_program(args.map(OsString::from).into())));
    TestLaunch(())
}

impl Drop for TestLaunch {
    fn drop(&mut self) {
        TEST_LAUNCH.set(None);
    }
}

/// How a manager that is made now starts its dispatchers.
pub(crate) fn launch() -> Launch {
    TEST_LAUNCH.with_borrow(Clone::clone).unwrap_or_else(|| this_program(Vec::new()))
}

fn this_program(args: Vec<OsString>) -> Launch {
    Launch {
        program: "/proc/self/exe".into(),
        args,
        hint: "is `fn main` marked with `#[eventpy::main]`, or, in a test, its function with \
               `#[eventpy::test]`?"
            .to_owned(),
    }
}

/// The name of a type without the modules that it is in, and the same for its parameters.
pub(crate) fn short_name<T: ?Sized>() -> String {
    let is_separator = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    type_name::<T>()
        .split_inclusive(is_separator)
        .map(|part| part.rsplit_once("::").map_or(part, |(_modules, name)| name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_has_no_modules() {
        struct Camera;
        assert_eq!(short_name::<Camera>(), "Camera");
        assert_eq!(short_name::<Option<Vec<Camera>>>(), "Option<Vec<Camera>>");
        assert_eq!(
            short_name::<Result<(Camera, u8), &'static [Camera]>>(),
            "Result<(Camera, u8), &[Camera]>"
        );
    }

    #[test]
    fn a_test_is_started_again_by_its_name_without_the_crate() {
        let outside = launch();
        assert!(outside.args.is_empty());
        {
            let _launch = begin_test("some_crate::module::it_works");
            assert_eq!(launch().args[..2], ["module::it_works", "--exact"]);
        }
        assert!(launch().args.is_empty());
    }

    #[test]
    fn an_unknown_type_is_named() {
        let payload = encoding::encode(&("app::Gone", Vec::<u8>::new()), 0).unwrap();
        let assignment = Assignment { name: "Gone".to_owned(), payload };
        let Err(sentence) = unpack(&assignment) else { panic!("it was loaded") };
        assert!(sentence.contains("`app::Gone` is not known"), "{sentence}");
    }
}
